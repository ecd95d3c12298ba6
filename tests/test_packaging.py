"""The house stands as pyproject.toml says: what is on disk is what gets installed."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
TOP_FOLDERS = set(SETUPTOOLS["package-dir"].values())


def packages_on_disk(root: Path, top_folders: set[str]) -> set[str]:
    """Return the dotted name of every folder with an __init__.py below the top folders."""
    found = set()
    for top in top_folders:
        for marker in (root / top).rglob("__init__.py"):
            found.add(".".join(("serverfree", *marker.parent.relative_to(root).parts)))
    return found


def test_every_package_on_disk_is_declared_and_the_other_way_round():
    """An undeclared package works in an editable install and is missing from the wheel."""
    assert packages_on_disk(ROOT, TOP_FOLDERS) == set(SETUPTOOLS["packages"])


def test_an_undeclared_package_would_be_noticed(tmp_path):
    (tmp_path / "target" / "planted").mkdir(parents=True)
    (tmp_path / "target" / "__init__.py").touch()
    (tmp_path / "target" / "planted" / "__init__.py").touch()
    assert packages_on_disk(tmp_path, {"target"}) == {
        "serverfree.target",
        "serverfree.target.planted",
    }


def test_folder_x_is_package_serverfree_x():
    assert SETUPTOOLS["package-dir"] == {f"serverfree.{name}": name for name in TOP_FOLDERS}
    for top in TOP_FOLDERS:
        assert (ROOT / top / "py.typed").exists()


def test_every_tool_knows_every_package():
    banned = PYPROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert set(banned) == TOP_FOLDERS
    assert set(PYPROJECT["tool"]["mypy"]["packages"]) == {f"serverfree.{n}" for n in TOP_FOLDERS}


def test_the_type_checker_sees_the_namespace():
    """Editable installs use import hooks, which no type checker follows; the link stands in."""
    assert (ROOT / ".typing" / "serverfree").resolve() == ROOT


@pytest.fixture
def inner_run(pytester, monkeypatch):
    """Run a test file under our own conftest, in a process of its own."""

    def run(source: str, **environment: str) -> pytest.RunResult:
        pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text())
        pytester.makeini("[pytest]\nmarkers =\n    peer\n    vm\n")
        pytester.makepyfile(source)
        for name, value in {"CI": "", **environment}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT / "tests"), str(pytester.path))))
        return pytester.runpytest_subprocess("-p", "no:cacheprovider")

    return run


def test_a_bare_import_fails_the_run(inner_run, pytester):
    pytester.mkpydir("target")
    result = inner_run("import target\ndef test_passes(): pass")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*by bare name*: target"])


def test_a_clean_run_passes_under_the_same_rules(inner_run):
    assert inner_run("def test_passes(): pass").ret == pytest.ExitCode.OK


SKIPPED_PEER = """
import pytest
@pytest.mark.peer
def test_judged_by_others(): pytest.skip("not installed")
"""


def test_a_skipped_peer_is_a_failure_in_ci(inner_run):
    assert inner_run(SKIPPED_PEER, CI="true").ret == pytest.ExitCode.TESTS_FAILED


def test_a_skipped_peer_is_a_skip_elsewhere(inner_run):
    assert inner_run(SKIPPED_PEER).ret == pytest.ExitCode.OK


@pytest.mark.served
def test_the_wheel_holds_every_package_and_the_demo_volume(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT],
        check=True,
        timeout=110,
    )
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    folders = {str(Path(name).parent).replace("/", ".") for name in names if "__init__" in name}
    assert folders == set(SETUPTOOLS["packages"])
    assert any(name.startswith("serverfree/cli/data/") for name in names)
    assert {Path(name).parts[0] for name in names if ".dist-info" not in name} == {"serverfree"}
