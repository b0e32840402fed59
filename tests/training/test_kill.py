"""kill -9 at moments nobody chose, then resume: the outcome of an uninterrupted run, to the bit."""

import json
import multiprocessing
import random
import time

from gesm.datasets import synthetic
from gesm.training import Recipe, fit

RECIPE = Recipe(hidden_channels=4, heads=2, K=2, dropout=0.3, attention_dropout=0.3, structure_weight=1.0, epochs=80)


def train(folder):
    fit(RECIPE, synthetic(num_graphs=4), 0, folder, resume=True, device="cpu", checkpoint_every=0)


def lines(folder):
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "gesm.training.report"])
    draw, killed = random.Random(0), 0

    process = context.Process(target=train, args=(whole,))
    process.start()
    process.join()
    assert process.exitcode == 0

    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 0.95):
        process = context.Process(target=train, args=(parts,))
        process.start()
        while process.is_alive() and lines(parts) < share * RECIPE.epochs:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.01))
        process.kill()
        process.join()
        killed += process.exitcode == -9
    process = context.Process(target=train, args=(parts,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert killed >= 4

    for name in ("model.safetensors", "metrics.jsonl", "recipe.yaml"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
    a, b = (json.loads((folder / "result.json").read_text()) for folder in (whole, parts))
    assert {k: v for k, v in a.items() if k not in ("epoch_ms", "peak_memory_mb")} == {
        k: v for k, v in b.items() if k not in ("epoch_ms", "peak_memory_mb")
    }
