"""Recommendation of items to users: what popularity, factorisation and propagation, with and without hop sampling, find.

python examples/recommender.py --dataset movietweetings --runs 3
"""

import argparse
import json
from pathlib import Path
from statistics import fmean, stdev

from gesm.recommend import Settings, Window, evaluate, fit, load, scorer, simulate, targets, temporal_split

parser = argparse.ArgumentParser()
parser.add_argument("--dataset", default="synthetic", help="ml-100k, movietweetings, online-retail-ii, ciao, or synthetic")
parser.add_argument("--embedding_dim", type=int, default=64)
parser.add_argument("--K", type=int, default=3, help="steps of propagation")
parser.add_argument("--lr", type=float, default=0.01)
parser.add_argument("--epochs", type=int, default=100)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--runs", type=int, default=1)
parser.add_argument("--json", type=Path, help="file for the results")
args = parser.parse_args()
if min(args.K, args.epochs, args.runs) < 1:
    parser.error("--K, --epochs and --runs must be at least 1")

if args.dataset == "synthetic":  # interests and popularity move from step to step
    table = simulate(num_users=300, num_items=200, interest_drift=0.05, popularity_drift=0.1, interactions_per_step=1500)
else:
    table = load(args.dataset)
train, _, test = temporal_split(table, val=0.0, test=0.1)  # the model sees nothing of the last tenth of time
window = Window(train, test)
goal = targets(window, "new")  # pairs of known users and items that are not in training

models = {
    "popularity": {"model": "popularity"},
    "matrix factorisation": {"model": "mf"},
    f"LightGCN, K = {args.K}": {"K": args.K},
    f"hop sampling, K = {args.K}": {"K": args.K, "hops": "uniform"},
}


def run(options, seed):
    settings = Settings(embedding_dim=args.embedding_dim, lr=args.lr, epochs=args.epochs, seed=seed)
    settings = settings.replace(**options)
    model = settings.build_model(train.num_users, train.num_items)
    fit(model, train, settings)
    found = {"": evaluate(scorer(model, train.graph()), goal, train, k=(10,)).mean}
    if settings.hops:  # the same model, read as the mean over all depths
        model.inference = "expected"
        found[", expected"] = evaluate(scorer(model, train.graph()), goal, train, k=(10,)).mean
    return found


print(f"{train}; of {goal.window_users} users in the test rows {len(goal.users)} are ranked for, {goal.cold_users} are new")
print(f"{'':32}NDCG@10  MAP@10   Recall@10")
results = {}
for name, options in models.items():
    runs = [run(options, args.seed + r) for r in range(args.runs)]
    for reading in runs[0]:
        scores = {m: [found[reading][f"{m}@10"] for found in runs] for m in ("ndcg", "map", "recall")}
        spread = f"  NDCG +- {stdev(scores['ndcg']):.4f}" if args.runs > 1 else ""
        print(f"{name + reading:32}" + "".join(f"{fmean(values):.4f}   " for values in scores.values()) + spread)
        results[name + reading] = {m: {"mean": fmean(values), "runs": values} for m, values in scores.items()}
if args.json:
    args.json.write_text(json.dumps({"dataset": args.dataset, "users": len(goal.users), "test": results}, indent=2) + "\n")
