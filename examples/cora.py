"""Node classification in a plain PyTorch loop around one GESM layer.

python examples/cora.py --dataset citeseer --runs 3
"""

import argparse
import copy
import json
from pathlib import Path
from statistics import fmean, stdev

import torch
import torch.nn.functional as F
import torch_geometric.transforms as T

from gesm.datasets import load, registry, synthetic
from gesm.nn import GESMConv, StructureLoss

parser = argparse.ArgumentParser()
parser.add_argument("--dataset", default="cora", help="a name that `gesm datasets` lists, or synthetic")
parser.add_argument("--hidden_channels", type=int, default=64)
parser.add_argument("--heads", type=int, default=8)
parser.add_argument("--K", type=int, default=14)
parser.add_argument("--lr", type=float, default=0.003)
parser.add_argument("--epochs", type=int, default=300)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
parser.add_argument("--runs", type=int, default=1)
parser.add_argument("--json", type=Path, help="file for the results")
args = parser.parse_args()
if args.epochs < 1 or args.runs < 1:
    parser.error("--epochs and --runs must be at least 1")
if args.dataset.lower() in [name for name, spec in registry().items() if spec.inductive]:
    parser.error(f"{args.dataset} is inductive, with several labels a node; see examples/ppi.py")

structure_loss = StructureLoss()


def train(model, optimizer, data):
    model.train()
    optimizer.zero_grad()
    out, z = model(data.x, data.edge_index, return_embedding=True)
    loss = F.cross_entropy(out[data.train_mask], data.y[data.train_mask]) + structure_loss(z, data.edge_index)
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def test(model, data, mask):
    model.eval()
    pred = model(data.x, data.edge_index).argmax(dim=-1)
    return float((pred == data.y)[mask].float().mean())


def run(seed):
    # A random split is drawn anew for each run, a public one stays.
    data = synthetic(seed=seed) if args.dataset == "synthetic" else load(args.dataset, seed=seed)
    data = T.NormalizeFeatures()(data).to(args.device)
    data.x = data.x.to_sparse_csr()  # bag-of-words features are about 1 % full; dense x works too
    torch.manual_seed(seed)
    widths = (data.num_features, args.hidden_channels, data.num_classes)
    model = GESMConv(*widths, K=args.K, heads=args.heads, dropout=0.3, attention_dropout=0.7).to(args.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr, weight_decay=0.003)
    best, weights = -1.0, None
    for epoch in range(1, args.epochs + 1):
        loss = train(model, optimizer, data)
        val = test(model, data, data.val_mask)
        if val >= best:
            best, weights = val, copy.deepcopy(model.state_dict())
        if epoch == 1 or epoch % 20 == 0:
            print(f"epoch {epoch:03d}  loss {loss:.4f}  val {val:.4f}")
    model.load_state_dict(weights)
    return best, test(model, data, data.test_mask)  # the test nodes are read once, with the weights that validation chose


val, test_runs = zip(*(run(args.seed + r) for r in range(args.runs)), strict=True)
spread = stdev(test_runs) if args.runs > 1 else None
print(f"test accuracy {fmean(test_runs):.4f}" + (f" +- {spread:.4f} over {args.runs} runs" if spread is not None else ""))
if args.json:
    result = {"dataset": args.dataset, "metric": "accuracy", "val": {"mean": fmean(val), "runs": val}}
    result["test"] = {"mean": fmean(test_runs), "std": spread, "runs": test_runs}
    args.json.write_text(json.dumps(result, indent=2) + "\n")
