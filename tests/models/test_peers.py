import numpy as np
import pytest
import torch
import torch.nn.functional as F
from strategies import assert_matches, star
from torch_geometric.nn import APPNP as PropagateAPPNP
from torch_geometric.nn import GCN2Conv, MixHopConv, SGConv
from torch_geometric.nn.models import GAT as PyGGAT
from torch_geometric.nn.models import GCN as PyGGCN

from gesm import GesmError, Graph
from gesm.models import peers
from gesm.models.peers import APPNP, GAT, GCN, GCNII, MLP, SGC, MixHop
from gesm.nn import HopSampling

MODELS = {
    "sgc": lambda **o: SGC(6, 3, K=4, **o),
    "appnp": lambda **o: APPNP(6, 8, 3, K=4, alpha=0.2, **o),
    "gcn": lambda **o: GCN(6, 8, 3, num_layers=4, **o),
    "gcn with batch norm": lambda **o: GCN(6, 8, 3, num_layers=4, batch_norm="hidden", **o),
    "gat": lambda **o: GAT(6, 8, 3, num_layers=4, heads=2, **o),
    "gat with skip connections": lambda **o: GAT(6, 8, 3, num_layers=4, heads=2, skip_connections=True, **o),
    "gcnii": lambda **o: GCNII(6, 8, 3, num_layers=4, alpha=0.2, theta=0.7, **o),
    "mixhop": lambda **o: MixHop(6, 8, 3, num_layers=4, **o),
    "mlp": lambda **o: MLP(6, 8, 3, num_layers=5, **o),
}


@pytest.fixture
def edges():
    return torch.randint(30, (2, 90)).unique(dim=1)


@pytest.fixture
def x():
    return torch.randn(30, 6)


def copy(pairs):
    with torch.no_grad():
        for to, values in pairs:
            to.copy_(values.reshape(to.shape))


def randomize(model):
    """Biases that are not zero."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_sgc_is_pygs(edges, x):
    model, twin = randomize(MODELS["sgc"]()), SGConv(6, 3, K=4)
    copy([(twin.lin.weight, model.lin.weight.t()), (twin.lin.bias, model.bias.bias)])
    assert_matches(model(x, edges), twin(x, edges), rtol=1e-5, atol=1e-5)


def test_appnp_is_pygs(edges, x):
    model, twin = randomize(MODELS["appnp"]()), PropagateAPPNP(K=4, alpha=0.2)
    first, last = model.lins
    hidden = F.relu(x @ first.weight + first.bias) @ last.weight + last.bias
    assert_matches(model(x, edges), twin(hidden, edges), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("norm", [None, "batch_norm"])
def test_gcn_is_pygs(edges, x, norm, training):
    edges = edges[:, edges[0] != edges[1]]  # of a weighted self-loop PyG keeps the weight
    weight = torch.rand(edges.size(1)) + 0.1
    model = randomize(MODELS["gcn"](batch_norm="hidden" if norm else "none")).train(training)
    twin = PyGGCN(6, 8, 4, 3, norm=norm).train(training)
    for own, other in zip(model.convs, twin.convs, strict=True):
        copy([(other.lin.weight, own.lin.weight.t()), (other.bias, own.bias.bias)])
    norms = [*zip(model.norms, twin.norms[:-1], strict=True)] if norm else []
    for own, other in norms:
        torch.nn.init.uniform_(own.module.running_mean, 0.5, 2)
        torch.nn.init.uniform_(own.module.running_var, 0.5, 2)
        other.load_state_dict(own.state_dict())
    assert_matches(model(x, edges, weight), twin(x, edges, weight), rtol=1e-5, atol=1e-5)
    for own, other in norms:
        torch.testing.assert_close(own.state_dict(), other.state_dict(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("skip", [False, True])
def test_gat_is_pygs(edges, x, skip):
    model = randomize(GAT(6, 4, 3, num_layers=3, heads=2, skip_connections=skip))
    twin = PyGGAT(6, 8, 3, 3, heads=2, act="elu", residual=skip).eval()
    twin.convs[-1] = type(twin.convs[-1])(8, 3, heads=1, residual=skip)
    for own, other in zip(model.convs, twin.convs, strict=True):
        names = ("att_src", "att_dst")
        maps = zip([other.lin, other.res] if skip else [other.lin], own.lin.weight.split(own.width, dim=1), strict=True)
        copy([(lin.weight, weight.t()) for lin, weight in maps] + [(other.bias, own.bias.bias)])
        copy([(getattr(other, name), getattr(own, name)) for name in names])
    assert_matches(model(x, edges), twin(x, edges), rtol=1e-5, atol=1e-5)


def test_gcnii_is_pygs(edges, x):
    model = randomize(MODELS["gcnii"]())
    h = start = F.relu(x @ model.lins[0].weight + model.lins[0].bias)
    for layer, weight in enumerate(model.weights, start=1):
        conv = GCN2Conv(8, alpha=0.2, theta=0.7, layer=layer)
        copy([(conv.weight1, weight)])
        h = F.relu(conv(h, start, edges))
    expected = h @ model.lins[1].weight + model.lins[1].bias
    assert_matches(model(x, edges), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("powers", [[0, 1, 2], [1, 3]])
def test_mixhop_is_pygs(edges, x, powers):
    model = randomize(MixHop(6, 8, 3, num_layers=2, powers=powers))
    h = x
    for own in model.convs:
        conv = MixHopConv(h.size(1), 8, powers=powers)
        blocks = own.lin.weight.split(8, dim=1)
        copy([(conv.lins[j].weight, block.t()) for j, block in zip(powers, blocks, strict=True)])
        copy([(conv.bias, own.bias.bias)])
        h = F.relu(conv(h, edges))
    assert_matches(model(x, edges), h @ model.lin.weight + model.lin.bias, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_takes_any_adjacency_and_sparse_features(name, edges, x):
    model, graph = randomize(MODELS[name]()), Graph(edges, None, 30)
    assert_matches(model(x, graph), model(x, edges), rtol=1e-6)
    assert_matches(model(x.relu().to_sparse_csr(), graph), model(x.relu(), graph), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_every_depth_runs_under_hop_sampling_and_learns(name, edges, x):
    graph, model = Graph(edges, None, 30), MODELS[name](dropout=0.2)
    hop = HopSampling(model)
    assert hop.K == 4
    y, seen, moved = torch.randint(3, (30,)), set(), set()
    optimizer = torch.optim.Adam(hop.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(hop(x.to_sparse_csr() if len(losses) % 2 else x, graph), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        seen.add(hop.last_depth)
        moved |= {name for name, p in model.named_parameters() if p.grad is not None and p.grad.isfinite().all()}
    assert seen == {1, 2, 3, 4}
    assert moved == {name for name, _ in model.named_parameters()}
    assert min(losses[-10:]) < losses[0]
    hop.eval()
    outs = []
    for k in range(1, 5):
        with hop.at(k):
            outs.append(hop(x, graph))
    assert outs[3].equal(model(x, graph))
    assert not any(outs[k].equal(outs[3]) for k in range(3))
    with hop.at("expected"):
        assert_matches(hop(x, graph), sum(outs) / 4, rtol=1e-5, atol=1e-6)
    model.reset_parameters()
    assert not model(x, graph).equal(outs[3])


def test_depth_one_of_a_stack_is_its_first_layer_without_edges(edges, x):
    for name in ("gcn", "gat"):
        model = randomize(MODELS[name]())
        model.K = 1
        alone = Graph(torch.empty(2, 0, dtype=torch.long), None, 30)
        activation = F.relu if name == "gcn" else F.elu
        walk = Graph(edges, None, 30).transition("sym")
        h = activation(model.convs[0](x, alone.transition("sym"), 0.0))
        assert_matches(model(x, edges), model.convs[-1](h, walk, 0.0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGC(6, 3, K=-1), "K must be at least 0, a whole number, got -1"),
        (lambda: GCN(6, 8, 3, num_layers=0), "num_layers must be at least 1, a whole number, got 0"),
        (lambda: SGC(6, 3, K=2.5), "K must be at least 0, a whole number, got 2.5"),
        (lambda: MLP(6, 8, 3, num_layers=0), "num_layers must be at least 1, a whole number, got 0"),
        (lambda: GCN(6, 8, 3, dropout=1), r"dropout must be in \[0, 1\), got 1"),
        (lambda: APPNP(6, 8, 3, alpha=1.5), r"alpha must be in \[0, 1\], got 1.5"),
        (lambda: GCNII(6, 8, 3, theta=0), "theta must be positive, got 0"),
        (lambda: GAT(6, 8, 3, heads=0), "heads must be at least 1, a whole number, got 0"),
        (lambda: MixHop(6, 8, 3, powers=[2, 1]), "powers must be whole numbers from 0 up that increase"),
        (lambda: SGC(5, 3)(torch.ones(4, 6), torch.zeros(2, 1, dtype=torch.long)), "x has 6 features"),
        (lambda: SGC(5, 3)(torch.ones(2, 4, 5), torch.zeros(2, 1, dtype=torch.long)), r"\[2, 4, 5\]; static graphs"),
    ],
)
def test_bad_settings_get_clear_errors(make, message):
    with pytest.raises(GesmError, match=message):
        make()


@pytest.mark.parametrize("name", [name for name in MODELS if name != "mlp"])
def test_bfloat16_on_a_hub(name):
    hub = star(1500)
    model, x = MODELS[name]().eval(), torch.randn(1500, 6)
    full = model(x, hub)
    half = model.bfloat16()(x.bfloat16(), hub).float()
    torch.testing.assert_close(half, full, rtol=0.1, atol=0.1 * full.std().item())


def test_a_depth_that_is_not_there(edges, x):
    model = MODELS["gcn"]()
    model.K = 5
    with pytest.raises(GesmError, match="this GCN has depths from 1 to 4, but its K was set to 5"):
        model(x, edges)


def test_all_are_exported():
    assert {*peers.__all__} == {"APPNP", "GAT", "GCN", "GCNII", "MLP", "MixHop", "SGC"}


def test_sizes_may_be_numpys():
    sizes = {"num_layers": np.int64(3), "heads": np.int64(2)}
    model = GAT(*(np.int64(n) for n in (6, 8, 3)), **sizes)
    assert model(torch.ones(4, 6), torch.zeros(2, 1, dtype=torch.long)).shape == (4, 3)
