import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from gesm.errors import GesmError
from gesm.recommend.interactions import Interactions


@dataclass(frozen=True, kw_only=True)
class InteractionSpec:
    """What is known of one table of interactions.

    Attributes:
        name: Name that `load` takes.
        folder: Folder below `GESM_HOME`.
        files: File in it to SHA-256, the table first; None where copies differ in their bytes and only the counts are checked.
        num_rows: Published count, checked after loading, as are the next four.
        num_users: U.
        num_items: I.
        start: First time, seconds since 1970.
        end: Last time.
        weight: What `Interactions.weight` is.
        titles: Columns with the items' ids and names in items.tsv, where there is one.
        read: Reader of the table's bytes.
        products: Whether `products_only` applies.
        url: Zip that holds the table; None where it can only be put there by hand.
        source: Who published it.
        terms: Licence or terms of use.
    """

    name: str
    folder: str
    files: Mapping[str, str | None]
    num_rows: int
    num_users: int
    num_items: int
    start: int
    end: int
    weight: str = "rating"
    titles: tuple[str, str] | None = None
    read: Callable[["InteractionSpec", bytes], Interactions]
    products: bool = False
    url: str | None = None
    source: str
    terms: str

    @property
    def file(self) -> str:
        """Name of the table's file."""
        return next(iter(self.files))


def _read_npz(spec: InteractionSpec, content: bytes) -> Interactions:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return Interactions.from_arrays(*(arrays[key] for key in ("user", "item", "timestamp", spec.weight)), name=spec.name)


def _read_tabs(spec: InteractionSpec, content: bytes) -> Interactions:
    user, item, rating, time = np.loadtxt(io.BytesIO(content), dtype=np.int64, delimiter="\t", unpack=True)
    return Interactions.from_arrays(user, item, time, rating, name=spec.name)


_SPECS = (
    InteractionSpec(
        name="online-retail-ii",
        folder="online_retail_ii",
        files={
            "interactions.npz": "d91c573bb6088f47e4772e9241c3f3865b31e4335bffd586dd838a2326dcbcfb",
            "items.tsv": "f554501597f4fc89ca776f9ada959e9f0a6e3a31f638532caefd79467c722177",
        },
        num_rows=791044,
        num_users=5878,
        num_items=4631,
        start=1259653500,
        end=1323435000,
        weight="quantity",
        titles=("item", "description"),
        read=_read_npz,
        products=True,
        source="Online Retail II, Chen 2012, UCI Machine Learning Repository, data set 502: purchase lines of customers",
        terms="CC BY 4.0",
    ),
    InteractionSpec(
        name="movietweetings",
        folder="movietweetings_142k",
        files={
            "interactions.npz": "e9e29e36b66d3499c260f5ec1e1841740b5f29ca5d8fe9354defff347f935b57",
            "items.tsv": "ffb75956664b467f4c64ce2bced920255ab31d2a162944d6acfe4369d6557749",
        },
        num_rows=141695,
        num_users=21081,
        num_items=12611,
        start=1362062307,
        end=1383696025,
        titles=("item", "title"),
        read=_read_npz,
        source="MovieTweetings, Dooms et al. 2013, the ratings to 2013-11-06",
        terms="repository MIT; cite MovieTweetings",
    ),
    InteractionSpec(
        name="ml-100k",
        folder="ml-100k",
        files={"u.data": None, "items.tsv": "87a1d26149d369f6719289b6b620bbc0687320e41c20a4d8051cf6ad6fe127f5"},
        num_rows=100000,
        num_users=943,
        num_items=1682,
        start=874724710,
        end=893286638,
        titles=("item_id", "movie_title"),
        read=_read_tabs,
        url="https://files.grouplens.org/datasets/movielens/ml-100k.zip",
        source="MovieLens-100K, GroupLens",
        terms="research use, acknowledge; no redistribution, no commercial use without permission",
    ),
    InteractionSpec(
        name="ciao",
        folder="ciao",
        files={
            "interactions.npz": "fccc5ce1407bb68b951699b27ca569c845989d6c40910b95a810ec42d6913b10",
        },
        num_rows=284086,
        num_users=7375,
        num_items=105114,
        start=959670000,
        end=1302591600,
        read=_read_npz,
        source="Ciao with timestamps, Tang et al. 2012 (eTrust); day resolution",
        terms="none stated; cite eTrust",
    ),
)


def registry() -> dict[str, InteractionSpec]:
    """Every table `load` knows, by name."""
    return {spec.name: spec for spec in _SPECS}


def find(name: str) -> InteractionSpec:
    """Return the row of a table, its name in any case."""
    specs = registry()
    spec = specs.get(name.lower()) if isinstance(name, str) else None
    if spec is None:
        raise GesmError(f"no table of interactions {name!r}; choose one of {', '.join(specs)}")
    return spec
