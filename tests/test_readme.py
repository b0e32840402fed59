"""What README.md and the pages of docs/ tell a reader to type works."""

import re
import shlex
from pathlib import Path

import pytest
import typer

import gesm.models
import gesm.nn
from gesm.cli import app
from gesm.datasets import registry

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS_FILES_OR_MINUTES = {"datasets.md", "training.md", "recommend.md"}


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(program):
    for path in PAGES:
        for block in [*blocks(path, "bash"), *blocks(path, "console")]:
            for line in block.splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words[:1] == [program]:
                    yield pytest.param(words[1:], id=f"{path.name}: {' '.join(words)}")


@pytest.mark.parametrize(
    "path", [p for p in PAGES if blocks(p, "python") and p.name not in NEEDS_FILES_OR_MINUTES], ids=lambda p: p.name
)
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch.compile's own
def test_python_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks(path, "python"):  # the blocks of a page continue one another
        exec(compile(block, str(path), "exec"), names)


def test_quick_start_is_short():
    (block,) = blocks(ROOT / "README.md", "python")
    assert len(block.splitlines()) <= 15


@pytest.mark.parametrize("words", list(commands("gesm")))
def test_gesm_commands_parse(words):
    name, *arguments = words
    command = typer.main.get_command(app).commands[name]
    if hasattr(command, "commands"):  # gesm recommend train
        name, *arguments = arguments
        command = command.commands[name]
    context = command.make_context(name, list(arguments))
    if context.params.get("dataset"):
        assert context.params["dataset"] in registry()


@pytest.mark.parametrize("words", list(commands("make")))
def test_make_targets_exist(words):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert words[0] in targets


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_links_to_files_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), link


def test_every_layer_and_model_is_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for module in (gesm.nn, gesm.models):
        for name in module.__all__:
            assert f"| `{module.__name__}.{name}` |" in readme
