"""Graphs of the sizes that GPU kernels are compared on, made on the device in seconds; real ones where they are at hand."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gesm import GesmError, Graph

__all__ = ["SIZES", "Size", "make"]


@dataclass(frozen=True)
class Size:
    """Nodes, directed edges, classes and how skewed the degrees are (1: uniform); `hub` more edges lead to node 0."""

    nodes: int
    edges: int
    classes: int
    skew: float
    hub: int = 0
    dataset: str | None = None


SIZES = {
    "cora": Size(2_708, 10_556, 7, 1.3, dataset="cora"),
    "pubmed": Size(19_717, 88_648, 3, 1.3, dataset="pubmed"),
    "physics": Size(34_493, 495_924, 5, 1.3, dataset="physics"),
    "arxiv": Size(169_343, 2_332_486, 40, 2.0),
    "hub": Size(169_343, 2_332_486, 40, 2.0, hub=100_000),
    "reddit": Size(232_965, 114_615_892, 41, 1.5),
    "products": Size(2_449_029, 123_718_280, 47, 1.7),
    "tiny": Size(40, 160, 3, 2.0, hub=30),
}


def make(name: str, device: torch.device, seed: int = 0) -> tuple[Graph, str]:
    """The graph, and whether it is "real" or "made"."""
    size = SIZES[name]
    if size.dataset:
        try:
            from gesm.datasets import load, locate

            if locate(size.dataset) is not None:
                data = load(size.dataset)
                return Graph(data.edge_index.to(device), None, data.num_nodes), "real"
        except (GesmError, OSError, ImportError):
            pass
    edges = power_law(size, device, seed)
    return Graph(edges, None, size.nodes, validate=False), "made"


def power_law(size: Size, device: torch.device, seed: int = 0) -> Tensor:
    """[2, edges] int32: node of rank r is drawn in proportion to r^(1 / skew - 1) at both ends, ranks are shuffled."""
    generator = torch.Generator(device).manual_seed(seed)
    names = torch.randperm(size.nodes, generator=generator, device=device, dtype=torch.int32)

    def ends(count: int) -> Tensor:
        draw = torch.rand(count, generator=generator, device=device, dtype=torch.float64).pow_(size.skew)
        return names[draw.mul_(size.nodes).int()]

    edges = torch.stack([ends(size.edges), ends(size.edges)])
    if size.hub:
        to_hub = torch.stack([ends(size.hub), torch.zeros(size.hub, device=device, dtype=torch.int32)])
        edges = torch.cat([edges, to_hub], 1)
    return edges
