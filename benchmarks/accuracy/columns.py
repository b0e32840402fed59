"""The columns of the table: data sets under their protocols, and who is compared in them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gesm.datasets import registry
from gesm.errors import GesmError

__all__ = ["COLUMNS", "LOW_LABELS", "MODELS", "OWN", "PLANETOID", "PPI", "SHARES", "SHCHUR", "Column", "parse"]

MODELS = ("gesm", "gesm_consistency", "gsm", "mixed_mlp", "mlp", "gcn", "gat", "sgc", "appnp", "gcnii", "mixhop")


OWN = MODELS[:4]
"""gesm's own; `gesm_consistency` is GESM with hop sampling and its consistency."""


@dataclass(frozen=True)
class Column:
    """A data set under a protocol."""

    dataset: str
    protocol: str

    @property
    def name(self) -> str:
        """For people: the protocol is named where the data set has several."""
        return self.dataset if self.protocol == "public" else f"{self.dataset}:{self.protocol}"

    @property
    def slug(self) -> str:
        """For files."""
        return f"{self.dataset}-{self.protocol.replace('/', '-')}"

    @property
    def searched(self) -> Column:
        """Whose search gives the recipes unless there is one of its own: of each pair of large graphs the smaller."""
        return replace(self, dataset={"computers": "photo", "physics": "cs"}.get(self.dataset, self.dataset))

    @property
    def models(self) -> tuple[str, ...]:
        """Who is compared in it; PPI's published GESM is left to a GPU, GESM's consistency, for its cost, to small graphs."""
        if self.dataset == "ppi":
            return "gesm", "mlp", "gat", "gcnii"
        large = self.dataset in ("computers", "photo", "cs", "physics")
        return tuple(model for model in MODELS if not (large and model == "gesm_consistency"))

    @property
    def runs(self) -> int:
        """Runs of a cell: fewer where an epoch is long."""
        return {"cora": 20, "citeseer": 20, "pubmed": 20, "ppi": 3}.get(self.dataset, 10)


PLANETOID = tuple(Column(name, "public") for name in ("cora", "citeseer", "pubmed"))
SHCHUR, SHARES = (
    tuple(Column(name, protocol) for name in ("computers", "photo", "cs", "physics")) for protocol in ("shchur", "60/20/20")
)
PPI = Column("ppi", "public")
COLUMNS = (*PLANETOID, *SHCHUR, *SHARES, PPI)
LOW_LABELS = (
    Column("cora", "1%"),
    Column("cora", "3%"),
    Column("citeseer", "0.5%"),
    Column("citeseer", "1%"),
    Column("pubmed", "0.1%"),
)


def parse(text: str) -> list[Column]:
    """Columns by name, comma-separated; `all` for those of the main table, `low-labels` for those of few labels.

    Raises:
        GesmError: for an unknown data set or protocol.
    """
    columns: list[Column] = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name in ("all", "low-labels"):
            columns += COLUMNS if name == "all" else LOW_LABELS
            continue
        dataset, _, protocol = name.partition(":")
        spec = registry().get(dataset)
        protocol = protocol or (spec.protocols[0] if spec else "")
        if spec is None or protocol not in spec.protocols:
            known = ", ".join(column.name for column in (*COLUMNS, *LOW_LABELS))
            raise GesmError(f"there is no column {name!r}; choose from all, low-labels, {known}")
        columns.append(Column(dataset, protocol))
    return columns
