"""Snapshots of a store: what they show, what they cost, what becomes of them when space ends."""

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serverfree.target.backstore.base import BlockStore, ReadError, StoreError
from serverfree.target.backstore.file import FileStore, open_file_store
from serverfree.target.backstore.quiet import NotQuiet
from serverfree.target.backstore.snapshot import SnapshotError
from serverfree.target.backstore.snapshot_origin import SnapshotOrigin
from support.block_store_contract import SIZE, BlockStoreContract
from support.disk import FaultyStore, failure

CHUNK = 4096


def open_origin(folder: Path, size: int = SIZE, **options: object) -> SnapshotOrigin:
    """A thin disk in a file, with chunks so small that a few bytes make many."""
    path = folder / "disk"
    store = open_file_store(path, None if path.exists() else size, thin=True)
    settings = {"source": path, "chunk": CHUNK, "clone": False, **options}
    return SnapshotOrigin(store, folder / "snapshots", **settings)  # type: ignore[arg-type]


def content(store: BlockStore) -> bytes:
    return store.pread(0, store.size)


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[SnapshotOrigin]:
    origin = open_origin(tmp_path)
    yield origin
    origin.close()


class TestWithoutSnapshots(BlockStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> BlockStore:
        return open_origin(tmp_path)


class TestWithASnapshot(BlockStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> BlockStore:
        origin = open_origin(tmp_path)
        origin.create("one", 0)
        return origin


class TestAfterASnapshotWasDeleted(BlockStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> BlockStore:
        origin = open_origin(tmp_path)
        origin.create("one", 0)
        origin.delete("one")
        return origin


# ------------------------------------------------------------------ what a snapshot shows


@pytest.mark.parametrize("change", ["write", "zero", "discard"])
def test_no_way_of_changing_the_disk_changes_a_snapshot(origin, change):
    origin.write(0, os.urandom(SIZE))
    before = content(origin)
    snapshot = origin.create("one", 0)
    if change == "write":
        origin.write(CHUNK - 10, b"x" * (3 * CHUNK))
    else:
        getattr(origin, change)(CHUNK - 10, 3 * CHUNK)
    assert content(origin) != before
    assert content(snapshot.open()) == before
    assert bytes(snapshot.open().view(CHUNK - 20, 40)) == before[CHUNK - 20 : CHUNK + 20]


def test_each_of_several_snapshots_shows_its_own_time(origin):
    taken = []
    for number in range(5):
        origin.write(number * 1000, bytes([number + 1]) * 9000)
        taken.append((origin.create(f"s{number}", 0), content(origin)))
    origin.zero(0, SIZE)
    for snapshot, expected in taken:
        assert content(snapshot.open()) == expected
    # The one in the middle goes; older ones still find what it had saved for them.
    origin.delete("s2")
    origin.delete("s4")
    for number in (0, 1, 3):
        assert content(taken[number][0].open()) == taken[number][1]


def test_a_chunk_is_saved_once_however_many_snapshots_there_are(origin):
    origin.write(0, b"a" * SIZE)
    snapshots = [origin.create(f"s{number}", 0) for number in range(4)]
    origin.write(0, b"b" * SIZE)
    origin.write(0, b"c" * SIZE)
    assert [snapshot.used for snapshot in snapshots] == [0, 0, 0, SIZE]


def test_a_hole_of_the_disk_takes_no_space_when_it_is_filled(origin):
    snapshot = origin.create("one", 0)
    origin.write(0, b"x" * SIZE)
    assert content(snapshot.open()) == bytes(SIZE)
    assert snapshot.used == 0


def test_a_snapshot_is_read_only_and_keeps_its_size(origin, tmp_path):
    origin.write(SIZE - 10, b"0123456789")
    before = content(origin)
    store = origin.create("one", 0).open()
    assert store.readonly
    assert not store.can_discard
    for refused in (lambda: store.write(0, b"x"), lambda: store.zero(0, 1)):
        with pytest.raises(OSError) as failed:
            refused()
        assert failed.value.errno == errno.EROFS
    os.truncate(tmp_path / "disk", 2 * SIZE)
    assert origin.grow()
    assert origin.size == 2 * SIZE
    origin.write(SIZE - 5, b"x" * SIZE)
    assert not store.grow()
    assert (store.size, content(store)) == (SIZE, before)
    later = origin.create("two", 0)
    assert later.size == 2 * SIZE
    assert content(later.open()) == content(origin)


def test_extents_of_a_snapshot_cover_it_and_say_true_things(origin):
    origin.write(2 * CHUNK, b"x" * (2 * CHUNK))
    origin.write(8 * CHUNK, b"y" * CHUNK)
    store = origin.create("one", 0).open()
    origin.discard(2 * CHUNK, CHUNK)
    origin.write(5 * CHUNK, b"z" * CHUNK)
    for offset, length in ((0, SIZE), (CHUNK + 7, 3 * CHUNK), (SIZE - 1, 1), (5, 0)):
        at = offset
        for run, size, has_data in store.extents(offset, length):
            assert run == at
            assert size > 0
            if not has_data:
                assert store.pread(run, size) == bytes(size)
            at += size
        assert at == offset + length
    held = sum(size for _, size, has_data in store.extents(0, SIZE) if has_data)
    assert held == 3 * CHUNK


def test_discarding_gives_space_back_with_a_snapshot_too(origin, tmp_path):
    origin.write(0, b"x" * SIZE)
    origin.flush()
    origin.create("one", 0)
    origin.discard(0, SIZE)
    assert (tmp_path / "disk").stat().st_blocks == 0


# ------------------------------------------------------------------ making and deleting


def test_a_snapshot_waits_for_the_quiet_period(tmp_path):
    origin = open_origin(tmp_path)
    origin.write(0, b"x")
    began = time.monotonic()
    origin.create("one", quiet=0.2, timeout=5)
    assert time.monotonic() - origin.quiet_gate.last_change >= 0.2
    assert time.monotonic() - began < 2
    origin.write(0, b"y")
    with pytest.raises(NotQuiet):
        origin.create("two", quiet=0.2, timeout=0.1)
    assert [one.name for one in origin.snapshots()] == ["one"]
    origin.create("two", 0)  # the name is free again
    origin.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda origin: origin.write(0, b"x"),
        lambda origin: origin.zero(0, 1),
        lambda origin: origin.discard(0, CHUNK),
    ],
)
def test_every_change_sets_the_quiet_period_back_and_no_read_does(origin, change):
    gate = origin.quiet_gate
    gate.last_change = float("-inf")
    content(origin)
    bytes(origin.view(0, 10))
    list(origin.extents(0, SIZE))
    origin.flush()
    origin.grow()
    assert gate.last_change == float("-inf")
    change(origin)
    assert time.monotonic() - gate.last_change < 5


def test_the_age_of_the_file_counts_at_the_start(tmp_path):
    """What an earlier process wrote is no less a write."""
    open_origin(tmp_path).close()
    os.utime(tmp_path / "disk", (time.time() - 100, time.time() - 100))
    origin = open_origin(tmp_path)
    age = time.monotonic() - origin.quiet_gate.last_change
    assert 99 < age < 110
    origin.create("idle", quiet=3, timeout=0.5)
    origin.close()
    os.utime(tmp_path / "disk")
    origin = open_origin(tmp_path)
    with pytest.raises(NotQuiet):
        origin.create("busy", quiet=3, timeout=0.1)
    origin.close()


def test_names_are_unique_and_unknown_ones_refused(origin):
    origin.create("one", 0)
    with pytest.raises(SnapshotError, match="already"):
        origin.create("one", 0)
    with pytest.raises(SnapshotError, match="no snapshot"):
        origin.delete("two")
    with pytest.raises(SnapshotError, match="no snapshot"):
        origin.changes(1, "two")


def test_a_deleted_snapshot_cannot_be_read_and_leaves_only_its_map(origin, tmp_path):
    origin.write(0, b"x" * SIZE)
    store = origin.create("one", 0).open()
    origin.write(0, b"y" * SIZE)
    origin.delete("one")
    with pytest.raises(ReadError, match="deleted"):
        store.pread(0, 1)
    kept = {path.suffix for path in (tmp_path / "snapshots").iterdir()}
    assert kept == {"", ".changed"}


def test_what_a_deleted_snapshot_held_is_not_called_a_hole(tmp_path):
    origin = open_origin(tmp_path, keep=1)
    origin.write(0, b"x" * SIZE)
    store = origin.create("one", 0).open()
    origin.discard(0, SIZE)
    origin.create("two", 0)
    origin.delete("one")  # and with it goes what was saved for it alone
    with pytest.raises(ReadError, match="deleted"):
        list(store.extents(0, SIZE))


def test_chunks_have_a_sensible_size(tmp_path):
    for chunk in (2048, 5000, 2 << 20):
        with pytest.raises(StoreError, match="chunks"):
            open_origin(tmp_path, chunk=chunk)


# ------------------------------------------------------------------ what changed


def test_what_changed_between_snapshots_is_told_in_chunks(origin):
    first = origin.create("first", 0)
    origin.write(5 * CHUNK + 1, b"x")
    origin.zero(7 * CHUNK - 1, 2)
    second = origin.create("second", 0)
    origin.discard(15 * CHUNK, CHUNK)
    third = origin.create("third", 0)
    assert origin.changes(first.generation, "second") == ([(5 * CHUNK, 3 * CHUNK)], True)
    assert origin.changes(second.generation, "third") == ([(15 * CHUNK, CHUNK)], True)
    both = [(5 * CHUNK, 3 * CHUNK), (15 * CHUNK, CHUNK)]
    assert origin.changes(first.generation, "third") == (both, True)
    assert origin.changes(third.generation, "third") == ([], True)


def test_generations_outlive_their_snapshot(origin):
    first = origin.create("first", 0)
    origin.delete("first")
    origin.write(0, b"x")
    origin.create("second", 0)
    assert origin.changes(first.generation, "second") == ([(0, CHUNK)], True)


def test_what_is_not_known_is_everything(origin):
    first = origin.create("first", 0)
    everything = ([(0, SIZE)], False)
    assert origin.changes(0, "first") == everything
    assert origin.changes(first.generation + 1, "first") == everything
    assert origin.changes(-5, "first") == everything


def test_only_so_many_generations_are_kept(tmp_path):
    origin = open_origin(tmp_path, keep=3)
    generations = []
    for number in range(6):
        generations.append(origin.create(f"s{number}", 0).generation)
        origin.write(number * CHUNK, b"x")
        origin.delete(f"s{number}")
    last = origin.create("last", 0)
    assert origin.changes(generations[3], "last") == ([(0, SIZE)], False)
    assert origin.changes(generations[4], "last") == ([(4 * CHUNK, 2 * CHUNK)], True)
    assert len(list((tmp_path / "snapshots").glob("*.changed"))) == 3
    assert last.generation == generations[-1] + 1
    origin.close()


def test_a_snapshot_keeps_the_generations_that_it_needs(tmp_path):
    origin = open_origin(tmp_path, keep=1)
    origin.write(0, b"a" * SIZE)
    first = origin.create("first", 0)
    for number in range(4):
        origin.write(number * CHUNK, b"x" * CHUNK)
        origin.create(f"s{number}", 0)
        origin.delete(f"s{number}")
    assert content(first.open()) == b"a" * SIZE
    origin.close()


def test_what_the_disk_has_grown_by_has_changed(origin, tmp_path):
    first = origin.create("first", 0)
    os.truncate(tmp_path / "disk", SIZE + 3 * CHUNK)
    origin.grow()
    origin.create("second", 0)
    assert origin.changes(first.generation, "second") == ([(SIZE, 3 * CHUNK)], True)


# ------------------------------------------------------------------ when saving fails


def test_a_full_delta_store_costs_the_snapshots_and_never_the_disk(tmp_path, caplog):
    origin = open_origin(tmp_path, limit=4 * CHUNK)
    origin.write(0, os.urandom(SIZE))
    snapshots = [origin.create(name, 0) for name in ("one", "two")]
    before = content(origin)
    for at in range(0, 4 * CHUNK, CHUNK):
        origin.write(at, b"x" * CHUNK)
    assert all(content(snapshot.open()) == before for snapshot in snapshots)
    origin.write(5 * CHUNK, b"y" * CHUNK)
    assert origin.pread(5 * CHUNK, CHUNK) == b"y" * CHUNK
    for snapshot in snapshots:
        assert not snapshot.valid
        assert "saved" in snapshot.invalid_because
        with pytest.raises(ReadError, match="cannot be saved"):
            snapshot.open().pread(10 * CHUNK, 1)
    assert "snapshot one is invalid" in caplog.text
    assert not list((tmp_path / "snapshots").glob("*.delta"))
    # What changed is still known, new snapshots can be made, and the old ones stay invalid.
    third = origin.create("three", 0)
    changed, complete = origin.changes(snapshots[1].generation, "three")
    assert (changed, complete) == ([(0, 4 * CHUNK), (5 * CHUNK, CHUNK)], True)
    expected = content(origin)
    origin.write(0, b"z" * CHUNK)
    assert content(third.open()) == expected
    origin.close()
    origin = open_origin(tmp_path, limit=4 * CHUNK)
    assert [one.valid for one in origin.snapshots()] == [False, False, True]
    assert "saved" in origin.snapshots()[0].invalid_because
    origin.close()


def test_a_disk_out_of_space_gets_that_of_its_snapshots(tmp_path):
    """A thin disk and its deltas may share a file system: the disk comes first."""
    inner = FaultyStore(open_file_store(tmp_path / "disk", SIZE, thin=True))
    origin = SnapshotOrigin(inner, tmp_path / "snapshots", chunk=CHUNK)
    origin.write(0, b"a" * SIZE)
    snapshot = origin.create("one", 0)
    origin.write(0, b"b" * SIZE)
    inner.faults["write"] = failure(errno.ENOSPC)

    def healed_by_space(offset: int, data: bytes) -> None:
        if list((tmp_path / "snapshots").glob("*.delta")):
            raise failure(errno.ENOSPC)
        inner.store.write(offset, data)

    origin._write = healed_by_space
    origin.write(0, b"c" * SIZE)
    assert content(origin) == b"c" * SIZE
    assert not snapshot.valid
    # With nothing left to give, the error is the initiator's.
    origin._write = inner.write
    with pytest.raises(OSError) as failed:
        origin.write(0, b"d")
    assert failed.value.errno == errno.ENOSPC
    origin.close()


def test_old_content_that_cannot_be_read_costs_the_snapshot_not_the_write(tmp_path):
    inner = FaultyStore(open_file_store(tmp_path / "disk", SIZE))
    origin = SnapshotOrigin(inner, tmp_path / "snapshots", chunk=CHUNK)
    origin.write(0, b"a" * SIZE)
    snapshot = origin.create("one", 0)
    inner.faults["pread"] = ReadError(errno.EIO, "bad sector")
    origin.write(0, b"b" * 512)
    del inner.faults["pread"]
    assert origin.pread(0, 512) == b"b" * 512
    assert "bad sector" in snapshot.invalid_because
    origin.close()


def test_a_write_that_fails_leaves_the_snapshot_right_and_the_gate_open(tmp_path):
    inner = FaultyStore(open_file_store(tmp_path / "disk", SIZE))
    origin = SnapshotOrigin(inner, tmp_path / "snapshots", chunk=CHUNK)
    origin.write(0, b"a" * SIZE)
    snapshot = origin.create("one", 0)
    inner.faults["write"] = failure(errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        origin.write(0, b"b")
    assert content(snapshot.open()) == b"a" * SIZE
    assert origin.quiet_gate.running == 0
    origin.close()


def test_a_map_that_cannot_be_kept_is_not_believed_later(tmp_path, monkeypatch):
    origin = open_origin(tmp_path)
    origin.write(0, b"a" * SIZE)
    first = origin.create("one", 0)

    def full(fd: int, data: bytes, offset: int) -> int:
        if Path(f"/proc/self/fd/{fd}").readlink().suffix == ".changed":
            raise failure(errno.ENOSPC)
        return real(fd, data, offset)

    real = os.pwrite
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        origin.write(0, b"b" * 512)
    assert content(origin)[:512] == b"b" * 512
    assert not first.valid
    origin.close()
    origin = open_origin(tmp_path)
    origin.create("two", 0)
    assert origin.changes(first.generation, "two") == ([(0, SIZE)], False)
    origin.close()


# ------------------------------------------------------------------ restarts


def test_snapshots_and_what_changed_outlive_a_restart(tmp_path):
    origin = open_origin(tmp_path)
    origin.write(0, b"a" * SIZE)
    first = origin.create("one", 0, notes={"consistency": "fs"})
    origin.write(0, b"b" * 5000)
    origin.close()
    origin = open_origin(tmp_path)
    (found,) = origin.snapshots()
    assert (found.name, found.created, found.generation, found.notes) == (
        "one", first.created, first.generation, {"consistency": "fs"},
    )  # fmt: skip
    assert content(found.open()) == b"a" * SIZE
    origin.write(9 * CHUNK, b"c")
    assert content(found.open()) == b"a" * SIZE
    origin.create("two", 0)
    changed, complete = origin.changes(first.generation, "two")
    assert (changed, complete) == ([(0, 2 * CHUNK), (9 * CHUNK, CHUNK)], True)
    origin.close()


def test_a_disk_that_was_changed_behind_our_back_has_no_past(tmp_path):
    origin = open_origin(tmp_path)
    first = origin.create("one", 0)
    origin.close()
    with (tmp_path / "disk").open("r+b") as file:
        file.write(b"changed")
    origin = open_origin(tmp_path)
    (found,) = origin.snapshots()
    assert "not served" in found.invalid_because
    with pytest.raises(ReadError):
        found.open().pread(0, 1)
    origin.create("two", 0)
    assert origin.changes(first.generation, "two") == ([(0, SIZE)], False)
    origin.close()


def test_another_chunk_size_holds_when_the_last_snapshot_is_gone(tmp_path):
    origin = open_origin(tmp_path)
    first = origin.create("one", 0)
    origin.write(0, b"x")
    origin.close()
    origin = open_origin(tmp_path, chunk=4 * CHUNK)
    origin.create("two", 0)
    assert origin.changes(first.generation, "two") == ([(0, CHUNK)], True)
    origin.delete("one")
    origin.delete("two")
    origin.close()
    origin = open_origin(tmp_path, chunk=4 * CHUNK)
    third = origin.create("three", 0)
    assert origin.changes(first.generation, "three") == ([(0, SIZE)], False)
    origin.write(0, b"x")
    origin.create("four", 0)
    assert origin.changes(third.generation, "four") == ([(0, 4 * CHUNK)], True)
    assert third.generation > first.generation
    origin.close()


def test_a_lost_folder_does_not_make_old_generations_come_again(tmp_path, monkeypatch):
    origin = open_origin(tmp_path)
    first = origin.create("one", 0)
    origin.close()
    for path in (tmp_path / "snapshots").iterdir():
        path.unlink()
    later = time.time() + 1
    monkeypatch.setattr(time, "time", lambda: later)
    origin = open_origin(tmp_path)
    again = origin.create("one", 0)
    assert again.generation > first.generation
    origin.close()


def test_nothing_is_written_beside_a_disk_that_had_no_snapshot(tmp_path):
    origin = open_origin(tmp_path)
    origin.write(0, b"x")
    origin.close()
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]


def test_the_state_is_readable_by_its_version_only(tmp_path):
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / "state").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        open_origin(tmp_path)


def test_a_store_is_opened_as_it_was_left(tmp_path):
    """Opening a thin file asks the file system for holes, which is no change of the file."""
    open_file_store(tmp_path / "disk", SIZE, thin=True).close()
    os.utime(tmp_path / "disk", (1000, 1000))
    store = open_file_store(tmp_path / "disk", thin=True)
    assert isinstance(store, FileStore)
    assert store.can_discard
    assert (tmp_path / "disk").stat().st_mtime == 1000
    store.close()


def test_passing_snapshots_do_not_push_out_what_changed(tmp_path):
    origin = open_origin(tmp_path, keep=2)
    since = origin.create("first", 0).generation
    for number in range(6):
        origin.create(f"token {number}", 0, passing=True)
        origin.write(number * CHUNK, b"x")
        origin.delete(f"token {number}")
    origin.create("second", 0)
    wanted = [(0, 6 * CHUNK)], True
    assert origin.changes(since, "second") == wanted
    origin.close()
    origin = open_origin(tmp_path, keep=2)
    assert origin.changes(since, "second") == wanted
    for number in range(9):  # not for ever: their maps are held in memory
        origin.create(f"token {number}", 0, passing=True)
        origin.delete(f"token {number}")
    origin.delete("first")
    origin.delete("second")
    origin.create("third", 0)
    assert origin.changes(since, "third") == ([(0, SIZE)], False)
    assert len(list((tmp_path / "snapshots").glob("*.changed"))) == 4 * 2
    origin.close()
