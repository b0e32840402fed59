from pathlib import Path

import torch
from torch_geometric.data import Data
from torch_geometric.utils import index_to_mask

from gesm.datasets._home import offline
from gesm.errors import GesmError


def locate(name: str, base: Path) -> Path | None:
    """Folder in which ogb keeps the set, if it is there."""
    folder = base / "ogb" / name.replace("-", "_")
    return folder if folder.is_dir() else None


def read(name: str, base: Path) -> tuple[Data, Path]:
    """Read an OGB set with its official split through the `ogb` package, which downloads it on first use."""
    try:
        from ogb.nodeproppred import PygNodePropPredDataset
    except ImportError as error:
        raise GesmError(
            f"{name} is read through the ogb package, which is not installed: pip install gesm[ogb]"
        ) from error
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import GlobalStorage

    if offline() and not locate(name, base):
        raise GesmError(f"{name} is not in {base / 'ogb'} and GESM_OFFLINE forbids the download")
    try:
        # ogb 1.3.6 calls torch.load without naming the classes of its own cache
        with torch.serialization.safe_globals([DataEdgeAttr, DataTensorAttr, GlobalStorage]):
            dataset = PygNodePropPredDataset(name, root=str(base / "ogb"))
            split = dataset.get_idx_split()
    except Exception as error:
        raise GesmError(f"ogb could not load {name} in {base / 'ogb'}: {error}") from error
    data = dataset[0]
    data.y = data.y.squeeze(1)
    for mask, part in (("train_mask", "train"), ("val_mask", "valid"), ("test_mask", "test")):
        data[mask] = index_to_mask(split[part], size=data.num_nodes)
    return data, base / "ogb"
