"""EntityAttention and StepMixture as parts of a model of your own, beside PyG's GCNConv.

python examples/custom_model.py --dataset citeseer
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
import torch_geometric.transforms as T
from torch_geometric.nn import GCNConv

from gesm.datasets import load, registry, synthetic
from gesm.nn import EntityAttention, StepMixture

parser = argparse.ArgumentParser()
parser.add_argument("--dataset", default="citeseer", help="a name that `gesm datasets` lists, or synthetic")
parser.add_argument("--hidden_channels", type=int, default=16)
parser.add_argument("--heads", type=int, default=4)
parser.add_argument("--K", type=int, default=6)
parser.add_argument("--lr", type=float, default=0.005)
parser.add_argument("--epochs", type=int, default=100)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
parser.add_argument("--json", type=Path, help="file for the results")
args = parser.parse_args()
if args.dataset.lower() in [name for name, spec in registry().items() if spec.inductive]:
    parser.error(f"{args.dataset} is inductive, with several labels a node; see examples/ppi.py")


class TwoBranches(torch.nn.Module):
    """A convolution and an attention side by side, mixed over K random-walk steps."""

    def __init__(self, in_channels, hidden_channels, out_channels, heads, K):
        super().__init__()
        width = heads * hidden_channels
        self.conv = GCNConv(in_channels, width)
        self.attention = EntityAttention(in_channels, hidden_channels, heads=heads, dropout=0.5, score="additive")
        self.mixture = StepMixture(2 * width, out_channels, K=K)

    def forward(self, x, edge_index):
        x = F.dropout(x, 0.5, self.training)
        h = torch.cat([self.conv(x, edge_index).relu(), self.attention(x, edge_index)], dim=-1)
        return self.mixture(F.dropout(h, 0.5, self.training), edge_index)


torch.manual_seed(args.seed)
data = synthetic() if args.dataset == "synthetic" else load(args.dataset)
data = T.NormalizeFeatures()(data).to(args.device)
model = TwoBranches(data.num_features, args.hidden_channels, data.num_classes, args.heads, args.K).to(args.device)
optimizer = torch.optim.Adam(model.parameters(), lr=args.lr, weight_decay=5e-4)
print(model)

for epoch in range(1, args.epochs + 1):
    model.train()
    optimizer.zero_grad()
    out = model(data.x, data.edge_index)
    loss = F.cross_entropy(out[data.train_mask], data.y[data.train_mask])
    loss.backward()
    optimizer.step()
    if epoch == 1 or epoch % 20 == 0:
        print(f"epoch {epoch:03d}  loss {loss:.4f}")

model.eval()
with torch.no_grad():
    correct = model(data.x, data.edge_index).argmax(dim=-1) == data.y
    _, (edge_index, alpha) = model.attention(data.x, data.edge_index, return_attention_weights=True)
val, test = (float(correct[mask].float().mean()) for mask in (data.val_mask, data.test_mask))
print(f"val accuracy {val:.4f}  test accuracy {test:.4f}")

node = int(edge_index[1].bincount().argmax())  # the node with the most neighbours, and where its first head looks
weights = alpha[edge_index[1] == node, 0]
sources = edge_index[0, edge_index[1] == node]
for weight, source in sorted(zip(weights.tolist(), sources.tolist(), strict=True), reverse=True)[:5]:
    print(f"node {node} takes {100 * weight:.2f} % from node {source}")
if args.json:
    result = {"dataset": args.dataset, "metric": "accuracy", "val": val, "test": test}
    args.json.write_text(json.dumps(result, indent=2) + "\n")
