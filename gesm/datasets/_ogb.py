from pathlib import Path

import torch
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage
from torch_geometric.utils import index_to_mask

from gesm.datasets._home import offline
from gesm.errors import GesmError


def locate(name: str, bases: list[Path]) -> Path | None:
    """Folder in which ogb keeps the set, if it is there."""
    folders = (base / "ogb" / name.replace("-", "_") for base in bases)
    return next((folder for folder in folders if folder.is_dir()), None)


def read(name: str, bases: list[Path]) -> tuple[Data, Path]:
    """Read an OGB set with its official split through the `ogb` package, which downloads it on first use.

    The graph is as published: ogbn-arxiv is directed.
    """
    try:
        from ogb.nodeproppred import PygNodePropPredDataset
    except ImportError as error:
        raise GesmError(f"{name} is read by the ogb package, which is not installed: pip install gesm[ogb]") from error

    folder = locate(name, bases)
    root = folder.parent if folder else bases[0] / "ogb"
    if folder is not None and not any((folder / part).is_dir() for part in ("raw", "processed")):
        raise GesmError(f"{folder} holds neither raw nor processed files, and ogb would replace it; move it away")
    if folder is None and offline():
        raise GesmError(f"{name} is not in {root} and GESM_OFFLINE forbids the download")
    try:
        # ogb 1.3.6 calls torch.load without naming the classes of its own cache
        with torch.serialization.safe_globals([DataEdgeAttr, DataTensorAttr, GlobalStorage]):
            dataset = PygNodePropPredDataset(name, root=str(root))
            split = dataset.get_idx_split()
    except (Exception, SystemExit) as error:  # ogb raises what its download and readers raise, and exits where a user says no
        raise GesmError(f"ogb could not load {name} into {root}: {error!r}") from error
    data = dataset[0]
    data.y = data.y.squeeze(1)
    for mask, part in (("train_mask", "train"), ("val_mask", "valid"), ("test_mask", "test")):
        data[mask] = index_to_mask(split[part], size=data.num_nodes)
    return data, root
