"""Copies between disks of one process: the same as through memory, but without going there."""

import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.datamover import engine
from serverfree.datamover.direct import DirectCopy
from serverfree.datamover.manager import CopyManager
from serverfree.datamover.rods import Rod
from serverfree.scsi.copy_cscd import BlockParameters, IdentificationCscd
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_segments import BlockImage, BlockToBlock, Segment
from serverfree.scsi.rod_token import RodType
from serverfree.scsi.sense import Asc
from serverfree.scsi.status import Status
from serverfree.target.backstore import faulty
from serverfree.target.backstore.base import BlockStore, Stored
from serverfree.target.backstore.file import open_file_store
from serverfree.target.backstore.snapshot_origin import SnapshotOrigin
from serverfree.target.units.block import BlockUnit
from serverfree.target.units.block_device import BlockDevice
from serverfree.target.units.command import Command, Reply
from serverfree.target.units.controller import CopyController
from serverfree.target.units.local_fabric import LocalFabric
from serverfree.target.units.permission import EVERYTHING, Permission
from support.disk import NEXUS, FaultyStore, Host, failure
from support.file_systems import mounted, shared_bytes
from support.reserving import Member
from support.rods import Disk, San, information

TARGET = "iqn.2026-11.com.example:storage"
MiB = 1 << 20
BLOCK = 512
SIZE = 4 * MiB
BLOCKS = SIZE // BLOCK
WHOLE = BlockToBlock(0, 1, BLOCKS, 0, 0)
WRITE_EXCLUSIVE = 1

Wrap = Callable[[BlockStore], BlockStore]


def plain(store: BlockStore) -> BlockStore:
    return store


@dataclass
class Pair:
    """Two disks of one target, the first full of random bytes, and a copy manager beside them."""

    folder: Path
    wrap_source: Wrap = plain
    wrap_destination: Wrap = plain
    thin: bool = True
    source_size: int = BLOCK
    permissions: dict[str, Permission] = field(default_factory=dict)
    content: bytes = b""

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.files = [
            open_file_store(self.folder / name, SIZE, thin=self.thin) for name in ("a", "b")
        ]
        self.content = self.content or os.urandom(SIZE)
        self.files[0].write(0, self.content)
        wraps = (self.wrap_source, self.wrap_destination)
        self.source, self.destination = self.units = [
            BlockUnit(name, wrap(file), block_size=size, target=TARGET)
            for name, wrap, file, size in zip(
                "ab", wraps, self.files, (self.source_size, BLOCK), strict=True
            )
        ]
        fabric = LocalFabric(
            TARGET,
            lambda: self.units,
            permission=lambda _, unit: self.permissions.get(unit.name, EVERYTHING),
        )
        self.asked = CopyController("c", CopyManager(fabric), target=TARGET)

    def close(self) -> None:
        for unit in self.units:
            unit.close()

    def command(self, *segments: Segment) -> Command:
        cscds = [
            IdentificationCscd(unit.designator, BlockParameters(unit.block_size), 0)
            for unit in self.units
        ]
        data = CopyList(cscds, segments, list_identifier=1).pack()
        cdb = bytes.fromhex(f"83 00 0000000000000000 {len(data):08x} 00 00")
        return Command(NEXUS, cdb, data, len(data))

    def copy(self, *segments: Segment) -> Reply:
        return self.asked.execute(self.command(*segments))

    def status(self) -> bytes:
        """RECEIVE COPY STATUS(LID1) of the copy."""
        cdb = bytes.fromhex("84 00 01 00000000000000 00000010 00 00")
        return bytes(self.asked.execute(Command(NEXUS, cdb, b"", 16)).data)

    @property
    def copied(self) -> bytes:
        return self.files[1].pread(0, SIZE)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path / "pair")
    yield made
    made.close()


@pytest.fixture
def only_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes through memory fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("data was read into memory")

    monkeypatch.setattr(BlockDevice, "read_copy", refuse)


# ---------------------------------------------------------------------- without memory


@pytest.mark.usefixtures("only_direct")
@pytest.mark.parametrize("thin", [True, False])
def test_blocks_go_straight_from_one_disk_to_the_other(tmp_path: Path, thin: bool) -> None:
    pair = Pair(tmp_path, thin=thin)
    assert pair.copy(WHOLE).status is Status.GOOD
    assert pair.copied == pair.content
    assert pair.status() == bytes.fromhex("00000008 01 0001 00 00400000")
    pair.close()


@pytest.mark.usefixtures("only_direct")
def test_a_whole_disk_goes_straight(pair: Pair) -> None:
    assert pair.copy(BlockImage(0, 1, 0, 0, 0)).status is Status.GOOD
    assert pair.copied == pair.content


@pytest.mark.usefixtures("only_direct")
def test_blocks_go_straight_to_other_places_and_within_a_disk(pair: Pair) -> None:
    third = BLOCKS // 3
    reply = pair.copy(
        BlockToBlock(0, 1, third, 7, 2 * third),  # not on blocks of any file system
        BlockToBlock(1, 1, third, 2 * third, 1),
    )
    assert reply.status is Status.GOOD
    moved = pair.content[7 * BLOCK :][: third * BLOCK]
    expected = bytearray(SIZE)
    expected[2 * third * BLOCK : 3 * third * BLOCK] = moved
    expected[BLOCK : (third + 1) * BLOCK] = moved
    assert pair.copied == expected


@pytest.mark.usefixtures("only_direct")
def test_blocks_go_straight_between_disks_of_other_block_lengths(tmp_path: Path) -> None:
    pair = Pair(tmp_path, source_size=4096)
    assert pair.copy(BlockToBlock(0, 1, SIZE // 4096, 0, 0)).status is Status.GOOD
    assert pair.copied == pair.content
    pair.close()


def test_a_disk_onto_itself_by_a_few_blocks(pair: Pair) -> None:
    for there, back in ((3, 0), (0, 3)):
        pair.files[1].write(0, pair.content)
        reply = pair.copy(BlockToBlock(1, 1, BLOCKS - 3, back, there))
        assert reply.status is Status.GOOD
        moved = pair.content[back * BLOCK :][: SIZE - 3 * BLOCK]
        assert pair.copied[there * BLOCK :][: len(moved)] == moved


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_lists_of_segments_move_what_a_model_moves(tmp_path_factory: Any, data: Any) -> None:
    """Short and long ones, within a disk and between both, holes among them, in any order."""
    pair = Pair(tmp_path_factory.mktemp("pair"))
    model = [bytearray(pair.content), bytearray(SIZE)]
    places = st.integers(0, BLOCKS - 1)
    for file, content in zip(pair.files, model, strict=True):
        start, end = sorted((data.draw(places) * BLOCK, data.draw(places) * BLOCK))
        file.discard(start, end - start)
        content[start:end] = bytes(end - start)
    segments = []
    for _ in range(data.draw(st.integers(1, 6))):
        source, destination = data.draw(st.integers(0, 1)), data.draw(st.integers(0, 1))
        blocks = data.draw(st.sampled_from((1, 63, 64, 128, 2048, 3000)))
        here, there = (data.draw(st.integers(0, BLOCKS - blocks)) for _ in range(2))
        segments.append(BlockToBlock(source, destination, blocks, here, there))
        moved = model[source][here * BLOCK :][: blocks * BLOCK]
        model[destination][there * BLOCK : (there + blocks) * BLOCK] = moved
    assert pair.copy(*segments).status is Status.GOOD
    for file, content in zip(pair.files, model, strict=True):
        assert file.pread(0, SIZE) == content
    pair.close()


# ---------------------------------------------------------------------- the same as by memory


def unreadable(store: BlockStore) -> BlockStore:
    return faulty.FaultyStore(store, [(2 * MiB + 5 * BLOCK, 2 * MiB + 6 * BLOCK)])


def failing(code: int) -> Wrap:
    error = failure(code)
    return lambda store: FaultyStore(store, {"write": error, "take": error})


class Telling:
    """A store that does something when a place is read or written."""

    def __init__(self, store: BlockStore, act: Callable[[], None]) -> None:
        self.store, self.act = store, act

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)

    def pread(self, offset: int, length: int) -> bytes:
        self._look(offset, length)
        return self.store.pread(offset, length)

    view = pread

    def write(self, offset: int, data: bytes) -> None:
        self._look(offset, len(data))
        self.store.write(offset, data)

    def take(self, offset: int, data: Stored) -> None:
        self._look(offset, data.length)
        self.store.take(offset, data)

    def _look(self, offset: int, length: int) -> None:
        if offset <= 2 * MiB < offset + length:
            self.act()


def reserve(pair: Pair, unit: BlockUnit) -> None:
    other = Member(unit, "other")
    other.register(1)
    other.reserve(WRITE_EXCLUSIVE)


def attention(pair: Pair, unit: BlockUnit) -> None:
    """While its last piece but one is moved, a unit has something to tell."""
    store = unit.store
    unit.store = Telling(store, lambda: unit.raise_attention(Asc.MODE_PARAMETERS_CHANGED))


def stop(pair: Pair, unit: BlockUnit) -> None:
    Host(unit).good(bytes.fromhex("1b 00 00 00 00 00"))


def cut_short(pair: Pair, unit: BlockUnit) -> None:
    os.truncate(pair.files[pair.units.index(unit)].path, 2 * MiB)


def protect(pair: Pair, unit: BlockUnit) -> None:
    unit.software_write_protect = True


@dataclass(frozen=True)
class Fault:
    """What is wrong, and the sense data it must lead to: ASC and ASCQ, forwarded key and ASC.

    `written` are the blocks of the segment at fault that were written before.
    """

    expected: tuple[int, int, int] | None
    wrap_source: Wrap = plain
    wrap_destination: Wrap = plain
    permissions: dict[str, Permission] = field(default_factory=dict)
    prepare: Callable[[Pair], None] = lambda pair: None
    segments: tuple[Segment, ...] = (WHOLE,)


FIRST = BlockToBlock(0, 1, 2048, 0, 0)
FAULTS = {
    "nothing": Fault(None),
    "bad block": Fault((0x0D01, 3, 0x1100), wrap_source=unreadable),
    "bad block, second segment": Fault(
        (0x0D01, 3, 0x1100), wrap_source=unreadable, segments=(FIRST, WHOLE)
    ),
    "slow": Fault(None, wrap_source=lambda store: faulty.FaultyStore(store, delay=0.001)),
    "no space": Fault((0x0D01, 7, 0x2707), wrap_destination=failing(errno.ENOSPC)),
    "medium error": Fault((0x0D01, 3, 0x0C00), wrap_destination=failing(errno.EIO)),
    "read-only by the access list": Fault(
        (0x0D01, 7, 0x2700), permissions={"b": Permission(read_only=True)}
    ),
    "read-only source": Fault(None, permissions={"a": Permission(read_only=True)}),
    "write-protected": Fault(
        (0x0D01, 7, 0x2700), prepare=lambda pair: protect(pair, pair.destination)
    ),
    "reserved": Fault((0x0D01, 0, 0), prepare=lambda pair: reserve(pair, pair.destination)),
    "reserved against writing only": Fault(None, prepare=lambda pair: reserve(pair, pair.source)),
    "source wants attention": Fault(
        (0x0D01, 6, 0x2A01), prepare=lambda pair: attention(pair, pair.source)
    ),
    "destination wants attention": Fault(
        (0x0D01, 6, 0x2A01), prepare=lambda pair: attention(pair, pair.destination)
    ),
    "source stopped": Fault((0x0D01, 2, 0x0402), prepare=lambda pair: stop(pair, pair.source)),
    "bad block, whole disk": Fault(
        (0x0D01, 3, 0x1100), wrap_source=unreadable, segments=(BlockImage(0, 1, 0, 0, 0),)
    ),
    "source cut short": Fault(
        (0x0D01, 3, 0x1100), prepare=lambda pair: cut_short(pair, pair.source)
    ),
    "beyond the end": Fault(
        (0x0000, 0, 0), segments=(FIRST, BlockToBlock(0, 1, 128, 64, BLOCKS - 32))
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_told_as_those_of_a_copy_through_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fault = FAULTS[name]
    tries = [0]

    def hand_over(*arguments: object, real: Callable[..., bool] = DirectCopy._hand_over) -> bool:
        tries[0] += 1
        return real(*arguments)

    def outcome(where: str) -> tuple[Reply, bytes, bytes]:
        pair = Pair(
            tmp_path / where, fault.wrap_source, fault.wrap_destination,
            permissions=fault.permissions, content=bytes(range(256)) * (SIZE // 256),
        )  # fmt: skip
        fault.prepare(pair)
        reply = pair.copy(*fault.segments)
        found = reply, pair.copied, pair.status()
        pair.close()
        return found

    monkeypatch.setattr(DirectCopy, "_hand_over", hand_over)
    reply, copied, status = outcome("direct")
    assert tries[0] > 0 or name == "source stopped"  # whose readiness is looked at first
    monkeypatch.setattr(engine, "goes_directly", lambda _: False)
    monkeypatch.setattr(engine, "all_of", lambda _: None)
    memory_reply, memory_copied, memory_status = outcome("memory")
    assert reply.status is memory_reply.status
    assert copied == memory_copied
    assert status == memory_status
    if fault.expected is None:
        assert reply.status is Status.GOOD
        return
    assert reply.sense is not None
    assert memory_reply.sense is not None
    assert reply.sense.pack() == memory_reply.sense.pack()
    code, key, forwarded = fault.expected
    assert (reply.sense.key, reply.sense.asc) == (0x0A, code)  # COPY ABORTED
    if key:
        # A status byte, then the sense data of the unit, in fixed format (SPC-4 5.17.7.4).
        raw = reply.sense.pack()
        inner = max(raw.find(b"\x02\x70"), raw.find(b"\x02\xf0")) + 1
        assert raw[inner + 2] & 0x0F == key
        assert raw[inner + 12 : inner + 14] == forwarded.to_bytes(2, "big")


# ---------------------------------------------------------------------- what else must hold


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
