import io

import pytest
from rich.console import Console

from benchmarks.report import measurements, ratios, table


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
