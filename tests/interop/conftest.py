"""What the peers are pointed at: our servers, one set per test module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serverfree.cli.processes import Server
from support import servers

MiB = 1 << 20
DISK_SIZE = 320 * MiB


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def storage(folder: Path) -> Iterator[Server]:
    """A target with two disks (`one`, `two`) and, to be mistaken for a disk, a tape."""
    server = servers.target(
        *("--disk", f"one={folder / 'one.img'},size={DISK_SIZE},thin"),
        *("--disk", f"two={folder / 'two.img'},size={DISK_SIZE}"),
        *("--tape", f"tape={folder / 'tape'},capacity=1GiB"),
    )
    with server:
        yield server


@pytest.fixture(autouse=True)
def target_survives(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test that uses `storage` the same process still runs."""
    if "storage" not in request.fixturenames:
        yield
        return
    storage: Server = request.getfixturevalue("storage")
    pid = storage.pid
    yield
    assert storage.alive(), storage.log()
    assert storage.pid == pid
