"""What several of these tests begin with; who needs it otherwise has a fixture of that name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.local_pair import Pair, refuse_memory
from support.tape import Drive, make_small_drive
from support.tape_wire import WAYS, driven


@pytest.fixture(params=WAYS)
def drive(request: pytest.FixtureRequest) -> Iterator[Drive]:
    """A tape drive with a new cartridge."""
    with driven(request.param) as drive:
        yield drive


@pytest.fixture(params=WAYS)
def small(request: pytest.FixtureRequest) -> Iterator[Drive]:
    """One with room for ten blocks."""
    with driven(request.param, make_small_drive) as drive:
        yield drive


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Two disks of one process."""
    made = Pair(tmp_path / "pair")
    yield made
    made.close()


@pytest.fixture
def only_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies between them must not go through memory."""
    refuse_memory(monkeypatch)
