"""The layers inside PyG: containers, hetero graphs, loaders, explainers, every adjacency form."""

import pytest
import torch
import torch.nn.functional as F
from strategies import assert_matches
from torch_geometric.data import Data, HeteroData
from torch_geometric.explain import AttentionExplainer, Explainer, GNNExplainer
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GCNConv, Sequential, to_hetero

from gesm.models import GESM
from gesm.nn import EntityAttention, GESMConv, StepMixture

LAYERS = [
    lambda: EntityAttention(6, 4, heads=2),
    lambda: StepMixture(6, 3, K=4),
    lambda: GESMConv(6, 4, 3, K=4, heads=2),
    lambda: GESM(6, 4, 3, K=4, heads=2),
]
X = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
EDGES = torch.randint(12, (2, 40), generator=torch.Generator().manual_seed(0))


def test_sequential():
    model = Sequential(
        "x, edge_index",
        [
            (EntityAttention(6, 4, heads=2), "x, edge_index -> x"),
            torch.nn.ReLU(),
            (StepMixture(8, 3, K=3), "x, edge_index -> x"),
            (GCNConv(3, 2), "x, edge_index -> x"),
        ],
    )
    out = model(X, EDGES)
    out.sum().backward()
    assert out.shape == (12, 2)


@pytest.mark.filterwarnings("ignore")
def test_to_hetero():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = EntityAttention((-1, -1), 4, heads=2, add_self_loops=False)
            self.mixture = StepMixture(8, 3, K=1, add_self_loops=False)

        def forward(self, x, edge_index):
            return self.mixture(self.attention(x, edge_index), edge_index)

    data = HeteroData()
    data["paper"].x, data["author"].x = torch.randn(7, 5), torch.randn(4, 3)
    data["author", "writes", "paper"].edge_index = torch.stack([torch.randint(4, (9,)), torch.randint(7, (9,))])
    data["paper", "by", "author"].edge_index = data["author", "writes", "paper"].edge_index.flip(0)
    data["paper", "cites", "paper"].edge_index = torch.randint(7, (2, 9))
    model = to_hetero(Net(), data.metadata())
    out = model(data.x_dict, data.edge_index_dict)
    assert out["paper"].shape == (7, 3)
    assert out["author"].shape == (4, 3)
    sum(o.sum() for o in out.values()).backward()

    same = HeteroData()
    same["paper"].x = data["paper"].x
    same["paper", "cites", "paper"].edge_index = data["paper", "cites", "paper"].edge_index

    class Walk(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GESMConv(5, 4, 3, K=6, heads=2, add_self_loops=False)

        def forward(self, x, edge_index):
            return self.conv(x, edge_index)

    model = to_hetero(Walk(), same.metadata())
    assert model(same.x_dict, same.edge_index_dict)["paper"].shape == (7, 3)


class Classifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = GESMConv(6, 4, 3, K=2, heads=2)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index).log_softmax(-1)


CONFIG = {"mode": "multiclass_classification", "task_level": "node", "return_type": "log_probs"}


def test_attention_explainer():
    model = Classifier().eval()
    explainer = Explainer(model, AttentionExplainer(), explanation_type="model", edge_mask_type="object", model_config=CONFIG)
    explanation = explainer(X, EDGES)
    assert explanation.edge_mask.shape == (40,)
    assert explanation.edge_mask.max() > 0
    assert_matches(model(X, EDGES), model(X, EDGES))


def test_gnn_explainer_masks_edges_and_leaves_the_layer_as_it_was():
    model = Classifier().eval()
    before = model(X, EDGES)
    explainer = Explainer(
        model,
        GNNExplainer(epochs=3),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config=CONFIG,
    )
    explanation = explainer(X, EDGES, index=0)
    assert explanation.edge_mask.shape == (40,)
    assert explanation.node_mask.shape == X.shape
    assert model(X, EDGES).equal(before)


@pytest.mark.parametrize("make", LAYERS)
def test_message_form_equals_the_fused_form(make):
    layer = make().eval()
    fused = layer(X, EDGES)
    seen = []
    for module in layer.modules():
        if isinstance(module, (EntityAttention, StepMixture)):
            module.register_message_forward_hook(lambda module, kwargs, out: seen.append(out.shape))
    assert_matches(layer(X, EDGES), fused, rtol=1e-4, atol=1e-5)
    assert seen


def test_neighbor_loader_with_all_neighbours_equals_the_full_graph():
    pytest.importorskip("pyg_lib", reason="PyG's neighbour sampling needs pyg-lib or torch-sparse")
    model = GESMConv(6, 4, 3, K=1, heads=2).eval()
    loader = NeighborLoader(Data(x=X, edge_index=EDGES), [-1, -1], batch_size=4)
    out = torch.cat([model(batch.x, batch.edge_index)[: batch.batch_size] for batch in loader])
    assert out.shape == (12, 3)


@pytest.mark.parametrize("make", LAYERS)
def test_state_dict_round_trip(make, tmp_path):
    layer, other = make().eval(), make().eval()
    layer(X, EDGES)
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    other.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    assert other(X, EDGES).equal(layer(X, EDGES))
    assert all("cache" not in key for key in layer.state_dict())


@pytest.mark.parametrize("make", LAYERS)
def test_autocast(make):
    layer = make().eval()
    full = layer(X, EDGES)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(X, EDGES)
        F.mse_loss(half.float(), full.detach()).backward()
    torch.testing.assert_close(half.float(), full, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("make", LAYERS)
def test_training_repeats_bitwise(make):
    def train():
        torch.manual_seed(3)
        layer = make()
        optimizer = torch.optim.Adam(layer.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            layer(X, EDGES).square().sum().backward()
            optimizer.step()
        return layer(X, EDGES)

    assert train().equal(train())
