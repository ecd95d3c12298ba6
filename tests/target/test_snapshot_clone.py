"""Snapshots that the file system clones: on XFS and Btrfs themselves, and with a stand-in."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from serverfree.target.backstore.base import ReadError
from serverfree.target.backstore.file import open_file_store
from serverfree.target.backstore.snapshot_delta import Cloner
from serverfree.target.backstore.snapshot_origin import SnapshotOrigin
from support.file_systems import mounted

SIZE = 1 << 20
CHUNK = 64 << 10


def open_origin(folder: Path, boot: str = "one") -> SnapshotOrigin:
    path = folder / "disk"
    store = open_file_store(path, None if path.exists() else SIZE, thin=True)
    return SnapshotOrigin(store, folder / "snapshots", source=path, boot=lambda: boot)


class Copier(Cloner):
    """Clones as a file system does, but slowly."""

    def clone(self, path: Path) -> int:
        """See Cloner."""
        shutil.copyfile(f"/proc/self/fd/{self._source}", path)
        return os.open(path, os.O_RDWR)


@pytest.fixture
def cloning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cloner, "probe", lambda source, folder: Copier(source))


@pytest.fixture(params=["xfs", "btrfs"])
def file_system(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    with mounted(tmp_path, request.param) as folder:
        yield folder


def show_their_moment_through_everything(folder: Path) -> None:
    """Two snapshots, a restart after a loss of power, and a deletion."""
    origin = open_origin(folder)
    first_content = os.urandom(SIZE)
    origin.write(0, first_content)
    first = origin.create("first", 0)
    assert first.clone is not None
    origin.write(5000, b"x" * CHUNK)
    origin.discard(SIZE // 2, CHUNK)
    second = origin.create("second", 0)
    second_content = origin.pread(0, SIZE)
    origin.zero(0, SIZE)
    assert origin.changes(first.generation, "second") == (
        [(0, 2 * CHUNK), (SIZE // 2, CHUNK)],
        True,
    )
    # Nothing is copied for a clone.
    assert not list((folder / "snapshots").glob("*.delta"))
    left = folder / "left"
    shutil.copytree(folder / "snapshots", left / "snapshots")
    shutil.copy2(folder / "disk", left)
    after = open_origin(left, boot="another")
    found = after.snapshots()
    assert [one.valid for one in found] == [True, True]
    for origin_of, snapshots in ((after, found), (origin, [first, second])):
        for snapshot, content in zip(snapshots, (first_content, second_content), strict=True):
            store = snapshot.open()
            assert store.pread(0, SIZE) == content
            assert sum(length for _, length, _ in store.extents(0, SIZE)) == SIZE
        store = snapshots[0].open()
        origin_of.delete("first")
        with pytest.raises(ReadError, match="deleted"):
            store.pread(0, 1)
        assert snapshots[1].open().pread(0, SIZE) == second_content
        origin_of.close()


def test_clones_show_their_moment(tmp_path, cloning):
    show_their_moment_through_everything(tmp_path)


@pytest.mark.peer
def test_file_systems_that_clone_are_found_out_and_used(file_system):
    show_their_moment_through_everything(file_system)


def test_a_file_system_that_refuses_has_its_disk_copied(tmp_path, cloning, monkeypatch, caplog):
    def refuse(self: Cloner, path: Path) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Copier, "clone", refuse)
    origin = open_origin(tmp_path)
    origin.write(0, b"a" * SIZE)
    snapshot = origin.create("one", 0)
    origin.write(0, b"b" * SIZE)
    assert snapshot.clone is None
    assert snapshot.open().pread(0, SIZE) == b"a" * SIZE
    assert "cannot be cloned" in caplog.text
    origin.close()


def test_a_clone_beside_a_copy_leaves_the_copy_right(tmp_path, monkeypatch):
    """An older snapshot that lives by copying goes on to do so through a later clone."""
    origin = open_origin(tmp_path)
    origin._wants_clones = False
    origin.write(0, b"a" * SIZE)
    copied = origin.create("copied", 0)
    origin._cloner = Copier(tmp_path / "disk")
    origin.write(0, b"b" * CHUNK)
    cloned = origin.create("cloned", 0)
    assert cloned.clone is not None
    origin.write(0, b"c" * SIZE)
    assert copied.open().pread(0, SIZE) == b"a" * SIZE
    assert cloned.open().pread(0, SIZE) == b"b" * CHUNK + b"a" * (SIZE - CHUNK)
    origin.delete("copied")
    assert not list((tmp_path / "snapshots").glob("*.delta"))
    origin.close()
