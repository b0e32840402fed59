"""Metadata, versions and the contents of the wheel."""

import configparser
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import gesm

ROOT = Path(__file__).parent.parent
METADATA = importlib.metadata.metadata("gesm")


def test_version_is_the_same_everywhere():
    assert METADATA["Version"] == gesm.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[(.+?)\]", changelog, re.MULTILINE)[1] == gesm.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == gesm.__version__
    assert citation["preferred-citation"]["title"].startswith("Graphs, Entities, and Step Mixture")


def test_extras():
    assert set(METADATA.get_all("Provides-Extra")) == {"ogb", "triton", "scatter", "recsys", "bench", "docs", "test", "dev"}


def test_a_plain_installation_needs_no_compiled_extension():
    plain = [line for line in METADATA.get_all("Requires-Dist") if "extra ==" not in line]
    names = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in plain}
    assert {"torch", "torch-geometric"} <= names
    assert not names & {"torch-scatter", "torch-sparse", "pyg-lib", "numba", "dgl", "triton"}


def test_metadata_is_in_setup_cfg_and_the_build_needs_no_torch():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "project" not in project
    assert set(project) == {"build-system", "tool"}
    assert set(project["tool"]) == {"ruff"}
    assert not any("torch" in line for line in project["build-system"]["requires"])
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert setup["metadata"]["name"] == "gesm"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    tree = tmp_path_factory.mktemp("tree")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "gesm", tree / "gesm", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", "dist", "."]
    process = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    (path,) = (tree / "dist").glob("gesm-*.whl")
    return path


def test_the_source_archive_holds_what_its_tests_need(tmp_path):
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("gesm", "tests", "examples", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    build = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
    process = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    (path,) = (tmp_path / "dist").glob("gesm-*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("tests", "examples", "benchmarks"):
        assert {str(file.relative_to(tmp_path)) for file in (tmp_path / folder).rglob("*.py")} <= held


def test_the_wheel_is_pure_python(wheel):
    assert wheel.name == f"gesm-{gesm.__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < 2**20


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        info = {name.rpartition(".dist-info/")[2] for name in archive.namelist() if ".dist-info/" in name}
    package = ROOT / "gesm"
    source = {str(path.relative_to(ROOT)) for path in package.rglob("*") if path.suffix in (".py", ".yaml", ".npz")}
    assert held == {name.replace("\\", "/") for name in source} | {"gesm/py.typed"}
    assert "gesm/datasets/citeseer.npz" in held
    assert "gesm/training/recipes/citeseer/gesm.yaml" in held
    assert {"METADATA", "entry_points.txt", "licenses/LICENSE"} <= info
