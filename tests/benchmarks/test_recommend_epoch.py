import json
import sys

from benchmarks import recommend_epoch


def test_contenders_agree_and_are_timed(tmp_path, monkeypatch, capsys):
    out = tmp_path / "r.json"
    arguments = ["--datasets", "synthetic", "--K", "2", "--rounds", "1", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["recommend_epoch", *arguments])
    recommend_epoch.main()
    record = json.loads(out.read_text())
    assert {"created", "commit", "machine"} <= set(record)
    assert record["command"] == "python -m benchmarks.recommend_epoch --datasets synthetic --K 2 --rounds 1"
    rows = record["rows"]
    assert [row["contender"] for row in rows] == ["gesm", "PyG", "PyG, CSR"]
    assert all(row["seconds"][0] > 0 for row in rows)
    assert "PyG, CSR" in capsys.readouterr().out
