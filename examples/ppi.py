"""Inductive multi-label classification: train on some graphs, test on others.

python examples/ppi.py --hidden_channels 64 --heads 4
"""

import argparse
import copy
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch_geometric.loader import DataLoader

from gesm.datasets import load, synthetic
from gesm.models import GESM

parser = argparse.ArgumentParser()
parser.add_argument("--dataset", default="ppi", choices=["ppi", "synthetic"])
parser.add_argument("--hidden_channels", type=int, default=64)
parser.add_argument("--heads", type=int, default=4)
parser.add_argument("--K", type=int, default=5)
parser.add_argument("--lr", type=float, default=0.005)
parser.add_argument("--epochs", type=int, default=100)
parser.add_argument("--batch_size", type=int, default=2, help="graphs a step")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
parser.add_argument("--json", type=Path, help="file for the results")
args = parser.parse_args()
if args.epochs < 1:
    parser.error("--epochs must be at least 1")

torch.manual_seed(args.seed)
data = load("ppi") if args.dataset == "ppi" else synthetic(task="multilabel", num_graphs=5)
graphs = data.to_data_list()
train_set, val_set, test_set = ([g for g in graphs if g[f"{s}_mask"].any()] for s in ("train", "val", "test"))
train_loader = DataLoader(train_set, args.batch_size, shuffle=True)
widths = (data.num_features, args.hidden_channels, data.num_classes)
model = GESM(*widths, K=args.K, heads=args.heads, num_layers=2).to(args.device)
optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)


def train():
    model.train()
    total = 0.0
    for batch in train_loader:
        batch = batch.to(args.device)
        optimizer.zero_grad()
        out = model(batch.x, batch.edge_index)
        # Rows whose labels are unknown (NaN) are in no mask; they take part in the graph, not in the loss.
        loss = F.binary_cross_entropy_with_logits(out[batch.train_mask], batch.y[batch.train_mask])
        loss.backward()
        optimizer.step()
        total += loss.item() * batch.num_graphs
    return total / len(train_set)


@torch.no_grad()
def micro_f1(dataset, mask):
    model.eval()
    hits = total = 0
    for batch in DataLoader(dataset, args.batch_size):
        batch = batch.to(args.device)
        pred = model(batch.x, batch.edge_index)[batch[mask]] > 0
        true = batch.y[batch[mask]] > 0
        hits += int((pred & true).sum())
        total += int(pred.sum() + true.sum())
    return 2 * hits / max(total, 1)


best, weights = -1.0, None
for epoch in range(1, args.epochs + 1):
    loss = train()
    val = micro_f1(val_set, "val_mask")
    if val >= best:
        best, weights = val, copy.deepcopy(model.state_dict())
    print(f"epoch {epoch:03d}  loss {loss:.4f}  val micro-F1 {val:.4f}")
model.load_state_dict(weights)
test = micro_f1(test_set, "test_mask")
print(f"test micro-F1 {test:.4f}")
if args.json:
    result = {"dataset": args.dataset, "metric": "micro_f1", "val": best, "test": test}
    args.json.write_text(json.dumps(result, indent=2) + "\n")
