"""Copies between disks of one process beside what else reads, changes and keeps these disks."""

import errno
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Thread

import pytest

from serverfree.datamover import engine
from serverfree.datamover.rods import Rod
from serverfree.scsi.copy_segments import BlockToBlock
from serverfree.scsi.rod_token import RodType
from serverfree.scsi.status import Status
from serverfree.target.backstore import faulty
from serverfree.target.backstore.base import BlockStore, Stored
from serverfree.target.backstore.snapshot_origin import SnapshotOrigin
from serverfree.target.units.block_device import BlockDevice
from serverfree.target.units.command import Reply
from support.disk import FaultyStore, failure
from support.file_systems import mounted, shared_bytes
from support.local_pair import (
    BLOCK,
    BLOCKS,
    SIZE,
    WHOLE,
    MiB,
    Pair,
    Telling,
)
from support.rods import Disk, San, information


def test_an_abort_is_heard_between_two_pieces(tmp_path: Path) -> None:
    pair = Pair(tmp_path, wrap_source=lambda store: faulty.FaultyStore(store, delay=0.05))
    command = pair.command(*[WHOLE] * 50)
    replies: list[Reply] = []
    copying = Thread(target=lambda: replies.append(pair.asked.execute(command)))
    copying.start()
    time.sleep(0.3)
    command.aborted = True
    copying.join(timeout=5)
    assert not copying.is_alive()
    pair.close()


def test_what_must_be_alone_in_its_range_is(pair: Pair) -> None:
    with pair.destination.exclusion.alone(2 * MiB, BLOCK):
        copying = Thread(target=lambda: pair.copy(WHOLE))
        copying.start()
        copying.join(timeout=0.2)
        assert copying.is_alive()
        assert pair.files[1].pread(2 * MiB, BLOCK) == bytes(BLOCK)
    copying.join(timeout=10)
    assert pair.copied == pair.content


def test_who_watches_a_disk_is_told_before_it_changes(pair: Pair) -> None:
    seen: list[tuple[int, int, bytes]] = []

    def watch(offset: int, length: int) -> None:
        seen.append((offset, length, pair.files[1].pread(offset, length)))

    with pair.destination.exclusion.watching(watch, SIZE):
        pass
    pair.copy(WHOLE)
    assert [(offset, length) for offset, length, _ in seen] == [
        (at, MiB) for at in range(0, SIZE, MiB)
    ]
    assert not any(before.strip(b"\0") for _, _, before in seen)


def test_after_an_atomic_write_a_source_is_read_at_one_moment(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.source.reads_windows = False  # as WRITE ATOMIC leaves it
    reads: list[int] = []

    def read_copy(
        unit: BlockDevice, offset: int, length: int, real: object = BlockDevice.read_copy
    ) -> bytes:
        reads.append(length)
        assert callable(real)
        return bytes(real(unit, offset, length))

    monkeypatch.setattr(BlockDevice, "read_copy", read_copy)
    assert pair.copy(WHOLE).status is Status.GOOD
    assert sum(reads) == SIZE
    assert pair.copied == pair.content


def test_an_atomic_write_that_comes_between_is_not_seen_in_part(pair: Pair) -> None:
    """It comes when the source has said where its data lies, and has changed half of its blocks."""
    new = b"n" * 4096
    waiting: list[Stored] = []

    class Late:
        def __getattr__(self, name: str) -> object:
            return getattr(pair.files[1], name)

        def take(self, offset: int, data: Stored) -> None:
            if not waiting:
                waiting.append(data)
                pair.source.reads_windows = False  # as WRITE ATOMIC does first
                pair.files[0].write(0, new[:2048])
                pair.files[1].take(offset, data)
                pair.files[0].write(2048, new[2048:])
            else:
                pair.files[1].take(offset, data)

    pair.destination.store = Late()
    assert pair.copy(WHOLE).status is Status.GOOD
    assert waiting
    assert pair.copied == new + pair.content[4096:]


@pytest.mark.usefixtures("only_direct")
@pytest.mark.parametrize("write_cache", [True, False])
def test_without_a_write_cache_each_piece_is_flushed(tmp_path: Path, write_cache: bool) -> None:
    pair = Pair(tmp_path, wrap_destination=FaultyStore)
    store = pair.destination.store
    assert isinstance(store, FaultyStore)
    pair.destination.write_cache = write_cache
    pair.copy(WHOLE)
    assert store.calls.count("take") == SIZE // MiB
    assert store.calls.count("flush") == (0 if write_cache else SIZE // MiB)
    pair.close()


@pytest.mark.usefixtures("only_direct")
def test_holes_of_a_thin_disk_stay_holes(pair: Pair) -> None:
    source, destination = pair.files
    destination.write(0, pair.content)
    source.discard(MiB, 2 * MiB)
    if not source.can_discard:
        pytest.skip("the file system cannot punch holes")
    pair.copy(WHOLE)
    assert pair.copied == pair.content[:MiB] + bytes(2 * MiB) + pair.content[3 * MiB :]
    assert destination.path.stat().st_blocks * 512 == 2 * MiB


@pytest.mark.usefixtures("only_direct")
def test_a_full_disk_keeps_its_space(tmp_path: Path) -> None:
    pair = Pair(tmp_path, thin=False)
    os.truncate(pair.files[0].path, 0)
    os.truncate(pair.files[0].path, SIZE)  # nothing but a hole
    before = pair.files[1].path.stat().st_blocks
    pair.files[1].write(0, pair.content)
    pair.copy(WHOLE)
    assert pair.copied == bytes(SIZE)
    assert pair.files[1].path.stat().st_blocks == before
    pair.close()


@pytest.mark.usefixtures("only_direct")
def test_a_copy_is_a_change_to_snapshots_and_to_what_is_told_of_changes(tmp_path: Path) -> None:
    def keep(store: BlockStore) -> BlockStore:
        return SnapshotOrigin(store, tmp_path / "kept", clone=False)

    pair = Pair(tmp_path / "pair", wrap_destination=keep)
    origin = pair.destination.store
    assert isinstance(origin, SnapshotOrigin)
    before = origin.create("before", 0)
    third = BLOCKS // 4
    pair.copy(BlockToBlock(0, 1, third, 0, third))
    after = origin.create("after", 0)
    assert origin.changes(before.generation, "after") == ([(MiB, MiB)], True)
    assert before.open().pread(0, SIZE) == bytes(SIZE)
    assert after.open().pread(MiB, MiB) == pair.content[:MiB]
    assert origin.quiet_gate.running == 0
    pair.close()


@pytest.mark.usefixtures("only_direct")
def test_a_disk_gets_the_space_of_its_snapshots_for_a_copy_too(tmp_path: Path) -> None:
    full = [failure(errno.ENOSPC)]

    class Full(FaultyStore):
        def take(self, offset: int, data: Stored) -> None:
            if full:
                raise full.pop()
            self.store.take(offset, data)

    pair = Pair(
        tmp_path / "pair",
        wrap_destination=lambda store: SnapshotOrigin(Full(store), tmp_path / "kept", clone=False),
    )
    origin = pair.destination.store
    assert isinstance(origin, SnapshotOrigin)
    snapshot = origin.create("one", 0)
    assert pair.copy(WHOLE).status is Status.GOOD
    assert pair.copied == pair.content
    assert not snapshot.valid
    pair.close()


@pytest.mark.usefixtures("only_direct")
def test_a_snapshot_is_copied_as_it_was_onto_another_disk_and_back(tmp_path: Path) -> None:
    pair = Pair(tmp_path / "pair")
    origin = SnapshotOrigin(pair.files[0], tmp_path / "kept", clone=False)
    snapshot = origin.create("one", 0)
    origin.write(100, b"x" * MiB)
    origin.discard(3 * MiB, 5000)
    pair.source.store = snapshot.open()
    assert pair.copy(WHOLE).status is Status.GOOD
    assert pair.copied == pair.content
    # Back onto the disk that it is a snapshot of.
    pair.destination.store = origin
    assert pair.copy(WHOLE).status is Status.GOOD
    assert origin.pread(0, SIZE) == pair.content
    assert snapshot.open().pread(0, SIZE) == pair.content
    pair.close()


# ---------------------------------------------------------------------- tokens


@pytest.fixture
def san(tmp_path: Path) -> Iterator[San]:
    made = San(tmp_path)
    yield made
    made.close()


def full_disk(san: San, name: str, *, keeps: bool = True) -> tuple[Disk, bytes]:
    disk = san.disk(name, size=SIZE, keeps=keeps, thin=True)
    content = os.urandom(SIZE)
    for at in range(0, SIZE, MiB):
        disk.put(at, content[at : at + MiB])
    return disk, content


@pytest.mark.usefixtures("only_direct")
@pytest.mark.parametrize(
    "kind", [None, RodType.POINT_IN_TIME, RodType.PERSISTENT, RodType.CHANGE_VULNERABLE]
)
def test_what_a_token_stands_for_goes_directly_too(
    san: San, kind: RodType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rod, "read_into", BlockDevice.read_copy)  # which fails
    source, content = full_disk(san, "a")
    destination = san.disk("b", size=SIZE, thin=True)
    token = source.populate((0, BLOCKS // 2), (BLOCKS // 2, BLOCKS // 2), rod_type=kind)
    if kind in (RodType.POINT_IN_TIME, RodType.PERSISTENT):
        source.put(MiB - BLOCK, b"x" * MiB)
    assert destination.write_using(token, (0, BLOCKS)).status is Status.GOOD
    assert destination.content == content
    # Onto its own disk, beside what it stands for.
    token = source.populate((0, 2048), rod_type=kind)
    expected = source.content[:MiB]
    assert source.write_using(token, (4096, 2048)).status is Status.GOOD
    assert source.content[2 * MiB : 3 * MiB] == expected


@pytest.mark.parametrize("kind", [RodType.CHANGE_VULNERABLE, RodType.POINT_IN_TIME])
@pytest.mark.parametrize("lba", [1000, 3000])
def test_a_token_written_over_what_it_stands_for_is_read_first(
    san: San, kind: RodType, lba: int
) -> None:
    disk, content = full_disk(san, "a")
    token = disk.populate((0, 2048), (3000, 1000), rod_type=kind)
    assert disk.write_using(token, (lba, 2048)).status is Status.GOOD
    at = lba * BLOCK
    assert disk.content == content[:at] + content[:MiB] + content[at + MiB :]


def test_a_token_that_ends_while_it_is_read_ends_the_copy_directly_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []
    for folder in (tmp_path / "direct", tmp_path / "memory"):
        folder.mkdir()
        san = San(folder)
        source, content = full_disk(san, "a", keeps=False)
        destination = san.disk("b", size=SIZE, keeps=False, thin=True)
        put = partial(source.put, 3 * MiB, b"x" * BLOCK)
        source.unit.store = Telling(source.unit.store, put)
        token = source.populate((0, BLOCKS), rod_type=RodType.CHANGE_VULNERABLE)
        reply = destination.write_using(token, (0, BLOCKS))
        assert reply.status is Status.CHECK_CONDITION
        assert reply.sense is not None
        assert destination.content[: 2 * MiB] == content[: 2 * MiB]
        answers.append((reply.sense.pack(), destination.host.good(information(8))))
        monkeypatch.setattr(engine, "all_of", lambda _: None)
        san.close()
    assert answers[0] == answers[1]
    raw = answers[0][0]
    # COPY ABORTED, COPY TARGET DEVICE NOT REACHABLE, with the blocks that were written.
    assert (raw[2], raw[12:14]) == (0x0A, bytes.fromhex("0d02"))
    assert int.from_bytes(raw[3:7], "big") == 2 * MiB // BLOCK


# ---------------------------------------------------------------------- shared extents


@pytest.mark.usefixtures("only_direct")
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_thin_disks_share_what_is_copied_where_the_file_system_can(
    tmp_path: Path, kind: str
) -> None:
    with mounted(tmp_path, kind) as folder:
        pair = Pair(folder / "thin")
        assert pair.copy(WHOLE).status is Status.GOOD
        assert pair.copied == pair.content
        assert shared_bytes(pair.files[1].path) == SIZE
        # What is not on blocks of the file system is copied.
        assert pair.copy(BlockToBlock(0, 1, 1024, 1, 2048)).status is Status.GOOD
        assert pair.copied[MiB:][: MiB // 2] == pair.content[BLOCK:][: MiB // 2]
        assert shared_bytes(pair.files[1].path) == SIZE - MiB // 2
        # Writing to the one does not show in the other.
        pair.files[0].write(0, b"x" * MiB)
        assert pair.copied[:MiB] == pair.content[:MiB]
        pair.files[0].discard(0, SIZE)
        assert pair.copy(WHOLE).status is Status.GOOD
        assert pair.copied == bytes(SIZE)
        assert pair.files[1].path.stat().st_blocks == 0
        pair.close()

        # Writes to a full disk must not run out of space: it shares its own with no one.
        pair = Pair(folder / "full", thin=False)
        assert pair.copy(WHOLE).status is Status.GOOD
        assert pair.copied == pair.content
        assert [shared_bytes(file.path) for file in pair.files] == [0, 0]
        pair.close()

        # A snapshot that the file system cloned goes back to its disk by being shared again.
        pair = Pair(folder / "kept")
        origin = SnapshotOrigin(
            pair.files[0], folder / "kept" / "snapshots", source=pair.files[0].path
        )
        snapshot = origin.create("one", 0)
        assert snapshot.clone is not None
        origin.write(0, b"x" * SIZE)
        pair.source.store, pair.destination.store = snapshot.open(), origin
        assert pair.copy(WHOLE).status is Status.GOOD
        assert origin.pread(0, SIZE) == pair.content
        assert shared_bytes(pair.files[0].path) == SIZE
        pair.files[1].close()
        pair.close()
