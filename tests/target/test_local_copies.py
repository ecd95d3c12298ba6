"""Copies between disks of one process: the same as through memory, but without going there."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.datamover import engine
from serverfree.datamover.direct import DirectCopy
from serverfree.scsi.copy_segments import BlockImage, BlockToBlock, Segment
from serverfree.scsi.sense import Asc
from serverfree.scsi.status import Status
from serverfree.target.backstore import faulty
from serverfree.target.backstore.base import BlockStore
from serverfree.target.units.block import BlockUnit
from serverfree.target.units.command import Reply
from serverfree.target.units.permission import Permission
from support.disk import FaultyStore, Host, failure
from support.local_pair import (
    BLOCK,
    BLOCKS,
    SIZE,
    WHOLE,
    MiB,
    Pair,
    Telling,
    Wrap,
    plain,
)
from support.reserving import Member

WRITE_EXCLUSIVE = 1


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
