"""Every environment variable that the package reads is in the table of docs/environment.md, and nothing else is."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_table_lists_what_the_code_reads():
    read = set()
    for path in (ROOT / "gesm").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        if "environ" in source or "getenv" in source:
            read |= set(re.findall(r"""["'](GESM_[A-Z][A-Z_]*)["']""", source))
        mentioned = set(re.findall(r"\bGESM_[A-Z][A-Z_]*\b", source))
        assert mentioned <= table(), f"{path} mentions {mentioned - table()}, which docs/environment.md does not list"
    assert read == table()


def table():
    page = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `(GESM_[A-Z_]+)` \|", page, re.MULTILINE))
