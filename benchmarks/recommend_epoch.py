"""An epoch of LightGCN with gesm against PyG's LightGCN: `python -m benchmarks.recommend_epoch [--datasets ml-100k]`.

The peer is trained as PyG's own example does: mini-batches of 8192 pairs, one uniform negative each, PyG's model and loss on
`edge_index`. A second peer gets the normalised adjacency as torch.sparse CSR, the best that PyG's layer takes. gesm trains with
the same batches' size, depth, width and loss, and draws negatives again that the user has. Epochs alternate; a ratio is taken
within a turn.
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch_geometric.nn import LightGCN as PyGLightGCN
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from benchmarks.machine import made, new_file
from benchmarks.peers import adjacency_t
from gesm.recommend import Interactions, Settings, fit, load, simulate

__all__ = ["contenders", "main"]

BATCH, WIDTH, LR, DECAY = 8192, 64, 0.001, 1e-4


class PyGTraining:
    """PyG's LightGCN and an epoch of its training."""

    def __init__(self, train: Interactions, K: int, sparse: bool):
        pairs = train.pairs()
        self.num_users, self.num_nodes = train.num_users, train.num_users + train.num_items
        self.pairs = torch.stack([pairs.user, pairs.item + train.num_users])
        edge_index = torch.cat([self.pairs, self.pairs.flip(0)], dim=1)
        self.model = PyGLightGCN(self.num_nodes, WIDTH, K, normalize=not sparse)
        self.adjacency = _normalized(edge_index, self.num_nodes) if sparse else edge_index
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LR, fused=True)

    def epoch(self) -> float:
        begin = time.perf_counter()
        for batch in torch.randperm(self.pairs.size(1)).split(BATCH):
            user, item = self.pairs[:, batch]
            other = torch.randint(self.num_users, self.num_nodes, (batch.numel(),))
            both = torch.stack([torch.cat([user, user]), torch.cat([item, other])])
            self.optimizer.zero_grad()
            positive, negative = self.model(self.adjacency, both).chunk(2)
            loss = self.model.recommendation_loss(positive, negative, node_id=both.unique(), lambda_reg=DECAY)
            loss.backward()
            self.optimizer.step()
        return time.perf_counter() - begin


def _normalized(edge_index: Tensor, num_nodes: int) -> Tensor:
    edge_index, weight = gcn_norm(edge_index, num_nodes=num_nodes, add_self_loops=False)
    return adjacency_t(edge_index, weight, num_nodes)


def contenders(train: Interactions, K: int) -> dict[str, Callable[[], float]]:
    """Name -> what trains one epoch and returns its seconds; that they propagate alike is checked first."""
    settings = Settings(K=K, embedding_dim=WIDTH, batch_size=BATCH, lr=LR, weight_decay=DECAY, epochs=2)
    model = settings.build_model(train.num_users, train.num_items)
    peers = {name: PyGTraining(train, K, name.endswith("CSR")) for name in ("PyG", "PyG, CSR")}
    with torch.no_grad():
        ours = torch.cat(model.eval().embed(train.graph()))
        for peer in peers.values():
            peer.model.embedding.weight.copy_(model.embedding)
            torch.testing.assert_close(peer.model.get_embedding(peer.adjacency), ours, rtol=1e-4, atol=1e-5)

    def epoch() -> float:
        times = []
        fit(model, train, settings, on_epoch=lambda *_: times.append(time.perf_counter()))
        return times[1] - times[0]  # the first epoch follows what is made once

    return {"gesm": epoch, **{name: peer.epoch for name, peer in peers.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recommend_epoch", description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", default="ml-100k,movietweetings", help="comma-separated names, or synthetic")
    parser.add_argument("--K", type=int, default=3, help="layers (3)")
    parser.add_argument("--rounds", type=int, default=7, help="alternating turns (7)")
    parser.add_argument("--json", type=new_file, help="file for the figures")
    options = parser.parse_args()

    grid = Table("data", "pairs", "contender", "ms an epoch", "times gesm's", title="LightGCN, one epoch")
    record = {**made("benchmarks.recommend_epoch"), "K": options.K, "batch": BATCH, "rounds": options.rounds, "rows": []}
    for name in options.datasets.split(","):
        train = simulate(200, 100, 4, 0.1, 0.1, 500, seed=0) if name == "synthetic" else load(name)
        torch.manual_seed(0)
        epochs = contenders(train, options.K)
        for epoch in epochs.values():
            epoch()
        turns = [{who: epoch() for who, epoch in epochs.items()} for _ in range(options.rounds)]
        num_pairs = len(train.pairs().user)
        for who in epochs:
            times, ratios = [turn[who] for turn in turns], [turn[who] / turn["gesm"] for turn in turns]
            grid.add_row(name, f"{num_pairs:,}", who, f"{1e3 * median(times):.0f}", f"{median(ratios):.1f}")
            row = {"dataset": name, "pairs": num_pairs, "contender": who, "seconds": times, "ratio": median(ratios)}
            record["rows"].append(row)
    Console().print(grid)
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
