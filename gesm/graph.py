"""Graph: one checked CSR of the adjacency with its transpose; every operator and layer takes it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from gesm._edges import LOOPS, check_bounds, check_edges, check_weight, expand_pointer, sort_edges, sort_edges_op
from gesm.errors import GesmError

__all__ = ["Graph"]

_NORMALIZATIONS = ("col", "row", "sym")


class Graph:
    r"""A checked adjacency: CSR by target, its transpose, and the permutation between them.

    Row i of the CSR holds the sources j of the edges j -> i, so that a sparse product with it sums over incoming edges.
    Multi-edges are kept (their weights add up in every product; `coalesce()` sums them into one); edges of any order,
    isolated nodes, N = 0 and E = 0 are legal. A block-diagonal batch is a graph like any other (`Graph.batch`).

    Args:
        edge_index: [2, E], int32 or int64; row 0 sources, row 1 targets.
        edge_weight: [E] or None for weights of one.
        num_nodes: N, or (N_src, N_dst) for a bipartite graph; default: largest index + 1.
        validate: check the bounds (one pass over the edges, a synchronisation on a GPU).

    Attributes:
        rowptr, col: CSR, [N_dst + 1] and [E]; `target` [E] is the row of each entry.
        colptr, row: the transpose, [N_src + 1] and [E].
        perm: [E], CSR entry -> position in `edge_index`; self-loops added to it follow its last. In a batch the positions of
            one graph follow those of the graph before.
        to_csc: [E], entry of the transpose -> CSR entry.

    What `transition` and `csc_weight` derive from the weights is kept until the weights change. Code that torch.compile has
    traced does not see a change of them in place: give it `with_weight(...)`.

    Raises:
        GesmError: for a wrong shape, type, device, or an index out of range.
    """

    def __init__(
        self,
        edge_index: Tensor,
        edge_weight: Tensor | None = None,
        num_nodes: int | tuple[int, int] | None = None,
        *,
        validate: bool = True,
    ):
        num_src, num_dst = check_edges(edge_index, num_nodes)
        if validate and not torch.compiler.is_compiling():
            check_bounds(edge_index, num_src, num_dst)
        edge_weight = check_weight(edge_weight, edge_index.size(1), edge_index.device)
        edges = edge_index.as_tensor() if hasattr(edge_index, "as_tensor") else edge_index  # PyG's EdgeIndex
        self._build(edges, edge_weight, num_src, num_dst, "none")

    def _build(self, edge_index: Tensor, weight: Tensor | None, num_src: int, num_dst: int, loops: str) -> None:
        if torch.compiler.is_compiling():
            parts = sort_edges_op(edge_index, num_src, num_dst, LOOPS[loops])
        else:
            parts = sort_edges(edge_index, num_src, num_dst, LOOPS[loops])
            if loops != "none":
                num_edges = int(parts[0][-1])
                parts = [part if i in (0, 4) else part[:num_edges] for i, part in enumerate(parts)]
        self._displaced = loops != "none" and torch.compiler.is_compiling()  # whether some targets may be N
        self.rowptr, self.col, self.target, self.perm, self.colptr, self.row, self.to_csc = parts
        self._num_given = edge_index.size(1)  # how many positions perm points to
        self._structure: dict[str, tuple[Graph, Tensor]] = {}  # what was derived whatever the weights
        self.weight = None if weight is None else weight.index_select(0, self.perm)
        self.num_src, self.num_dst = num_src, num_dst

    @property
    def weight(self) -> Tensor | None:
        """[E] in CSR order, or None for weights of one."""
        return self._weight

    @weight.setter
    def weight(self, weight: Tensor | None) -> None:
        self._weight = check_weight(weight, self.num_edges, self.device)
        self._cache: dict[Any, Any] = {}  # what was derived from other weights

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": {}, "_structure": {}}  # a copied tensor counts its changes anew

    @property
    def num_nodes(self) -> int:
        """N; of a bipartite graph, which has two, the number of targets."""
        return self.num_dst

    @property
    def num_edges(self) -> int:
        """E, multi-edges counted."""
        return self.col.size(0)

    @property
    def is_bipartite(self) -> bool:
        """Whether sources and targets are different sets (by their numbers)."""
        return self.num_src != self.num_dst

    @property
    def device(self) -> torch.device:
        """Where the indices live."""
        return self.col.device

    @property
    def edge_index(self) -> Tensor:
        """[2, E] int64 in CSR order (row 0 sources, row 1 targets)."""
        return torch.stack([self.col, self.target]).long()

    @property
    def csc_weight(self) -> Tensor | None:
        """The weights in the order of the transpose; kept, unless a gradient has to flow through it."""
        if self.weight is None:
            return None
        return self._keep("csc_weight", lambda: self.weight.index_select(0, self.to_csc))

    def __repr__(self) -> str:
        nodes = f"{self.num_src} -> {self.num_dst}" if self.is_bipartite else str(self.num_nodes)
        return f"Graph(nodes={nodes}, edges={self.num_edges}, weighted={self.weight is not None}, device={self.device})"

    def with_weight(self, weight: Tensor | None) -> Graph:
        """The same edges with other weights [E], given in CSR order."""
        graph = object.__new__(Graph)
        graph.__dict__.update(self.__dict__)
        graph.weight = weight
        return graph

    def transpose(self) -> Graph:
        """The graph with every edge reversed; shares the index tensors."""
        graph = object.__new__(Graph)
        graph.rowptr, graph.col, graph.colptr, graph.row = self.colptr, self.row, self.rowptr, self.col
        graph.target = self.col.index_select(0, self.to_csc)
        graph._displaced = self._displaced
        if self._displaced:  # it is the other end now that does not exist
            gone = self.row == self.num_dst
            graph.col, graph.target = self.row.masked_fill(gone, 0), graph.target.masked_fill(gone, self.num_src)
            graph.row = self.col.masked_fill(self.target == self.num_dst, self.num_src)
        graph.perm = self.perm.index_select(0, self.to_csc)
        graph.to_csc = torch.argsort(self.to_csc).to(self.to_csc.dtype)
        graph._num_given, graph._structure = self._num_given, {}
        graph.weight = None if self.weight is None else self.weight.index_select(0, self.to_csc)
        graph.num_src, graph.num_dst = self.num_dst, self.num_src
        return graph

    def with_self_loops(self, weight: float = 1.0, existing: str = "replace") -> Graph:
        """A + I: one self-loop of `weight` a node; loops already there are replaced, or kept (`existing="keep"`)."""
        if self.is_bipartite:
            raise GesmError(f"self-loops need as many sources as targets, got {self.num_src} and {self.num_dst}")
        if existing not in ("replace", "keep"):
            raise GesmError(f"existing must be 'replace' or 'keep', got {existing!r}")
        graph, order = self._with_loops(existing)
        edge_weight = self.weight
        if edge_weight is not None or weight != 1.0:
            edge_weight = self.col.new_ones(self.num_edges, dtype=torch.float32) if edge_weight is None else edge_weight
            edge_weight = torch.cat([edge_weight, edge_weight.new_full((self.num_dst,), weight)]).index_select(0, order)
        return graph.with_weight(edge_weight)

    def _with_loops(self, existing: str) -> tuple[Graph, Tensor]:
        """A + I without weights, and which of the edges, followed by the loops, each entry is; kept with the edges."""
        if existing in self._structure:
            return self._structure[existing]
        with nullcontext() if torch.compiler.is_compiling() else torch.inference_mode(False):
            graph = object.__new__(Graph)
            graph._build(torch.stack([self.col, self.target]), None, self.num_src, self.num_dst, existing)
            order, given = graph.perm, self._num_given + self.num_dst
            loops = torch.arange(self._num_given, given, dtype=self.perm.dtype, device=self.device)
            graph.perm, graph._num_given = torch.cat([self.perm, loops]).index_select(0, order), given
        if not torch.compiler.is_compiling():
            self._structure[existing] = graph, order
        return graph, order

    def coalesce(self) -> Graph:
        """The graph with multi-edges summed into one edge."""
        weight = self.weight if self.weight is not None else self.col.new_ones(self.num_edges, dtype=torch.float32)
        col, target = self.col, self.target.long()
        if self._displaced:
            live = target < self.num_dst
            col, target, weight = col[live], target[live], weight[live]
        key, inverse = torch.unique(target * max(self.num_src, 1) + col, return_inverse=True)
        edges = torch.stack([key % max(self.num_src, 1), key // max(self.num_src, 1)])
        summed = weight.new_zeros(key.numel(), dtype=torch.promote_types(weight.dtype, torch.float32))
        summed = summed.index_add(0, inverse, weight.to(summed.dtype)).to(weight.dtype)
        return Graph(edges, summed, (self.num_src, self.num_dst), validate=False)

    def transition(self, normalization: str = "col", self_loops: bool = True, dtype: torch.dtype | None = None) -> Graph:
        r"""The random-walk matrix P of A + I as a graph with weights P_ij.

        `col`: :math:`P = (A + I) D^{-1}`, D the column sums (each source's outgoing weight): columns sum to one.
        `row`: :math:`P = D^{-1} (A + I)`, D the row sums. `sym`: :math:`D^{-1/2} (A + I) D^{-1/2}`, D the row sums, as PyG's
        `gcn_norm`; if there are not as many sources as targets, the right D holds the column sums. Self-loops already there
        are replaced by one of weight 1 (`gcn_norm` keeps their weights); a bipartite graph gets none. Where a sum is zero the
        weights are zero. Computed in `dtype` (default: that of the weights, or float32) and cached on the graph.

        Raises:
            GesmError: for an unknown normalization, a dtype not of floating point, or negative weights (not asked of learned
                ones, which may change in every step, nor without gradients).
        """
        check_normalization(normalization)
        self_loops = self_loops and not self.is_bipartite
        if dtype is None:
            dtype = torch.float32 if self.weight is None else self.weight.dtype
        if not dtype.is_floating_point:
            raise GesmError(f"dtype must be a floating-point type, got {dtype}")
        key = (normalization, self_loops, dtype)

        learned = torch.compiler.is_compiling() or not (torch.is_grad_enabled() and is_constant(self.weight))

        def looped() -> Graph:
            return self.with_self_loops() if self_loops else self

        def make() -> Graph:
            graph = looped()
            return graph.with_weight(_normalize(graph, normalization, dtype).to(dtype))

        if not learned and self.weight is not None:  # without gradients learned weights look like others
            self._keep(("checked", self_loops), lambda: _check_walk(looped().weight))
        return self._keep(key, make)

    def _keep(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` derives from the weights, kept unless a gradient flows through them."""
        if torch.compiler.is_compiling():
            constant = self.weight is None or not self.weight.requires_grad
            return self._cache[key] if constant and key in self._cache else make()
        if self.weight is not None and not is_constant(self.weight):
            return make()
        now = None if self.weight is None else version(self.weight)
        if self._cache.setdefault("version", now) != now:  # the weights were changed
            self._cache.clear()
            self._cache["version"] = now
        if key not in self._cache:
            with torch.inference_mode(False):  # what evaluation leaves here, the next training step uses
                self._cache[key] = make()
        return self._cache[key]

    def to(self, device: torch.device | str) -> Graph:
        """The graph on another device (itself if it is there already)."""
        device = torch.empty(0, device=device).device  # "cuda" is the current one of several
        if device == self.device:
            return self
        graph = object.__new__(Graph)
        graph.__dict__.update({k: v.to(device) if isinstance(v, Tensor) else v for k, v in self.__getstate__().items()})
        return graph

    @classmethod
    def from_edge_index(
        cls, edge_index: Tensor, edge_weight: Tensor | None = None, num_nodes: int | tuple[int, int] | None = None
    ) -> Graph:
        """From PyG's [2, E] (also `EdgeIndex`): row 0 sources, row 1 targets."""
        return cls(edge_index, edge_weight, num_nodes)

    @classmethod
    def from_sparse(cls, adj_t: Any) -> Graph:
        """From a torch.sparse CSR, CSC or COO tensor, or a PyG `SparseTensor`: the transposed adjacency [N_dst, N_src]."""
        if not isinstance(adj_t, Tensor) and not hasattr(adj_t, "coo"):
            raise GesmError(
                f"a sparse adjacency must be a torch.sparse tensor or a PyG SparseTensor, got {type(adj_t).__name__}; "
                "Graph.from_scipy takes SciPy's matrices"
            )
        if not isinstance(adj_t, Tensor):  # torch_sparse.SparseTensor, whose package is never imported here
            dst, src, weight = adj_t.coo()
            num_dst, num_src = adj_t.sizes()
            return cls(torch.stack([src, dst]), weight, (num_src, num_dst))
        if adj_t.dim() != 2:
            raise GesmError(f"a sparse adjacency must have two dimensions, got shape {tuple(adj_t.shape)}")
        if adj_t.layout is torch.sparse_coo:
            adj_t = adj_t.coalesce()
            (dst, src), weight = adj_t.indices(), adj_t.values()
        elif adj_t.layout is torch.sparse_csr:
            dst, src, weight = expand_pointer(adj_t.crow_indices()), adj_t.col_indices(), adj_t.values()
        elif adj_t.layout is torch.sparse_csc:
            dst, src, weight = adj_t.row_indices(), expand_pointer(adj_t.ccol_indices()), adj_t.values()
        else:
            raise GesmError(f"a sparse adjacency must be CSR, CSC or COO, got {adj_t.layout}; convert it with .to_sparse_csr()")
        largest = max(*adj_t.shape, src.numel(), *(map(int, src.aminmax()) if src.numel() else ()), key=abs)
        dtype = torch.int32 if abs(largest) < 2**31 - 1 else torch.int64
        edges = torch.stack([src.to(dtype), dst.to(dtype)])
        del src, dst
        return cls(edges, weight, (adj_t.size(1), adj_t.size(0)))

    @classmethod
    def from_scipy(cls, adjacency: Any) -> Graph:
        """From a SciPy sparse matrix or array A [N_src, N_dst], A[i, j] the weight of i -> j (SciPy's and NetworkX's way)."""
        if not hasattr(adjacency, "tocoo"):
            raise GesmError(f"Graph.from_scipy takes a SciPy sparse matrix or array, got {type(adjacency).__name__}")
        coo = adjacency.tocoo()
        edges = torch.stack([torch.from_numpy(coo.row.astype("int64")), torch.from_numpy(coo.col.astype("int64"))])
        return cls(edges, torch.from_numpy(coo.data.copy()), coo.shape)

    @classmethod
    def from_networkx(cls, graph: Any, weight: str | None = "weight") -> Graph:
        """From a NetworkX graph, nodes numbered in its own order; undirected edges become two; `weight` names the attribute."""
        index = {node: i for i, node in enumerate(graph)}
        edges = [(index[u], index[v], d.get(weight, 1.0) if weight else 1.0) for u, v, d in graph.edges(data=True)]
        if not graph.is_directed():
            edges += [(v, u, w) for u, v, w in edges if u != v]
        edge_index = torch.tensor([(u, v) for u, v, _ in edges], dtype=torch.long).view(-1, 2).t()
        return cls(edge_index, torch.tensor([float(w) for *_, w in edges]), len(index))

    @classmethod
    def batch(cls, graphs: list[Graph]) -> Graph:
        """The block-diagonal graph of several; nodes are numbered one graph after the other."""
        if not graphs:
            raise GesmError("Graph.batch needs at least one graph, got an empty list")
        if wrong := [type(g).__name__ for g in graphs if not isinstance(g, Graph)]:
            raise GesmError(f"Graph.batch takes a list of gesm.Graph, got a {wrong[0]} in it; build one with Graph(edge_index)")
        src = dst = given = 0
        edges, weights, perm = [], [], []
        num_dst = sum(g.num_dst for g in graphs)
        weighted = any(g.weight is not None for g in graphs)
        for g in graphs:
            target = g.target.long() + dst
            target = target.masked_fill(g.target == g.num_dst, num_dst) if g._displaced else target
            edges.append(torch.stack([g.col.long() + src, target]))
            weights.append(g.weight if g.weight is not None else torch.ones(g.num_edges, device=g.device))
            perm.append(g.perm.long() + given)
            src, dst, given = src + g.num_src, dst + g.num_dst, given + g._num_given
        graph, displaced = object.__new__(cls), any(g._displaced for g in graphs)
        graph._build(
            torch.cat(edges, 1), torch.cat(weights) if weighted else None, src, dst, "derived" if displaced else "none"
        )
        graph.perm, graph._num_given = torch.cat(perm).index_select(0, graph.perm).to(graph.perm.dtype), given
        return graph


def check_normalization(normalization: str) -> None:
    """Refuses what :meth:`Graph.transition` does not know."""
    if normalization not in _NORMALIZATIONS:
        raise GesmError(f"normalization must be one of {', '.join(map(repr, _NORMALIZATIONS))}, got {normalization!r}")


def _check_walk(weight: Tensor) -> None:
    if weight.numel() and (lowest := weight.min().item()) < 0:
        raise GesmError(f"edge_weight must not be negative where a random walk takes it, got {lowest}; pass its absolute value")


def _normalize(graph: Graph, normalization: str, dtype: torch.dtype) -> Tensor:
    """The weights of P, summed in float32 at least: bfloat16 stops counting at 256."""
    weight, dtype = graph.weight, torch.promote_types(dtype, torch.float32)
    weight = graph.col.new_ones(graph.num_edges, dtype=dtype) if weight is None else weight.to(dtype)
    if graph._displaced:  # such edges must not reach a sum
        weight = weight * (graph.target < graph.num_dst)
    if normalization == "col":
        total = weight.new_zeros(graph.num_src).index_add(0, graph.col, weight)
        return _divide(weight, total.index_select(0, graph.col))
    total = weight.new_zeros(graph.num_dst + 1).index_add(0, graph.target, weight)
    if normalization == "row":
        return _divide(weight, total.index_select(0, graph.target))
    scale = scale_src = _inverse_sqrt(total)
    if graph.is_bipartite:
        scale_src = _inverse_sqrt(weight.new_zeros(graph.num_src).index_add(0, graph.col, weight))
    return scale.index_select(0, graph.target) * weight * scale_src.index_select(0, graph.col)


def is_constant(t: Any) -> bool:
    """Whether what is computed from the tensor may be kept for later calls."""
    if not isinstance(t, Tensor) or t.is_inference() or t.requires_grad:
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(t)  # of torch.func, gone with its call


def version(t: Tensor) -> tuple[Any, ...]:
    """Other than before if the tensor was changed in place, or given other `data`."""
    t = t.as_tensor() if hasattr(t, "as_tensor") else t  # PyG's EdgeIndex counts apart
    strided = (t.stride(), t.data_ptr()) if t.layout is torch.strided else ()
    return t._version, t.shape, t.dtype, *strided


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b == 0, 0.0, a / b.masked_fill(b == 0, 1.0))


def _inverse_sqrt(total: Tensor) -> Tensor:
    """1 / sqrt(total), 0 for 0, whose root would bring NaN into gradients."""
    return torch.where(total == 0, 0.0, 1 / total.masked_fill(total == 0, 1.0).sqrt())
