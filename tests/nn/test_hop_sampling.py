import copy
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from strategies import assert_matches
from torch import nn
from torch_geometric.nn import APPNP, LightGCN, SGConv, SSGConv, TAGConv
from torch_geometric.nn.inits import reset
from torch_geometric.nn.models import GAT, GCN, GIN, GraphSAGE

from gesm import GesmError
from gesm.models import GESM, GSM, MixedMLP
from gesm.nn import GESMConv, HopSampling, StepMixture
from gesm.nn.functional import hop_probabilities, hop_sampling

K = 5
NODES = 20


class Powers(nn.Module):
    """A module of the user's own with a depth K."""

    def __init__(self):
        super().__init__()
        self.K, self.lin = K, nn.Linear(6, 3)

    def forward(self, x, edge_index):
        for _ in range(self.K):
            x = x.index_add(0, edge_index[1], x[edge_index[0]]) / 3
        return self.lin(x)


MODULES = {
    "mixture": lambda: StepMixture(6, 3, K),
    "wide-mixture": lambda: StepMixture(6, 9, K),
    "concat": lambda: StepMixture(6, K=K, mode="concat"),
    "conv": lambda: GESMConv(6, 4, 3, K, heads=2),
    "gesm": lambda: GESM(6, 4, 3, K, heads=2),
    "gesm-stack": lambda: GESM(6, 4, 3, K, heads=2, num_layers=2, layer_norm=True),
    "gsm": lambda: GSM(6, 8, 3, K),
    "gsm-classifier": lambda: GSM(6, 8, 3, K, classifier="linear", layer_norm=True),
    "mixed-mlp": lambda: MixedMLP(6, 8, 3, K),
    "mixed-mlp-norms": lambda: MixedMLP(6, 8, 3, K, batch_norm="both"),
    "appnp": lambda: APPNP(K, alpha=0.1),
    "sgc": lambda: SGConv(6, 3, K),
    "ssgc": lambda: SSGConv(6, 3, alpha=0.1, K=K),
    "tag": lambda: TAGConv(6, 3, K),
    "tag-without-bias": lambda: TAGConv(6, 3, K, bias=False),
    "own": Powers,
    "gcn": lambda: GCN(6, 8, K, 3, norm="batch"),
    "gat": lambda: GAT(6, 8, K, 3),
    "sage-cat": lambda: GraphSAGE(6, 8, K, 3, jk="cat"),
    "gin-max": lambda: GIN(6, 8, K, 3, jk="max"),
    "gcn-lstm": lambda: GCN(6, 8, K, 3, jk="lstm"),
    "gcn-last": lambda: GCN(6, 8, K, jk="last"),
}
MIXTURES = ("mixture", "wide-mixture", "concat", "conv", "gesm", "gsm")


@pytest.fixture
def inputs():
    return torch.randn(NODES, 6), torch.randint(NODES, (2, 60))


@pytest.mark.parametrize("name", MODULES)
def test_a_point_mass_at_full_depth_is_the_module(name, inputs):
    module = MODULES[name]()
    hop = HopSampling(module, distribution=[0] * K + [1])
    for mode in (False, True):
        module.train(mode)
        hop.train(mode)
        assert torch.equal(hop(*inputs), module(*inputs))
    assert hop.last_depth == K


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("distribution", ["uniform", ("geometric", 0.4), lambda K: [0, 0, 1, 0, 2, 0]], ids=["u", "g", "f"])
def test_expected_is_the_mean_over_enumerated_depths(name, distribution, inputs):
    hop = HopSampling(MODULES[name](), distribution=distribution, inference="expected").double().eval()
    x, edge_index = inputs[0].double(), inputs[1]
    mean = 0
    for k in hop.probabilities.nonzero().view(-1).tolist():
        with hop.at(k):
            mean = mean + hop.probabilities[k] * hop(x, edge_index)
    assert_matches(hop(x, edge_index), mean, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", MODULES)
def test_trains_saves_and_is_removed(name, inputs, tmp_path):
    module = MODULES[name]()
    before = copy.deepcopy(module)
    hop = HopSampling(module)
    model = nn.ModuleDict({"encoder": hop, "head": nn.Linear(2, 2)})
    plain = nn.ModuleDict({"encoder": before, "head": nn.Linear(2, 2)})
    assert list(model.state_dict()) == list(plain.state_dict())
    parameters = list(hop.parameters())
    if parameters:
        optimizer = torch.optim.SGD(parameters, 0.01)
        for _ in range(6):
            optimizer.zero_grad()
            hop(*inputs).square().mean().backward()
            optimizer.step()
        assert all(p.isfinite().all() for p in parameters)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    plain.load_state_dict(saved)
    copied = copy.deepcopy(model)
    reset(copied["encoder"])
    copied.load_state_dict(saved)
    for loaded in (before, copied["encoder"]):
        assert torch.equal(loaded.eval()(*inputs), hop.eval()(*inputs))
    assert hop.remove() is module
    assert torch.equal(module(*inputs), hop(*inputs))


@pytest.mark.parametrize("name", MODULES)
def test_a_node_reads_its_own_depth(name, inputs):
    hop = HopSampling(MODULES[name](), per="node", generator=torch.Generator().manual_seed(1))
    hop.train()
    for module in hop.modules():  # batch statistics would differ between the forwards compared
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    out = hop(*inputs)
    assert hop.last_depth.shape == (NODES,)
    if name == "gesm-stack":
        return
    for k in hop.last_depth.unique().tolist():
        with hop.at(k):
            mine = hop.last_depth == k
            torch.testing.assert_close(out[mine], hop(*inputs)[mine], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("per", ["forward", "node"])
@pytest.mark.parametrize("name", MODULES)
def test_sample_stacks_the_outputs_at_its_draws(name, per, inputs):
    hop = HopSampling(MODULES[name](), per=per)
    hop.eval()
    outs = hop.sample(3, *inputs)
    if per == "node":
        assert hop.last_depth.shape == (3, NODES)
        assert len(outs) == 3
        return
    assert hop.last_depth.shape == (3,)
    for k, out in zip(hop.last_depth.tolist(), outs, strict=True):
        with hop.at(k):
            torch.testing.assert_close(out, hop(*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*MIXTURES, "tag"])
def test_a_truncated_mixture_keeps_its_scale(name):
    """On a graph of self-loops every step is the features: a sum over the steps taken, scaled, is that over all of them."""
    module = MODULES[name]()
    x, loops = torch.randn(NODES, 6), torch.arange(NODES).repeat(2, 1)
    if hasattr(module, "lins"):  # TAGConv: the same map for each step
        for lin in module.lins[1:]:
            lin.weight.data.copy_(module.lins[0].weight)
    for mixture in (m for m in module.modules() if isinstance(m, StepMixture) and m.lin is not None):
        blocks = mixture.lin.weight.data.view(K + 1, -1)
        blocks.copy_(blocks[:1].expand_as(blocks))
    hop = HopSampling(module).eval()
    full = hop(x, loops)
    for k in range(K + 1):
        with hop.at(k):
            out = hop(x, loops)
        if name == "concat":
            out, expected = out[:, : 6 * (k + 1)], full[:, : 6 * (k + 1)] * (K + 1) / (k + 1)
            torch.testing.assert_close(out, expected)
        else:
            torch.testing.assert_close(out, full, rtol=1e-4, atol=1e-5)


def test_a_truncated_concatenation_keeps_its_scale(inputs):
    """Where all layers yield the same and are mapped alike, the output does not depend on how many are taken."""
    model = GraphSAGE(6, 8, K, 3, jk="cat").eval()
    model.convs = nn.ModuleList(Same() for _ in range(K))
    model.lin.weight.data.copy_(model.lin.weight.data[:, :8].repeat(1, K))
    hop = HopSampling(model).eval()
    x = torch.rand(NODES, 8)
    for k in range(1, K + 1):
        with hop.at(k):
            torch.testing.assert_close(hop(x, inputs[1]), model(x, inputs[1]))


class Same(nn.Module):
    def forward(self, x, edge_index):
        return x


def test_lightgcn_keeps_the_sum_of_alpha_and_scores_pairs():
    model = LightGCN(NODES, 8, K, alpha=torch.tensor([0.3, 0.1, 0.1, 0.2, 0.2, 0.1]))
    edges, pairs = torch.randint(NODES, (2, 60)), torch.randint(NODES, (2, 7))
    hop = HopSampling(model)
    sums = []
    model.register_forward_pre_hook(lambda module, _: sums.append((float(module.alpha.sum()), len(module.alpha))))
    hop(edges, pairs).sum().backward()
    assert sums[0][0] == pytest.approx(1)
    assert sums[0][1] == hop.last_depth + 1
    hop.eval()
    assert torch.equal(hop(edges, pairs), model(edges, pairs))
    hop.inference = "expected"
    mean = 0
    for k in range(1, K + 1):
        with hop.at(k):
            mean = mean + hop(edges, pairs) / K
    torch.testing.assert_close(hop(edges, pairs), mean)
    assert hop.recommend(edges, k=2).shape == (NODES, 2)


@pytest.mark.parametrize("distribution", ["uniform", ("geometric", 0.3), [1, 2, 0, 0, 3, 1]])
@pytest.mark.parametrize("per", ["forward", "node"])
def test_depths_follow_the_distribution(distribution, per):
    hop = HopSampling(lambda k, x: x, K, distribution=distribution, per=per, generator=torch.Generator().manual_seed(3))
    x = torch.zeros(2000 if per == "node" else 1, 1)
    drawn = []
    for _ in range(1 if per == "node" else 2000):
        hop(x)
        drawn.append(torch.as_tensor(hop.last_depth).view(-1))
    counts = torch.cat(drawn).bincount(minlength=K + 1)
    possible = hop.probabilities > 0
    assert counts[~possible].sum() == 0
    assert chisquare(counts[possible], 2000 * hop.probabilities[possible]).pvalue > 0.01


def test_probabilities():
    assert hop_probabilities("uniform", 4).tolist() == [0, 0.25, 0.25, 0.25, 0.25]
    assert hop_probabilities("uniform", 0).tolist() == [1]
    torch.testing.assert_close(hop_probabilities("geometric", 2), torch.tensor([0, 2 / 3, 1 / 3], dtype=torch.float64))
    assert hop_probabilities([2, 0, 2], 2).tolist() == [0.5, 0, 0.5]
    assert HopSampling(MODULES["gcn"]()).probabilities.tolist() == [0, 0, 0.25, 0.25, 0.25, 0.25]
    assert HopSampling(MODULES["sage-cat"]()).probabilities.tolist() == [0, 0.2, 0.2, 0.2, 0.2, 0.2]


def test_draws_come_from_the_generator(inputs):
    def depths(**options):
        hop = HopSampling(MODULES["mixture"](), **options)
        out = []
        for _ in range(20):
            hop(*inputs)
            out.append(hop.last_depth)
        return out

    first, second = (depths(generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert first == second
    torch.manual_seed(7)
    third = depths()
    torch.manual_seed(7)
    assert third == depths()
    assert len(set(third)) > 1


def test_evaluation_is_deterministic_and_draws_nothing(inputs):
    generator = torch.Generator().manual_seed(0)
    hop = HopSampling(MODULES["conv"](), generator=generator).eval()
    before = generator.get_state()
    assert torch.equal(hop(*inputs), hop(*inputs))
    with hop.at(3):
        assert hop.train()(*inputs).shape == (NODES, 3)
    assert torch.equal(before, generator.get_state())
    assert hop.last_depth is None


def test_the_functional_form():
    calls = []
    f = lambda k, x, scale=1: calls.append(k) or scale * k * x  # noqa: E731
    x = torch.ones(2)
    out = hop_sampling(f, 3, x, generator=torch.Generator().manual_seed(0), scale=2)
    assert torch.equal(out, 2 * calls[0] * x)
    assert hop_sampling(f, 3, x, training=False).tolist() == [3, 3]
    module = Counting().eval()
    hop_sampling(module, 3, x)
    assert not module.training
    assert hop_sampling(f, 3, x, training=False, inference="expected").tolist() == [2, 2]


class Counting(nn.Module):
    def forward(self, k, x):
        return k * x


def test_another_module_may_take_the_place_of_the_first(inputs):
    hop = HopSampling(MODULES["conv"]()).eval()
    hop.module = MODULES["conv"]().eval()
    assert torch.equal(hop(*inputs), hop.module(*inputs))


def test_a_graph_without_nodes():
    x, edges = torch.empty(0, 6), torch.empty(2, 0, dtype=torch.long)
    for per in ("forward", "node"):
        hop = HopSampling(MODULES["gsm"](), per=per)
        assert hop(x, edges).shape == (0, 3)
        assert hop.sample(2, x, edges).shape == (2, 0, 3)


@pytest.mark.parametrize("name", ["appnp", "sgc", "tag", "gcn", "own"])
def test_a_held_depth_of_a_graph_without_nodes(name):
    hop = HopSampling(MODULES[name](), per="node")
    x, edges = torch.empty(0, 6), torch.empty(2, 0, dtype=torch.long)
    assert hop.eval()(x, edges).shape == hop.train()(x, edges).shape


@pytest.mark.parametrize("name", ["appnp", "tag", "gcn", "own"])
def test_threads_do_not_disturb_each_other(name, inputs):
    hop = HopSampling(MODULES[name](), inference="expected").eval()
    with torch.no_grad(), ThreadPoolExecutor(4) as threads:
        expected = hop(*inputs)
        for future in [threads.submit(hop, *inputs) for _ in range(24)]:
            assert torch.equal(future.result(), expected)


def test_tuples_are_joined(inputs):
    hop = HopSampling(MODULES["gesm-stack"](), inference="expected").eval()
    out, z = hop(*inputs, return_embedding=True)
    assert out.shape == (NODES, 3)
    assert z.shape == (NODES, 8)
    out, _ = HopSampling(MODULES["gesm"]()).sample(4, *inputs, return_embedding=True)
    assert out.shape == (4, NODES, 3)


def test_attributes_and_repr(inputs):
    hop = HopSampling(GSM(6, 8, 3, K=4), inference=2)
    assert hop.mixture is hop.module.mixture
    assert re.match(r"HopSampling\(\s+K=4, per='forward', inference=2\s+\(module\): GSM", str(hop))
    with pytest.raises(AttributeError, match="nothing"):
        _ = hop.nothing


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, e: HopSampling(nn.Linear(2, 2)), "Linear has no depth.*APPNP.*LightGCN.*K=8"),
        (lambda x, e: HopSampling("gcn", K=3), "str has no depth"),
        (lambda x, e: HopSampling(APPNP(K, 0.1), K=3), "depth of its own, 5; leave out K=3"),
        (lambda x, e: HopSampling(lambda k: k, K=-1), "K must be a whole number >= 0"),
        (lambda x, e: HopSampling(SGConv(6, 3, K, cached=True)), "cached=True.*use cached=False"),
        (lambda x, e: HopSampling(HopSampling(APPNP(K, 0.1))), "draws its depth already"),
        (lambda x, e: HopSampling(LightGCN(9, 4, 2, torch.tensor([0.0, 0, 1]))), r"alpha, \[0.0, 0.0, 1.0\], gives the first"),
        (lambda x, e: HopSampling(APPNP(K, 0.1), distribution=("geometric",)), "'uniform', 'geometric'.*got"),
        (lambda x, e: MODULES["gesm-stack"]()(x, e, step_weight=[1.0]), "floating-point tensor"),
        (lambda x, e: HopSampling(APPNP(K, 0.1), distribution="normal"), "'uniform', 'geometric'.*got 'normal'"),
        (lambda x, e: HopSampling(APPNP(K, 0.1), distribution=("geometric", 2.0)), r"p of the geometric.*\(0, 1\), got 2.0"),
        (lambda x, e: HopSampling(APPNP(K, 0.1), distribution=[1, 1]), "has 6 weights >= 0"),
        (lambda x, e: HopSampling(APPNP(K, 0.1), distribution=[-1, 1, 0, 0, 0, 1]), "6 weights >= 0, not all 0; got"),
        (lambda x, e: HopSampling(GCN(6, 8, K, 3), distribution=[0, 1, 1, 0, 0, 1]), "no depth below 2"),
        (lambda x, e: HopSampling(APPNP(K, 0.1), per="edge"), "per must be 'forward' or 'node', got 'edge'"),
        (lambda x, e: HopSampling(APPNP(K, 0.1), inference="mean"), "'expected' or a depth from 0 to 5, got 'mean'"),
        (lambda x, e: HopSampling(APPNP(K, 0.1), inference=6), "from 0 to 5, got 6"),
        (lambda x, e: HopSampling(GCN(6, 8, K, 3), inference=1), "from 2 to 5, got 1"),
        (lambda x, e: HopSampling(APPNP(K, 0.1)).sample(0, x, e), "draws must be at least 1, a whole number, got 0"),
        (lambda x, e: HopSampling(LightGCN(NODES, 4, 2), per="node")(e), "per='node' needs the node features"),
        (lambda x, e: HopSampling(lambda k, x: x.sum(), 3, per="node")(x), "one row a node"),
        (lambda x, e: HopSampling(lambda k, x: {}, 3, inference="expected").eval()(x), "returned dict"),
        (lambda x, e: StepMixture(6, 3, 2)(x, e, step_weight=torch.ones(4)), r"J at most K=2, got \[4\]"),
        (lambda x, e: StepMixture(6, 3, 2)(x, e, step_weight=torch.ones(3, 2, 2)), r"got \[3, 2, 2\]"),
        (lambda x, e: StepMixture(6, 3, 2)(x, e, step_weight=[1.0]), "floating-point tensor.*got list"),
        (lambda x, e: MODULES["gesm-stack"]()(x, e, step_weight=torch.ones(2, 1, 2)), "one mixture at a time"),
    ],
)
def test_bad_input_gets_one_clear_error(call, message, inputs):
    with pytest.raises(GesmError, match=message):
        call(*inputs)


def test_an_error_in_the_module_leaves_its_depth(inputs):
    module = MODULES["gcn"]()
    hop = HopSampling(module)
    with hop.at(3), pytest.raises(Exception, match=r".+"):
        hop(inputs[0][:, :2], inputs[1])
    assert (module.num_layers, len(module.convs)) == (K, K)


@pytest.mark.parametrize(
    ("make", "depth"),
    [
        (lambda: GSM(5, 8, 3, K=3), "K"),
        (lambda: StepMixture(5, 3, K=3), "K"),
        (lambda: APPNP(3, 0.1), "K"),
        (lambda: TAGConv(5, 3, 3), "K"),
        (lambda: GCN(5, 8, 3), "num_layers"),
    ],
)
def test_a_depth_changed_since_is_refused(make, depth):
    hop, x, edges = HopSampling(make()), torch.randn(6, 5), torch.randint(6, (2, 20))
    setattr(hop.module, depth, 2)
    for call in (hop, hop.eval(), lambda *inputs: hop.sample(2, *inputs)):
        with pytest.raises(GesmError, match=f"wrapped with {depth}=3, but its {depth} was set to 2; wrap it again"):
            call(x, edges)


def test_probabilities_are_not_to_be_set():
    hop = HopSampling(StepMixture(6, 3, K))
    with pytest.raises(AttributeError, match="probabilities"):
        hop.probabilities = torch.ones(K + 1)


def test_a_depth_that_cannot_be_set_is_refused():
    class Fixed(nn.Module):
        K = property(lambda self: 3)

    with pytest.raises(GesmError, match=r"Fixed\.K cannot be set"):
        HopSampling(Fixed())


def test_depths_may_be_numpys(inputs):
    for module in (StepMixture(6, 3, K=np.int64(3)), GSM(6, 8, 3, K=np.int64(3)), APPNP(np.int64(3), 0.1)):
        hop = HopSampling(module)
        with hop.at(np.int64(2)):
            hop(*inputs)
        assert type(hop.K) is int
    assert HopSampling(lambda k, x: x, K=np.int64(4)).K == 4


def test_draws_are_the_cpus_whatever_the_default_device():
    generator = torch.Generator("cpu")
    with torch.device("meta"):
        hop = HopSampling(lambda k, x: k * x, K=4, distribution=[0, 0, 0, 1, 0], generator=generator)
        assert hop(1) == 3
        assert hop.sample(2, torch.ones(1)).shape == (2, 1)
        HopSampling(StepMixture(6, 3, 4), inference="expected")
        per_node = HopSampling(lambda k, x: k * x, K=4, per="node", generator=generator)
        per_node(torch.ones(5, 6, device="cpu"))
        assert per_node.last_depth.device.type == "cpu"
