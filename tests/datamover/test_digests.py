"""Segments C0h and C1h: the digests that a copy holds of its streams, judged by hashlib."""

from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.datamover import engine
from serverfree.datamover.manager import LIMITS, CopyManager
from serverfree.scsi.copy_list import CopyList, ListIdUsage
from serverfree.scsi.copy_segments import (
    BlockImage,
    BlockRangeToBlockRange,
    BlockRangeToStream,
    BlockToBlock,
    BlockToStream,
    DigestOfDestination,
    InlineToStream,
    Locate,
    StreamToBlock,
    StreamToBlockRange,
    StreamToDigest,
    TapeImage,
    WriteFilemarks,
)
from serverfree.scsi.errors import CheckCondition
from support.copies import NEXUS, ModelFabric, copy, cscd, noise
from support.fake_devices import (
    FILEMARK,
    READ_6,
    WRITE_6,
    FakeDisk,
    FakeTape,
    check_condition,
    give,
    sense_bytes,
)

DATA_LID1, DATA_LID4 = 0x01, 0x06


def digests(held: bytes) -> list[bytes]:
    return [held[at : at + 32] for at in range(0, len(held), 32)]


def held_lid1(manager: CopyManager) -> list[bytes]:
    response = manager.receive_copy_results(NEXUS, DATA_LID1, 0, 1 << 20)
    assert int.from_bytes(response[:4], "big") == len(response) - 4
    return digests(response[4:])


def copied(devices, segments, **options) -> list[bytes]:
    manager = CopyManager(ModelFabric(*devices))
    copy(devices, segments, manager=manager, **options)
    return held_lid1(manager)


# ---------------------------------------------------------------------- C1h


@pytest.mark.parametrize("block_length", [512, 4096])
def test_a_destination_is_digested_as_one_stream_of_all_its_segments(
    block_length: int, lazy: bool
) -> None:
    disk = FakeDisk(noise(300 * 4096), block_length, lazy=lazy)
    tape = FakeTape(lazy=lazy)
    inline = noise(777, 2)
    held = copied(
        [disk, tape],
        [
            InlineToStream(1, 10_000, 0, 700, cat=True),
            BlockToStream(0, 1, 10_000, 17, 3, cat=True),
            BlockRangeToStream(0, 1, 10_000, 123_457, 5, 311, cat=True),
            InlineToStream(1, 10_000, 700, 77),
            WriteFilemarks(1, 1),
            DigestOfDestination(1),
        ],
        pads=[False, True],
        inline=inline,
    )
    at = 5 * block_length + 311
    stream = (
        inline[:700]
        + disk.data[3 * block_length : 20 * block_length]
        + disk.data[at : at + 123_457]
        + inline[700:]
    )
    assert b"".join(tape.blocks[:-1]) == stream + bytes(-len(stream) % 10_000)
    assert held == [sha256(stream).digest()]


def test_a_second_digest_begins_where_the_first_ended_and_residue_is_counted_once() -> None:
    disk, tape = FakeDisk(noise(64 * 512)), FakeTape()
    held = copied(
        [disk, tape],
        [
            BlockToStream(0, 1, 1000, 3, 0, cat=True),  # 536 bytes stay behind
            DigestOfDestination(1),
            BlockToStream(0, 1, 1000, 5, 3, cat=True),
            DigestOfDestination(1),
            DigestOfDestination(1),
            BlockToStream(0, 1, 1000, 1, 8),
        ],
        pads=[True, True],
    )
    assert b"".join(tape.blocks) == disk.data[: 9 * 512] + bytes(392)
    assert held == [
        sha256(disk.data[:1536]).digest(),
        sha256(disk.data[1536:4096]).digest(),
        sha256().digest(),
    ]


def test_every_destination_has_a_digest_of_its_own() -> None:
    source = FakeDisk(noise(256 * 512))
    one, other, tape = FakeDisk(bytes(65536)), FakeDisk(noise(65536, 2), 4096), FakeTape()
    held = copied(
        [source, one, other, tape],
        [
            BlockToBlock(0, 1, 7, 5, 0),
            BlockRangeToBlockRange(0, 2, 5000, 9, 1, 100, 200),  # neighbours stay: not counted
            BlockToStream(0, 3, 512, 4, 200),
            BlockImage(0, 1, 30, 40, 20),
            DigestOfDestination(3),
            DigestOfDestination(2),
            DigestOfDestination(1),
        ],
    )
    data = source.data
    assert held == [
        sha256(data[200 * 512 : 204 * 512]).digest(),
        sha256(data[9 * 512 + 100 : 9 * 512 + 5100]).digest(),
        sha256(data[5 * 512 : 12 * 512] + data[30 * 512 : 50 * 512]).digest(),
    ]


def test_what_comes_from_tape_is_digested_on_its_way_to_the_disk(lazy: bool) -> None:
    stream = noise(20 * 4096)
    tape = FakeTape([stream[at : at + 4096] for at in range(0, len(stream), 4096)], lazy=lazy)
    disk = FakeDisk(noise(65536, 2), lazy=lazy)
    held = copied(
        [tape, disk],
        [
            Locate(0, 2),
            StreamToBlock(0, 1, 4096, 9, 0, cat=True),
            StreamToBlockRange(0, 1, 4096, 9001, 40, 77),
            DigestOfDestination(1),
        ],
        pads=[True, True],
    )
    assert held == [sha256(stream[8192 : 8192 + 9 * 512 + 9001]).digest()]


@pytest.mark.parametrize("shift", [-513, 0, 200, 513, 70000])
def test_a_disk_copied_onto_itself_has_the_digest_of_the_bytes_in_order(
    shift: int, lazy: bool
) -> None:
    disk = FakeDisk(noise(1 << 19), most=16, lazy=lazy)
    at, count = 100_003, 200_001
    expected = sha256(disk.data[at : at + count]).digest()
    (lba, offset), (to, to_offset) = divmod(at, 512), divmod(at + shift, 512)
    segment = BlockRangeToBlockRange(0, 0, count, lba, to, offset, to_offset)
    assert copied([disk], [segment, DigestOfDestination(0)]) == [expected]
    assert sha256(disk.data[at + shift : at + shift + count]).digest() == expected


def test_a_tape_image_counts_for_its_destination() -> None:
    class Source(FakeTape):
        def command(self, cdb, out, into):
            return (
                give(into, bytes((0, 0, 8, 0, 0, 1)))
                if cdb[0] == 5
                else super().command(cdb, out, into)
            )

    source, destination = Source([b"a" * 2000, FILEMARK, b"b" * 3, FILEMARK, FILEMARK]), FakeTape()
    held = copied([source, destination], [TapeImage(0, 1, 2), DigestOfDestination(1)])
    assert held == [sha256(b"a" * 2000 + b"b" * 3).digest()]


@dataclass
class Stream:
    records: bytes = b""
    given: bytes = b""


@dataclass
class Streams:
    """What C1h shall say, byte by byte: each residual byte knows whose digests have had it."""

    tapes: list[Stream]
    waiting: list[tuple[int, set[int]]] = field(default_factory=list)
    last: int | None = None

    def inline(self, data: bytes, to: int, unit: int, pad: bool, cat: bool) -> None:
        self.last = to
        self.waiting += [(byte, set()) for byte in data]
        while len(self.waiting) >= unit:
            self._give(to, unit)
        if not cat and self.waiting:
            assert pad
            padding = unit - len(self.waiting)
            self._give(to, len(self.waiting))
            self.tapes[to].records += bytes(padding)

    def _give(self, to: int, count: int) -> None:
        tape = self.tapes[to]
        tape.records += bytes(byte for byte, _ in self.waiting[:count])
        tape.given += bytes(byte for byte, told in self.waiting[:count] if to not in told)
        self.waiting = self.waiting[count:]

    def digest(self, of: int) -> bytes:
        stream, self.tapes[of].given = self.tapes[of].given, b""
        if self.last == of:
            stream += bytes(byte for byte, told in self.waiting if of not in told)
            for _, told in self.waiting:
                told.add(of)
        return sha256(stream).digest()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 40), st.integers(0, 1), st.booleans()),
            st.integers(0, 1),
        ),
        max_size=12,
    )
)
def test_residue_that_changes_tapes_is_counted_where_it_went(script) -> None:
    unit = 16
    inline = noise(4096)
    model, expected, segments, at = Streams([Stream(), Stream()]), [], [], 0
    for act in script:
        if isinstance(act, int):
            segments.append(DigestOfDestination(act))
            expected.append(model.digest(act))
        else:
            count, to, cat = act
            segments.append(InlineToStream(to, unit, at, count, cat=cat))
            model.inline(inline[at : at + count], to, unit, pad=True, cat=cat)
            at += 40
    tapes = [FakeTape(), FakeTape()]
    held = copied(tapes, segments, pads=[True, True], inline=inline)
    assert [b"".join(tape.blocks) for tape in tapes] == [tape.records for tape in model.tapes]
    assert held == expected


def test_residue_that_is_dropped_is_in_no_digest() -> None:
    disk, tape = FakeDisk(noise(8192)), FakeTape()
    held = copied(
        [disk, tape],
        [
            BlockToStream(0, 1, 1000, 3, 0, cat=True),
            BlockToStream(0, 1, 1000, 1, 3),  # source PAD alone: 48 bytes go nowhere
            BlockToStream(0, 1, 1000, 2, 10, cat=True),
            DigestOfDestination(1),
        ],
        pads=[True, False],
    )
    assert held == [sha256(disk.data[:2000] + disk.data[5120:6144]).digest()]


def test_without_a_c1h_nothing_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("hashed")

    monkeypatch.setattr(engine.Digests, "_update", refuse)
    disk, tape = FakeDisk(noise(8192)), FakeTape()
    copy([disk, tape], [BlockToStream(0, 1, 512, 16, 0)])
    assert b"".join(tape.blocks) == disk.data


def test_a_digest_speaks_of_what_is_written() -> None:
    disk, tape = FakeDisk(noise(8192)), FakeTape()
    tape.fail(WRITE_6, 2, check_condition(sense_bytes(3, 0x0C00)))
    manager = CopyManager(ModelFabric(disk, tape))
    with pytest.raises(CheckCondition):
        copy(
            [disk, tape],
            [
                BlockToStream(0, 1, 1024, 4, 0),
                DigestOfDestination(1),
                BlockToStream(0, 1, 1024, 4, 4),
                DigestOfDestination(1),
            ],
            manager=manager,
        )
    assert held_lid1(manager) == [sha256(disk.data[:2048]).digest()]


def test_a_destination_that_is_not_there_is_named_by_its_field() -> None:
    disk = FakeDisk(noise(8192))
    with pytest.raises(CheckCondition) as caught:
        copy([disk], [BlockToBlock(0, 0, 1, 0, 5), DigestOfDestination(4)])
    raw = caught.value.sense.pack()
    assert raw[2] == 0x0A
    assert int.from_bytes(raw[10:12], "big") == 1  # the second segment
    assert raw[15] & 0x20
    assert int.from_bytes(raw[16:18], "big") == 6


# ---------------------------------------------------------------------- C0h


@pytest.mark.parametrize("fixed", [0, 512])
def test_a_stretch_of_tape_is_digested_across_residue(fixed: int, lazy: bool) -> None:
    stream = noise(32 * 1024)
    size = fixed or 1024
    tape = FakeTape(
        [stream[at : at + size] for at in range(0, len(stream), size)],
        block_length=fixed,
        lazy=lazy,
    )
    disk = FakeDisk(bytes(8192))
    unit = 1024 // fixed if fixed else 1024
    cuts = [0, 700, 700, 4096, 20_000, 20_001]
    segments = [StreamToDigest(0, unit, end - begin, cat=True) for begin, end in pairwise(cuts)]
    segments.append(StreamToBlock(0, 1, unit, 3, 0))
    held = copied([tape, disk], segments, pads=[True, True])
    assert held == [sha256(stream[begin:end]).digest() for begin, end in pairwise(cuts)]
    assert disk.data[:1536] == stream[20_001 : 20_001 + 1536]


def test_without_cat_the_rest_of_a_tape_block_goes() -> None:
    tape = FakeTape([b"a" * 100, b"b" * 100, b"c" * 100])
    held = copied([tape], [StreamToDigest(0, 100, 150), StreamToDigest(0, 100, 60)], pads=[True])
    assert held == [sha256(b"a" * 100 + b"b" * 50).digest(), sha256(b"c" * 60).digest()]
    assert tape.position == 3


def test_a_segment_that_fails_holds_nothing() -> None:
    tape = FakeTape([b"a" * 100, b"b" * 100, b"c" * 100])
    tape.fail(READ_6, 2, check_condition(sense_bytes(3, 0x1100)))
    manager = CopyManager(ModelFabric(tape))
    with pytest.raises(CheckCondition):
        copy([tape], [StreamToDigest(0, 100, 100), StreamToDigest(0, 100, 200)], manager=manager)
    assert held_lid1(manager) == [sha256(b"a" * 100).digest()]


# ---------------------------------------------------------------------- how they are had


def test_digests_are_held_for_lid4_too() -> None:
    disk, tape = FakeDisk(noise(4096)), FakeTape()
    manager = CopyManager(ModelFabric(disk, tape))
    cscds = [cscd(0, disk), cscd(1, tape)]
    segments = [BlockToStream(0, 1, 512, 8, 0), DigestOfDestination(1)]
    manager.extended_copy(
        NEXUS,
        CopyList(cscds, segments, list_identifier=0x01020304, lid4=True).pack(),
        lambda: False,
        lid4=True,
    )
    response = manager.receive_copy_results(NEXUS, DATA_LID4, 0x01020304, 1 << 16)
    assert response[-36:] == bytes((0, 0, 0, 32)) + sha256(disk.data).digest()


@pytest.mark.parametrize("segment", [StreamToDigest(0, 100, 100), DigestOfDestination(0)])
def test_a_copy_that_nobody_can_ask_about_cannot_hold_digests(segment) -> None:
    tape = FakeTape([b"a" * 100])
    parameters = CopyList(
        [cscd(0, tape)], [segment], list_id_usage=ListIdUsage.NO_IDENTIFIER
    ).pack()
    with pytest.raises(CheckCondition) as caught:
        CopyManager(ModelFabric(tape)).extended_copy(NEXUS, parameters, lambda: False)
    assert caught.value.sense.asc == 0x2600


def test_the_operating_parameters_name_both() -> None:
    response = LIMITS.pack()
    types = response[-response[43] :]
    assert 0xC0 in types
    assert 0xC1 in types
    assert list(types) == sorted(types)
