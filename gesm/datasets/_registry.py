from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch_geometric.data import Data

from gesm.datasets import _npz, _planetoid, _ppi
from gesm.errors import GesmError


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What is known of one data set.

    Attributes:
        name: Name that `load` takes.
        task: One class a node, or any number of labels a node.
        num_nodes: Published count, checked after loading, as are the next three.
        num_edges: Both directions of an undirected edge counted, self-loops removed.
        num_features: Columns of `x`.
        num_classes: Classes or labels.
        protocols: Splits offered; the first is the default.
        inductive: Whether train, validation and test are separate graphs.
        folders: Folder below `GESM_HOME` to file to SHA-256 (None: unknown, the content is checked instead). Downloads
            go to the first. Empty where another library keeps the files.
        url: Where the files are downloaded from.
        archive: SHA-256 of the zip at `url`; None where `url` is a folder of files.
        bundled: File in this package that holds the set.
        read: Reader of the files' contents.
        source: Who published it.
        terms: Licence or terms of use.
    """

    name: str
    task: Literal["multiclass", "multilabel"] = "multiclass"
    num_nodes: int
    num_edges: int
    num_features: int
    num_classes: int
    protocols: tuple[str, ...]
    inductive: bool = False
    folders: Mapping[str, Mapping[str, str | None]]
    url: str
    archive: str | None = None
    bundled: str | None = None
    read: Callable[[dict[str, bytes]], Data] | None = None
    source: str
    terms: str


_CORA = {
    "ind.cora.x": "23cfa55d91c6f624233f5eb7b6e3f141f1bd2b2ae39608a63cf5d084bb27baab",
    "ind.cora.tx": "b9afbaa4a400df991f6f02ef677e1e44da55ffc04801fd02f9e673987829226a",
    "ind.cora.allx": "9419ba2f26f5c35243db64aba110e0f35a04851609e0dc5433450676ca6b8543",
    "ind.cora.y": "94465c14eb53e04ca262198dcbb2521ee8af60fb3f3d546cd6ca24a511b0e7d1",
    "ind.cora.ty": "41f5ac76596a1699cc33f53084a2419e92961c42bb75f36fc38e616d348532ad",
    "ind.cora.ally": "2b998f5cc7fedc86e7f97ca2498f47a1ffc1462c29e2d578b23bf3f62b6e7d71",
    "ind.cora.graph": "58f13302f39dde8852dad6fe6d15b89b077b6d7f837626bce671ef80344b383d",
    "ind.cora.test.index": "297ce89af2b51a6a194181c7dbe1796c6a1cf9cd9349a88383b1b1e227867875",
}
_CITESEER = {
    "ind.citeseer.x": "d20de19150741e555de0ed037195630fc194114ebc7fd72ced62810148aa22f6",
    "ind.citeseer.tx": "539a8906a2da97628d212f2fdd668c109a8b3f0d36574b59e5d3fd5b5303da21",
    "ind.citeseer.allx": "2ac30345d95c9ec933a817ee0bdd6a5f077f8c184a20e696910192d534414668",
    "ind.citeseer.y": "8ba87e515d8e3ee3cf52f6d2c5b86aa73f11ecad825a808455209ec26cd54924",
    "ind.citeseer.ty": "55e5bd1ba1e733a04598753ad1a8d57957f4b8f89e74519f41f4f4938767e4ce",
    "ind.citeseer.ally": "f704b2d986dde6c2669934de1f3ae5696a6cf9455c0f6b2646a2d135ea0a1c95",
    "ind.citeseer.graph": "d79a4ef9d3e7169aee8946145f6b7306e35bc79bffad26346cfb94e10e9912a7",
    "ind.citeseer.test.index": "2af990671580b6b2df5d158d1038f8292e30c9cd821b5453f399659b25b723d4",
}
_PUBMED = {
    "ind.pubmed.x": "fbe9cb5c47200d1b7769a26e579be3b7130b556831f9d850e77c4c74f2599b33",
    "ind.pubmed.tx": "4eb5f5d0f30f26497eb0ac6ac9719d09c67e284f1ed0385c93f3ef27a671da3d",
    "ind.pubmed.allx": "508e538e2abdccdd54c4d3e9f49d638b4af7107d85845f66ddea5a5152658b7e",
    "ind.pubmed.y": "e6c807633307a07ed659249006536a147c7999c797f11a2560752990181b41b3",
    "ind.pubmed.ty": "ee2e0d4819d9fbcc403689c3bf2e49face401b605932f093bc58ab6461130fdd",
    "ind.pubmed.ally": "0c37bbe3b5014ec365e9d393cf4791925e5ed94fb194305d74f064a8d7b50f0e",
    "ind.pubmed.graph": "5b89f0036ca22909471f1e6558eb42fa06e0c730a577bde5b058b40638f81dc9",
    "ind.pubmed.test.index": "b101d421688bbaecbd82e8a18f1e282378d6830f3a37666f28ebc47f844341b5",
}
_PPI_RECOVERED = {
    "test_feats.npy": "d456fcc05605fcd5c3e9af82e8b8006292ad7f9888d140d7bd79b54f137bc543",
    "test_graph.json": "d6f98bd80b826a2d39cecf961b7570ad7793017aeb599466339b5874f776bda5",
    "test_graph_id.npy": "9ce6033eecfc0c921b665280bb810eb31eb1bb38244b1c7740b88fd517bde8dd",
    "test_labels.npy": "8866b9f0903a39185305c5e516892c5d94b437e614b5331efe17be3502655a08",
    "train_feats.npy": "1f17287a7201f544118f5ba40a076d0a31979848ce7952b25a43e4590cf36686",
    "train_graph.json": "9c31d325403ca426e589f616982e9241d76f2188a393a64de4738f397a0bfa52",
    "train_graph_id.npy": "e5d3c653f581d3942ca7ac3fa12253221610f14f2e68c9457a2736a8fb08c3cb",
    "train_labels.npy": "51f70246a12007309b6b01efb1d59cad0f7411c0549758b9bc97c5807b3c64d9",
    "valid_feats.npy": "97b1eef945b41ffd1bc2c218cf1d451a45a4830d8166a52fa468e37ed8abf945",
    "valid_graph.json": "546d8d4d9eac51dd898243d0ff4b490734a2ec9e003b1e600b75898e63b77347",
    "valid_graph_id.npy": "0d3fbc35ebe32e41abae453cb91d3c51ce9c49ac9c7a69136545d5a4b2e2d020",
    "valid_labels.npy": "f5ca4c5f979528249312864f26f4c7537f1f68c2c0d4922ce70e0f7a0a35868d",
}

_planetoid_set = partial(
    Spec,
    url="https://github.com/kimiyoung/planetoid/raw/master/data",
    read=_planetoid.read,
    source="Planetoid, Yang et al. 2016",
    terms="repository MIT; none stated for the data",
)


def _shchur_set(folder: str, file: str, fingerprint: str, **counts) -> Spec:
    return Spec(
        protocols=("shchur", "60/20/20"),
        folders={folder: {file: None}},
        url="https://github.com/shchur/gnn-benchmark/raw/master/data/npz",
        read=partial(_npz.read, expected=fingerprint),
        source="gnn-benchmark, Shchur et al. 2018",
        terms="repository MIT; none stated for the data",
        **counts,
    )


_ogb_set = partial(
    Spec,
    protocols=("official",),
    folders={},
    url="https://ogb.stanford.edu/docs/nodeprop",
    source="Open Graph Benchmark",
)

_SPECS = (
    _planetoid_set(
        name="cora",
        protocols=("public", "1%", "3%"),
        num_nodes=2708,
        num_edges=10556,
        num_features=1433,
        num_classes=7,
        folders={"planetoid/Cora/raw": _CORA},
    ),
    _planetoid_set(
        name="citeseer",
        protocols=("public", "0.5%", "1%"),
        num_nodes=3327,
        num_edges=9104,
        num_features=3703,
        num_classes=6,
        folders={"planetoid/CiteSeer/raw": _CITESEER},
        bundled="citeseer.npz",
    ),
    _planetoid_set(
        name="pubmed",
        protocols=("public", "0.1%"),
        num_nodes=19717,
        num_edges=88648,
        num_features=500,
        num_classes=3,
        folders={"planetoid/PubMed/raw": _PUBMED},
    ),
    _shchur_set(
        "amazon/Computers/raw",
        "amazon_electronics_computers.npz",
        "7daa036a647032faa3f7e9ddc599400453bea3961d84fc262d872c3b49a35908",
        name="computers",
        num_nodes=13752,
        num_edges=491722,
        num_features=767,
        num_classes=10,
    ),
    _shchur_set(
        "amazon/Photo/raw",
        "amazon_electronics_photo.npz",
        "68bfa38db080cffcf3d85abfa787664926a80f830eb3d891bec503a663bca885",
        name="photo",
        num_nodes=7650,
        num_edges=238162,
        num_features=745,
        num_classes=8,
    ),
    _shchur_set(
        "coauthor/CS/raw",
        "ms_academic_cs.npz",
        "8f1aa622b5f97e55adf8ebad18dc0b5d7ea90e0810f2c5bab10eebc0fad51338",
        name="cs",
        num_nodes=18333,
        num_edges=163788,
        num_features=6805,
        num_classes=15,
    ),
    _shchur_set(
        "coauthor/Physics/raw",
        "ms_academic_phy.npz",
        "18b5cc1aeac8ef9fa459770e95f37e72cc1c4dd641b6dbd3d9b2893afb38944f",
        name="physics",
        num_nodes=34493,
        num_edges=495924,
        num_features=8415,
        num_classes=5,
    ),
    Spec(
        name="ppi",
        task="multilabel",
        num_nodes=56944,
        num_edges=1587264,
        num_features=50,
        num_classes=121,
        protocols=("public",),
        inductive=True,
        folders={"ppi/raw": dict.fromkeys(_ppi.FILES), "ppi_recovered/raw": _PPI_RECOVERED},
        url="https://data.dgl.ai/dataset/ppi.zip",
        archive="1f5b2b09ac0f897fa6aa1338c64ab75a5473674cbba89380120bede8cddb2a6a",
        read=_ppi.read,
        source="GraphSAGE, Hamilton et al. 2017, from OhmNet's tissue networks",
        terms="none stated",
    ),
    _ogb_set(
        name="ogbn-arxiv",
        num_nodes=169343,
        num_edges=1166243,
        num_features=128,
        num_classes=40,
        terms="ODC-BY",
    ),
    _ogb_set(
        name="ogbn-products",
        num_nodes=2449029,
        num_edges=123718280,
        num_features=100,
        num_classes=47,
        terms="Amazon licence",
    ),
)


def registry() -> dict[str, Spec]:
    """Every data set `load` knows, by name."""
    return {spec.name: spec for spec in _SPECS}


def find(name: str) -> Spec:
    """Return the row of a data set, its name in any case."""
    specs = registry()
    spec = specs.get(name.lower()) if isinstance(name, str) else None
    if spec is None:
        raise GesmError(f"no data set {name!r}; choose one of {', '.join(specs)}")
    return spec
