import io
import json

import pytest
from rich.console import Console

from gesm.datasets import synthetic
from gesm.training.depth_report import figure, summarize_depth, table


def record(model, arm, K, seed, base):
    def row(value):
        return {"val": value, "test": value - 0.01, "dirichlet": 0.1 / K, "mad": 0.2, "mad_all": 0.3}

    each = [row(base + 0.01 * min(k, 2)) for k in range(1, K + 1)]
    depths = {name: [r[name] for r in each] for name in each[0]}
    cell = {"model": model, "arm": arm, "K": K, "seed": seed, "selected_epoch": 5, "seconds": 1.0}
    return {**cell, "full": each[-1], "expected": row(base), "depths": {"k": [*range(1, K + 1)], **depths}}


@pytest.fixture
def summary():
    records = [
        record(model, arm, K, seed, 0.5 + 0.1 * seed)
        for seed in (1, 0)
        for K in (4, 2)
        for model in ("sgc", "gcn")
        for arm in ("fixed", "hop", "dropedge")
        if (model, arm, K) != ("gcn", "hop", 4)
    ]
    return summarize_depth(records, synthetic(), 9)


def test_summary(summary):
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    about = {"dataset", "protocol", "metric", "epochs", "eval_every", "drop_edge", "settings", "versions"}
    assert about | {"cells", "comparisons"} == {*summary}
    assert summary["settings"]["sgc"]["weight_decay"] == 5e-5
    assert len(summary["cells"]) == 11
    cell = next(c for c in summary["cells"] if (c["model"], c["arm"], c["K"]) == ("sgc", "hop", 4))
    assert cell["seeds"] == [0, 1]
    assert cell["full"]["test"]["runs"] == pytest.approx([0.51, 0.61])
    assert cell["expected"]["test"]["mean"] == pytest.approx(0.54)
    assert cell["full"]["test"]["ci95"] == pytest.approx(12.706 * 0.05, rel=1e-3)
    assert cell["best"]["k"]["runs"] == [4, 4]  # the largest of equally good depths
    assert cell["depths"]["test"] == pytest.approx([0.55, 0.56, 0.56, 0.56])


def test_comparisons_pair_the_runs_of_a_seed(summary):
    found = [(c["model"], c["K"], c["rival"]) for c in summary["comparisons"]]
    rivals = ("fixed", "dropedge")
    assert sorted(found) == sorted((m, K, r) for m, K in (("sgc", 2), ("gcn", 2), ("sgc", 4)) for r in rivals)
    uneven = [record("sgc", "hop", 2, s, 0.6 + 0.01 * s) for s in range(3)] + [
        record("sgc", "fixed", 2, s, 0.5) for s in (0, 2)
    ]
    (only,) = summarize_depth(uneven, synthetic(), 9)["comparisons"]
    assert only["full"]["runs"] == pytest.approx([0.1, 0.12])


def test_table(summary):
    console = Console(file=io.StringIO(), width=200)
    console.print(table(summary))
    shown = console.file.getvalue()
    assert "Depth on synthetic, 60/20/20 split: test accuracy in %" in " ".join(shown.split())
    assert "56.0 ±63.5 / 54.0 / 56.0" in shown
    assert shown.index("K = 2") < shown.index("K = 4")
    assert any(line.split()[-2:] == ["-", "│"] for line in shown.splitlines() if "hop" in line)


def test_figure_is_a_repeatable_png_and_pdf(summary):
    image = figure(summary)
    assert image.startswith(b"\x89PNG")
    assert image == figure(summary)
    assert figure(summary, "pdf").startswith(b"%PDF")


def test_one_run_has_no_interval():
    summary = summarize_depth([record("sgc", "fixed", 2, 0, 0.5)], synthetic(), 9)
    console = Console(file=io.StringIO(), width=200)
    console.print(table(summary))
    assert "51.0 / 49.0 / 51.0" in console.file.getvalue()
    assert figure(summary).startswith(b"\x89PNG")
