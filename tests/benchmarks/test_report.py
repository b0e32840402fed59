import io
import math

import pytest
from rich.console import Console

from benchmarks.report import curves, exponent, measurements, plot, ratios, scaling_table, table


def entry(contender, group="epoch[cora]", **values):
    extra = {"contender": contender, **({"peak_bytes": values["peak"]} if "peak" in values else {})}
    return {"group": group, "extra_info": extra, "stats": {"data": values.get("data", [1.0])}}


def test_turns_of_a_contender_are_joined():
    turns = [entry("gesm", data=[1.0, 2.0]), entry("peer", data=[6.0]), entry("gesm", data=[3.0]), entry("peer", data=[9.0])]
    (row,) = ratios(measurements(turns))
    assert row["ours"] == 2.25
    assert row["theirs"] == 7.5
    assert row["ratio"] == pytest.approx(7.5 / 2.25)
    assert row["ratio_range"] == [3.0, 4.0]
    assert row["ratio_quartiles"] == [3.25, 3.75]
    assert row["turns"] == 2
    assert row["rounds"] == [3, 2]
    assert row["spread"] == pytest.approx([0.5, 0.2])


def test_memory_is_in_bytes():
    (row,) = ratios(measurements([entry("gesm", "peak memory", peak=2e6), entry("peer", "peak memory", peak=3e6)]))
    assert (row["unit"], row["ratio"]) == ("bytes", 1.5)


def test_a_group_without_gesm_has_no_ratio():
    assert ratios(measurements([entry("peer")])) == []


def test_table_shows_groups_and_ratios():
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(table(ratios(measurements([entry("gesm"), entry("peer", data=[4.0])])), "title"))
    text = console.export_text()
    assert "epoch[cora]" in text
    assert "4.00" in text


def test_scaling_is_a_table_and_a_plot_of_its_own(tmp_path):
    points = [(64 * 2**i, 1e-3 * 2**i, 1e-3 * 4**i) for i in range(5)]
    entries = [
        entry(name, f"scaling nodes[{nodes}]", data=[seconds])
        for nodes, *times in points
        for name, seconds in zip(("gesm", "peer"), times, strict=True)
    ]
    rows = ratios(measurements([*entries, entry("gesm"), entry("peer")]))
    found = curves(rows)
    assert found["nodes"]["gesm"] == [(nodes, ours) for nodes, ours, _ in points]
    assert [round(exponent(curve), 6) for curve in found["nodes"].values()] == [1, 2]
    assert math.isnan(exponent([(1, 1.0)]))
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(table(rows, "title"))
    assert "scaling" not in console.export_text()
    console.print(scaling_table(found))
    assert "64 ... 1024" in console.export_text()
    plot(found, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
