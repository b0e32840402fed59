"""Every set that GESM_HOME holds against PyG's own loaders; skipped where it holds none."""

import os
from pathlib import Path

import pytest
import torch
from torch_geometric.datasets import PPI, Amazon, Coauthor, Planetoid
from torch_geometric.utils import coalesce

from gesm.datasets import load, registry

HOME = Path(os.environ.get("GESM_HOME", "/nonexistent"))
PYG = {
    "cora": (Planetoid, "Cora"),
    "citeseer": (Planetoid, "CiteSeer"),
    "pubmed": (Planetoid, "PubMed"),
    "computers": (Amazon, "Computers"),
    "photo": (Amazon, "Photo"),
    "cs": (Coauthor, "CS"),
    "physics": (Coauthor, "Physics"),
}


def raw_folder(name):
    for folder in registry()[name].folders:
        if (HOME / folder).is_dir():
            return HOME / folder
    pytest.skip(f"GESM_HOME has no {' or '.join(registry()[name].folders)}")


@pytest.fixture
def beside(tmp_path):
    """Links the raw files into a scratch folder, for PyG writes `processed` beside them."""

    def link(raw, folder):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "raw").symlink_to(raw, target_is_directory=True)
        return tmp_path

    return link


@pytest.mark.filterwarnings("ignore")  # PyG unpickles the old files its own way
@pytest.mark.parametrize("name", PYG)
def test_equals_pyg(name, beside):
    loader, title = PYG[name]
    expected = loader(str(beside(raw_folder(name), title)), title)[0]
    data = load(name, root=HOME)
    for key in expected.keys():  # noqa: SIM118
        assert data[key].equal(expected[key])
        assert data[key].dtype == expected[key].dtype


@pytest.mark.filterwarnings("ignore")
def test_ppi_equals_pyg(beside):
    root = str(beside(raw_folder("ppi"), "."))
    data = load("ppi", root=HOME)
    graphs = iter(data.to_data_list())
    for split, count in (("train", 20), ("val", 2), ("test", 2)):
        dataset = PPI(root, split=split)
        assert len(dataset) == count
        for expected in dataset:
            graph = next(graphs)
            assert graph.x.equal(expected.x)
            assert torch.equal(graph.y.nan_to_num(-1), expected.y.nan_to_num(-1))
            assert graph.edge_index.equal(coalesce(expected.edge_index))
            known = ~expected.y.isnan().any(dim=1)
            for part in ("train", "val", "test"):
                assert graph[f"{part}_mask"].equal(known & (part == split))


@pytest.mark.parametrize("name", ["computers", "cs"])
@pytest.mark.parametrize("protocol", ["shchur", "60/20/20"])
def test_splits_of_the_real_sets(name, protocol):
    raw_folder(name)
    data = load(name, root=HOME, protocol=protocol, seed=3)
    sizes = [int(data[f"{part}_mask"].sum()) for part in ("train", "val", "test")]
    n, c = data.num_nodes, data.num_classes
    train, val = (20 * c, 30 * c) if protocol == "shchur" else (n * 6 // 10, n * 8 // 10 - n * 6 // 10)
    assert sizes == [train, val, n - train - val]
