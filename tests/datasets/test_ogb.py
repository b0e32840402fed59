import gzip
import sys
import types

import pytest
import torch
from torch_geometric.data import Data

from gesm.datasets import load, locate
from gesm.errors import GesmError

COUNTS = {"num_nodes": 5, "num_edges": 3, "num_features": 2, "num_classes": 3}


@pytest.fixture
def arxiv(register, monkeypatch):
    """The row of ogbn-arxiv with the counts of a made graph."""
    row = register(name="ogbn-arxiv", folders={}, protocols=("official",), **COUNTS)
    monkeypatch.setattr("gesm.datasets._load.find", lambda name: row)


def fake(monkeypatch, dataset):
    module = types.ModuleType("ogb.nodeproppred")
    module.PygNodePropPredDataset = dataset
    monkeypatch.setitem(sys.modules, "ogb", types.ModuleType("ogb"))
    monkeypatch.setitem(sys.modules, "ogb.nodeproppred", module)


def test_without_ogb_says_what_to_install(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "ogb.nodeproppred", None)
    with pytest.raises(GesmError, match=r"ogbn-arxiv is read by the ogb package.*pip install gesm\[ogb\]"):
        load("ogbn-arxiv")


def test_offline_and_failing_downloads(home, monkeypatch):
    def refuse(name, root):
        raise OSError("no network")

    fake(monkeypatch, refuse)
    with pytest.raises(GesmError, match=r"ogbn-products is not in .*ogb and GESM_OFFLINE"):
        load("ogbn-products")
    monkeypatch.setenv("GESM_OFFLINE", "0")
    with pytest.raises(GesmError, match=r"ogb could not load ogbn-products into .*no network"):
        load("ogbn-products")


def test_a_folder_that_ogb_would_replace_is_left_alone(home, monkeypatch):
    fake(monkeypatch, lambda name, root: pytest.fail("ogb was called"))
    (home / "ogb/ogbn_products").mkdir(parents=True)
    with pytest.raises(GesmError, match="ogbn_products holds neither raw nor processed files, and ogb would replace it"):
        load("ogbn-products")


def test_a_refused_download_does_not_end_the_program(home, monkeypatch):
    def refuse(name, root):
        raise SystemExit(-1)

    fake(monkeypatch, refuse)
    monkeypatch.setenv("GESM_OFFLINE", "0")
    with pytest.raises(GesmError, match=r"ogb could not load ogbn-products into .*SystemExit"):
        load("ogbn-products")


def test_official_split_becomes_masks(home, tmp_path, arxiv, monkeypatch):
    class Made:
        def __init__(self, name, root):
            assert (name, root) == ("ogbn-arxiv", str(tmp_path / "root/ogb"))

        def __getitem__(self, index):
            edge_index = torch.tensor([[0, 1, 2], [1, 2, 4]])
            return Data(x=torch.ones(5, 2), edge_index=edge_index, y=torch.tensor([[0], [1], [2], [0], [1]]))

        def get_idx_split(self):
            return {"train": torch.tensor([0, 3]), "valid": torch.tensor([1]), "test": torch.tensor([2, 4])}

    fake(monkeypatch, Made)
    monkeypatch.setenv("GESM_OFFLINE", "0")
    data = load("ogbn-arxiv", root=tmp_path / "root")
    assert data.y.tolist() == [0, 1, 2, 0, 1]
    assert [data[f"{part}_mask"].nonzero().flatten().tolist() for part in ("train", "val", "test")] == [
        [0, 3],
        [1],
        [2, 4],
    ]
    assert (data.name, data.protocol, data.num_classes) == ("ogbn-arxiv", "official", 3)


@pytest.mark.filterwarnings("ignore")  # ogb 1.3.6 and what it imports warn
def test_real_ogb_reads_its_own_cache(home, arxiv, tmp_path):
    pytest.importorskip("ogb")
    folder = home / "ogb/ogbn_arxiv"
    files = {
        "raw/edge": "0,1\n1,2\n2,4\n",
        "raw/num-node-list": "5\n",
        "raw/num-edge-list": "3\n",
        "raw/node-feat": "0.5,1.5\n" * 5,
        "raw/node-label": "0\n1\n2\n0\n1\n",
        "raw/node_year": "2013\n" * 5,
        "split/time/train": "0\n3\n",
        "split/time/valid": "1\n",
        "split/time/test": "2\n4\n",
    }
    for name, text in files.items():
        path = folder / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()))
    (folder / "RELEASE_v1.txt").touch()
    first = load("ogbn-arxiv", root=tmp_path / "elsewhere")
    again = load("ogbn-arxiv")  # from the cache that ogb pickled
    assert locate("ogbn-arxiv") == folder
    assert first.edge_index.tolist() == again.edge_index.tolist() == [[0, 1, 2], [1, 2, 4]]
    assert again.test_mask.tolist() == [False, False, True, False, True]
