import torch
from torch_geometric.data import Data

from benchmarks import connected
from gesm.training import Recipe


def test_the_splits_are_of_the_largest_component(monkeypatch):
    # a ring of 120 nodes, half of each class, and one of 60
    edges = [torch.stack([torch.arange(start, end), torch.arange(start, end).roll(1)]) for start, end in ((0, 120), (120, 180))]
    edge_index = torch.cat(edges, 1)
    y = torch.arange(180) // 60 % 2
    data = Data(torch.eye(2)[y], torch.cat([edge_index, edge_index.flip(0)], 1), y=y, name="rings", protocol="shchur")
    monkeypatch.setattr(connected, "load", lambda *_, **__: data)
    seen = []
    fit = connected.fit
    monkeypatch.setattr(
        connected, "fit", lambda recipe, data, *rest, **options: seen.append(data) or fit(recipe, data, *rest, **options)
    )
    result = connected.train("rings", Recipe(model="sgc", K=1, epochs=2), 3)
    assert result.module is None
    assert result.seed == 3
    assert seen[0].num_nodes == 120
    assert [int(seen[0][f"{split}_mask"].sum()) for split in ("train", "val", "test")] == [40, 60, 20]
