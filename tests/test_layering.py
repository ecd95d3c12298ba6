"""Imports point down, cores do no I/O, what is for tests stays there: read from the source."""

import ast
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What each layer may use beside itself. A target may host a copy manager on any LUN, so it stands
# on the data mover; the backup application drives what is there over the wire only.
MAY_IMPORT: dict[str, set[str]] = {
    "scsi": set(),
    "iscsi": {"scsi"},
    "initiator": {"scsi", "iscsi"},
    "datamover": {"scsi", "iscsi", "initiator"},
    "target": {"scsi", "iscsi", "initiator", "datamover"},
    "backup": {"scsi", "iscsi", "initiator"},
    "cli": {"scsi", "iscsi", "initiator", "datamover", "target", "backup"},
}
# Protocol cores take bytes and times as arguments.
SANS_IO = {"scsi", "iscsi"}
IO_MODULES = {
    "asyncio",
    "os",
    "pathlib",
    "select",
    "selectors",
    "socket",
    "subprocess",
    "threading",
}
IO_MODULES |= {"time", "random"}
TEST_ONLY = {"scapy", "pytest", "hypothesis", "support"}
DOTTED_NAME = re.compile(rf"serverfree\.({'|'.join(MAY_IMPORT)})(\.[a-z_0-9]+)*")
LONG_FILE = 600


def imported_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of every import, and of every string that names a module of ours.

    Strings count because verbs are loaded lazily by name, which must point down as well.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")
            if node.module == "serverfree":
                yield from ((node.lineno, f"serverfree.{alias.name}") for alias in node.names)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and DOTTED_NAME.fullmatch(node.value)
        ):
            yield node.lineno, node.value


def offences(layer: str, source: str) -> list[str]:
    """Return every import in a file of `layer` that the house does not allow."""
    found = []
    for line, name in imported_names(ast.parse(source)):
        first, _, rest = name.partition(".")
        package = rest.partition(".")[0]
        if not first:
            found.append(f"line {line}: relative import {name}")
        elif first in MAY_IMPORT:
            found.append(f"line {line}: bare name {name}")
        elif first == "serverfree" and package and package not in MAY_IMPORT[layer] | {layer}:
            found.append(f"line {line}: {layer} imports {name}, which does not lie below it")
        elif first in TEST_ONLY:
            found.append(f"line {line}: {name} belongs to tests")
        elif layer in SANS_IO and first in IO_MODULES:
            found.append(f"line {line}: {name} in a core that does no I/O")
    return found


def sources() -> Iterator[tuple[str, Path]]:
    for layer in MAY_IMPORT:
        for path in sorted((ROOT / layer).rglob("*.py")):
            yield layer, path


SOURCES = [pytest.param(*pair, id=str(pair[1].relative_to(ROOT))) for pair in sources()]


@pytest.mark.parametrize(("layer", "path"), SOURCES)
def test_imports_point_down(layer, path):
    assert offences(layer, path.read_text()) == []


@pytest.mark.parametrize(
    ("layer", "planted"),
    [
        ("scsi", "from serverfree.iscsi.pdu import NopOut"),
        ("iscsi", "import serverfree.target.server"),
        ("initiator", "def late():\n    from serverfree.datamover import engine"),
        ("datamover", "from serverfree import target"),
        ("backup", "MODULE = 'serverfree.target.server'"),
        ("target", "from serverfree.backup import job"),
        ("cli", "import target"),
        ("cli", "from . import main"),
        ("target", "from scapy.all import Packet"),
        ("iscsi", "import socket"),
        ("scsi", "from time import monotonic"),
    ],
)
def test_a_planted_offence_is_seen(layer, planted):
    assert len(offences(layer, planted)) >= 1


@pytest.mark.parametrize(
    ("layer", "fine"),
    [
        ("target", "from serverfree.datamover import manager"),
        ("cli", "VERB = 'serverfree.backup.job'"),
        ("scsi", "from serverfree.scsi.sense import Sense\nimport struct"),
        ("initiator", "import socket"),
    ],
)
def test_what_points_down_is_allowed(layer, fine):
    assert offences(layer, fine) == []


def test_every_top_folder_has_a_place_in_the_order():
    python_folders = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert python_folders == set(MAY_IMPORT)


def test_no_top_folder_takes_a_name_of_the_standard_library():
    assert not set(MAY_IMPORT) & set(sys.stdlib_module_names)


def test_files_are_short_enough_to_hold_one_idea():
    """A warning, not a rule: a seam of the protocol is a better place to split than line 600."""
    for _, path in sources():
        lines = len(path.read_text().splitlines())
        if lines > LONG_FILE:
            warnings.warn(f"{path.relative_to(ROOT)} has {lines} lines", stacklevel=1)
