"""CSCD DESCRIPTOR IDs that lead nowhere, in every segment; lists as long as they may be."""

from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from serverfree.datamover.manager import LIMITS, CopyManager
from serverfree.datamover.plan import IMPLEMENTED_SEGMENTS
from serverfree.scsi.copy_cscd import BlockParameters, Ipv6Cscd
from serverfree.scsi.copy_list import NULL_STREAM, CopyList
from serverfree.scsi.copy_segments import (
    BlockImage,
    BlockRangeToBlockRange,
    BlockRangeToStream,
    BlockToBlock,
    BlockToBlockHold,
    BlockToStream,
    BlockToStreamHold,
    DigestOfDestination,
    EmbeddedToStream,
    InlineToStream,
    Locate,
    MoveReservation,
    RegisterKey,
    Segment,
    Space,
    StreamToBlock,
    StreamToBlockHold,
    StreamToBlockRange,
    StreamToDigest,
    StreamToDiscard,
    StreamToDiscardHold,
    StreamToStream,
    StreamToStreamHold,
    TapeImage,
    VerifyCscd,
    WriteFilemarks,
)
from serverfree.scsi.errors import CheckCondition
from support.copies import NEXUS, ModelFabric, aborted_sense, copy, noise
from support.fake_devices import READ_6, READ_16, WRITE_6, WRITE_16, FakeDisk, FakeTape

DISK, TAPE = 0, 1
EMPTY = [
    *(kind(DISK, TAPE, 512, 0, 0) for kind in (BlockToStream, BlockToStreamHold)),
    *(kind(TAPE, DISK, 512, 0, 0) for kind in (StreamToBlock, StreamToBlockHold)),
    *(kind(DISK, DISK, 0, 0, 0) for kind in (BlockToBlock, BlockToBlockHold)),
    *(kind(TAPE, TAPE, 512, 512, 0) for kind in (StreamToStream, StreamToStreamHold)),
    *(kind(TAPE, 512, 0) for kind in (StreamToDiscard, StreamToDiscardHold, StreamToDigest)),
    InlineToStream(TAPE, 512, 0, 0),
    EmbeddedToStream(TAPE, 512, b""),
    BlockRangeToStream(DISK, TAPE, 512, 0, 0, 0),
    StreamToBlockRange(TAPE, DISK, 512, 0, 0, 0),
    BlockRangeToBlockRange(DISK, DISK, 0, 0, 0, 0, 0),
    VerifyCscd(DISK),
    WriteFilemarks(TAPE, 0),
    Space(TAPE, 0, 0),
    Locate(TAPE, 0),
    TapeImage(TAPE, TAPE, 0),
    RegisterKey(DISK, 1, 2),
    MoveReservation(TAPE, 1, 2, 3, bytes(24)),
    BlockImage(DISK, DISK, 0, 0, 1),
    DigestOfDestination(TAPE),
]
"""Segments that move nothing, which is no error; their CSCDs have to be there all the same."""

NAMED = [
    pytest.param(segment, name, id=f"{segment.TYPE:02x} {name}")
    for segment in EMPTY
    for name in ("source", "destination")
    if hasattr(segment, name)
]


def test_every_type_but_those_of_rods_is_here() -> None:
    assert {one.TYPE for one in EMPTY} == set(IMPLEMENTED_SEGMENTS) - {0xBE, 0xBF}


@pytest.mark.parametrize(("segment", "name"), NAMED)
@pytest.mark.parametrize("number", [2, 0x07FF, 0x0800, 0xBFFF, 0xC002, 0xF800, 0xFFFE, 0xFFFF])
def test_an_identifier_of_nothing_is_unreachable(segment: Segment, name: str, number: int) -> None:
    devices = [FakeDisk(noise(4096)), FakeTape()]
    sense = aborted_sense(devices, [replace(segment, **{name: number})])
    assert (sense.code, sense.segment, sense.residual) == (0x0804, 0, None)
    assert sense.pointer == ("segment", 4 if name == "source" else 6)
    moved = (READ_16, WRITE_16, READ_6, WRITE_6, 0x5F, 0x10)
    assert not [cdb for device in devices for cdb in device.log if cdb[0] in moved]


# ---------------------------------------------------------------------- the null tape


def test_the_null_tape_needs_no_transfer_length() -> None:
    """It is sent no command, so no length can be wrong; a list drops nothing by it but residue."""
    disk, tape = FakeDisk(noise(4096)), FakeTape([noise(1000)] * 3)
    copy(
        [disk, tape],
        [
            StreamToBlock(1, 0, 1000, 1, 0, cat=True),
            StreamToDiscard(NULL_STREAM, 0, 400, cat=True),
            EmbeddedToStream(NULL_STREAM, 0, b"", cat=True),
            StreamToBlock(1, 0, 1000, 1, 1, cat=True),
        ],
    )
    stream = noise(1000) * 2
    assert disk.data[:1024] == stream[:512] + stream[912:1424]
    assert tape.position == 2


@pytest.mark.parametrize(
    "segment", [StreamToDiscard(NULL_STREAM, 0, 1), EmbeddedToStream(NULL_STREAM, 0, b"x")]
)
def test_data_of_the_null_tape_is_out_of_reach(segment: Segment) -> None:
    sense = aborted_sense([FakeDisk(bytes(512))], [segment])
    assert (sense.code, sense.segment) == (0x0804, 0)


def test_a_tape_beside_the_null_tape_has_its_length() -> None:
    sense = aborted_sense([FakeTape()], [StreamToStream(NULL_STREAM, 0, 0, 0, 0)])
    assert (sense.code, sense.pointer) == (0x2600, ("segment", 13))


# ---------------------------------------------------------------------- as long as they may be


def test_as_many_segments_as_there_may_be() -> None:
    count = LIMITS.maximum_segment_count
    assert count == 16384
    disk, other = FakeDisk(noise(512 * 64)), FakeDisk(bytes(512 * 64))
    manager = CopyManager(ModelFabric(disk, other))
    segments: list[Segment] = [BlockToBlock(0, 1, 1, n % 64, 63 - n % 64) for n in range(count)]
    copy([disk, other], segments, manager=manager)
    blocks = [disk.data[at : at + 512] for at in range(0, 512 * 64, 512)]
    assert other.data == b"".join(reversed(blocks))
    status = manager.receive_copy_results(NEXUS, 0, 0, 12)
    assert status == bytes.fromhex("00000008 01 4000 00 00800000")
    with pytest.raises(CheckCondition) as caught:
        copy([disk, other], [*segments, VerifyCscd(0)])
    raw = caught.value.sense.pack()
    assert (raw[2], raw[12:14]) == (5, b"\x26\x08")
    assert int.from_bytes(raw[16:18], "big") == 8, "SEGMENT DESCRIPTOR LIST LENGTH"


@pytest.mark.timeout(30)  # a fraction of a second, unless each segment looks at all the others
def test_the_last_of_many_segments_is_named_in_its_sense() -> None:
    disks = [FakeDisk(noise(512)), FakeDisk(bytes(512))]
    sense = aborted_sense(disks, [BlockToBlock(0, 1, 0, 0, 0)] * 16383 + [VerifyCscd(2)])
    assert (sense.code, sense.segment) == (0x0804, 16383)


def test_as_many_cscds_as_there_may_be() -> None:
    count = LIMITS.maximum_cscd_count
    disks = [FakeDisk(noise(512, number)) for number in range(count - 1)]
    whole = FakeDisk(bytes(512 * count))
    segments = [BlockToBlock(n, count - 1, 1, 0, n) for n in range(count - 1)]
    copy([*disks, whole], segments)
    assert whole.data == b"".join(one.data for one in disks) + bytes(512)


class Portals(ModelFabric):
    """A fabric that knows addresses too; nobody is there."""

    def open_at(self, portal, lun, nexus=None):
        raise AssertionError("not asked")

    open_named = open_at


def test_descriptors_of_64_bytes_count_twice() -> None:
    long = Ipv6Cscd(bytes(8), IPv6Address("::1"), 3260, BlockParameters(512), 0)
    half = LIMITS.maximum_cscd_count // 2
    disk = FakeDisk(noise(512))
    manager = CopyManager(Portals(disk))

    def run(count: int) -> None:
        raw = CopyList([long] * count, [VerifyCscd(0xC000)], b"").pack()
        manager.extended_copy(NEXUS, raw, lambda: False)

    run(half)
    with pytest.raises(CheckCondition) as caught:
        run(half + 1)
    assert caught.value.sense.pack()[12:14] == b"\x26\x06"


# ---------------------------------------------------------------------- inline data


@pytest.mark.parametrize(
    ("offset", "size", "good"),
    [
        (0, 16, True),
        (16, 0, True),  # none, at the end
        (12, 4, True),
        (20, 0, False),
        (12, 5, False),
        (0xFFFFFFFC, 4, False),
        (0xFFFFFFFC, 0xFFFFFFFF, False),
        (0, 0xFFFFFFFF, False),
    ],
)
def test_inline_data_at_the_edges(offset: int, size: int, good: bool) -> None:
    tape, inline = FakeTape(), noise(16)
    segment = InlineToStream(0, 512, offset, size)
    if good:
        copy([tape], [segment], pads=[True], inline=inline)
        wanted = inline[offset : offset + size]
        assert tape.blocks == ([wanted.ljust(512, b"\0")] if size else [])
    else:
        sense = aborted_sense([tape], [segment], inline=inline)
        assert (sense.code, sense.pointer) == (0x260B, ("segment", 12))
        assert tape.blocks == []


def test_the_longest_inline_data_there_may_be() -> None:
    tape, inline = FakeTape(), noise(LIMITS.maximum_inline_data_length)
    copy([tape], [InlineToStream(0, 1 << 18, 0, len(inline))], inline=inline)
    assert b"".join(tape.blocks) == inline
    with pytest.raises(CheckCondition) as caught:
        copy([tape], [], inline=inline + b"x")
    assert caught.value.sense.pack()[12:14] == b"\x26\x0b"


def test_the_longest_transfer_there_may_be() -> None:
    """16 MiB, which a tape of fixed blocks can be asked for."""
    blocks = [bytes([n]) * (4 << 20) for n in range(4)]
    tape, out = FakeTape(blocks, 4 << 20), FakeTape()
    copy([tape, out], [StreamToStream(0, 1, 4, 1 << 20, 16 << 20)])
    assert b"".join(out.blocks) == b"".join(blocks)
    sense = aborted_sense([tape], [StreamToDiscard(0, 5, 1)])
    assert (sense.code, sense.pointer) == (0x2600, ("segment", 9))
