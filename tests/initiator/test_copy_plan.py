"""Plans for EXTENDED COPY, run by a byte-string model of SPC-4 5.17.7.2 written for this test."""

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from serverfree.initiator.copy_listing import describe_copy, hex_dump
from serverfree.initiator.copy_plan import (
    USUAL_LIMITS,
    Endpoint,
    PlanError,
    choose_designator,
    plan_copy,
)
from serverfree.scsi.copy_results import OperatingParameters
from serverfree.scsi.designator import Association, CodeSet, Designator, DesignatorType
from serverfree.scsi.inquiry import DeviceType

NAA_1 = Designator(DesignatorType.NAA, bytes.fromhex("3000000000000001"))
NAA_2 = Designator(DesignatorType.NAA, bytes.fromhex("3000000000000002"))
TAPE = Endpoint(NAA_2, DeviceType.TAPE)
KIB = 1024


def disk(blocks, block_length=512, designator=NAA_1):
    return Endpoint(designator, DeviceType.DISK, blocks, block_length)


def content(size):
    return bytes(i * 31 % 253 for i in range(size))


class Inexact(Exception):
    """COPY ABORTED 26/0A."""


class Model:
    """A copy manager over byte strings. It reads the packed bytes, not our classes.

    A tape is a list of blocks, None for a filemark, with a position that outlives a command.
    """

    def __init__(self, disks, tape, position=0):
        self.disks, self.tape, self.position = disks, tape, position

    def run(self, raw):
        cscd_bytes, segment_bytes = (
            int.from_bytes(raw[2:4], "big"),
            int.from_bytes(raw[8:12], "big"),
        )
        cscds = [raw[16 + at : 48 + at] for at in range(0, cscd_bytes, 32)]
        at, end = 16 + cscd_bytes, 16 + cscd_bytes + segment_bytes
        source = destination = b""  # residual data
        while at < end:
            length = 4 + int.from_bytes(raw[at + 2 : at + 4], "big")
            segment = raw[at : at + length]
            at += length
            if segment[0] == 0x10:
                self.tape.extend([None] * int.from_bytes(segment[9:12], "big"))
                continue
            one = cscds[int.from_bytes(segment[4:6], "big")]
            two = cscds[int.from_bytes(segment[6:8], "big")]
            source, destination = self.move(segment, one, two, source, destination)
            cat = segment[1] & 1
            pads = (bool(one[28] & 4), bool(two[28] & 4))
            if cat or pads == (False, True):
                keep_source = source
            elif pads[0]:
                keep_source = b""
            elif source or destination:
                raise Inexact
            else:
                keep_source = b""
            if not cat and destination:
                if not pads[1]:
                    raise Inexact
                unit = int.from_bytes(segment[8:12], "big") & 0xFFFFFF
                self.tape.append(destination.ljust(unit, b"\0"))
                destination = b""
            source = keep_source

    def move(self, segment, one, two, source, destination):
        code = segment[0]
        if code == 0x02:
            blocks = int.from_bytes(segment[10:12], "big")
            lbas = int.from_bytes(segment[12:20], "big"), int.from_bytes(segment[20:28], "big")
            lengths = block_length(one), block_length(two)
            start = lbas[0] * lengths[0]
            data = destination + self.disks[name(one)][start : start + blocks * lengths[0]]
            whole = len(data) // lengths[1] * lengths[1]
            # Residue continues where the next segment writes only if that is right behind.
            self.put(two, lbas[1] * lengths[1], data[:whole])
            return source, data[whole:]
        unit = int.from_bytes(segment[9:12], "big")
        blocks = int.from_bytes(segment[14:16], "big")
        lba = int.from_bytes(segment[16:24], "big")
        if code == 0x00:
            length = block_length(one)
            data = destination + self.disks[name(one)][lba * length : (lba + blocks) * length]
            while len(data) >= unit:
                self.tape.append(bytes(data[:unit]))
                data = data[unit:]
            return source, data
        assert code == 0x01
        need = blocks * block_length(two)
        while len(source) < need:
            block = self.tape[self.position]
            assert block is not None, "a filemark was met"
            assert len(block) == unit
            source += block
            self.position += 1
        self.put(two, lba * block_length(two), source[:need])
        return source[need:], destination

    def put(self, cscd, start, data):
        memory = self.disks[name(cscd)]
        assert start + len(data) <= len(memory)
        memory[start : start + len(data)] = data


def name(cscd):
    assert cscd[0] == 0xE4
    return bytes(cscd[8 : 8 + cscd[7]])


def block_length(cscd):
    return int.from_bytes(cscd[29:32], "big")


def held_to(plan, limits):
    """Assert what a copy manager with these limits would check before it starts."""
    for step in plan.steps:
        raw = step.copy.pack()
        cscds, segments = int.from_bytes(raw[2:4], "big"), int.from_bytes(raw[8:12], "big")
        assert cscds + segments <= limits.maximum_descriptor_list_length
        assert len(step.copy.segments) <= limits.maximum_segment_count
    return plan


_LIMITS = st.builds(
    OperatingParameters,
    maximum_cscd_count=st.just(2),
    maximum_segment_count=st.integers(2, 40),
    maximum_descriptor_list_length=st.integers(64 + 12 + 28, 2000),
    maximum_segment_length=st.sampled_from((0, 4096, 8192, 10_000, 1 << 20)),
    data_segment_granularity=st.sampled_from((0, 9)),
    descriptor_types=st.just((0x00, 0x01, 0x02, 0x10, 0xE4)),
)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 300),
    st.sampled_from((512, 4096)),
    st.sampled_from((512, 1000, 4096, 10_240, 65_536)),
    st.integers(0, 5),
    _LIMITS,
)
def test_disk_to_tape_and_back_is_the_same(blocks, length, tape_block, skip, limits):
    whole = content((blocks + skip) * length)
    source, target = disk(blocks + skip, length), disk(blocks + skip, length, NAA_2)
    wishes = {"count": blocks, "tape_block": tape_block}
    try:
        out = plan_copy(source, TAPE, limits, skip=skip, **wishes)
        back = plan_copy(TAPE, target, limits, seek=skip, **wishes)
    except PlanError:
        reject()  # limits too tight for whole tape blocks
    model = Model({NAA_1.identifier: whole, NAA_2.identifier: bytearray(len(whole))}, [])
    for step in held_to(out, limits).steps:
        model.run(step.copy.pack())
    *tape_blocks, mark = model.tape
    assert mark is None
    assert {len(block) for block in tape_blocks} == {tape_block}
    stream = b"".join(tape_blocks)
    wanted = whole[skip * length :]
    assert stream[: len(wanted)] == wanted
    assert stream[len(wanted) :] == bytes(len(stream) - len(wanted))
    assert len(stream) - len(wanted) < tape_block
    assert out.size == back.size == len(wanted)
    for step in held_to(back, limits).steps:
        model.run(step.copy.pack())
    assert model.disks[NAA_2.identifier] == bytes(skip * length) + wanted


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 60), st.integers(0, 7), st.integers(0, 7), _LIMITS, st.booleans())
def test_disk_to_disk_moves_the_right_blocks(units, skip, seek, limits, other_size):
    lengths = (512, 4096) if other_size else (512, 512)
    count = units * lengths[1] // lengths[0]
    source = disk(count + skip, lengths[0])
    target = disk(units + seek, lengths[1], NAA_2)
    try:
        plan = plan_copy(source, target, limits, skip=skip, seek=seek, count=count)
    except PlanError:
        reject()
    data = content((count + skip) * lengths[0])
    model = Model(
        {NAA_1.identifier: data, NAA_2.identifier: bytearray(target.blocks * lengths[1])}, []
    )
    for step in held_to(plan, limits).steps:
        model.run(step.copy.pack())
    moved = data[skip * lengths[0] :]
    assert model.disks[NAA_2.identifier] == bytes(seek * lengths[1]) + moved


def test_the_model_itself_notices_a_wrong_cut():
    plan = plan_copy(disk(10), TAPE, tape_block=4096)
    [step] = plan.steps
    raw = bytearray(step.copy.pack())
    raw[16 + 32 + 28] &= ~4  # the tape's PAD
    with pytest.raises(Inexact):
        Model({NAA_1.identifier: content(5120)}, []).run(bytes(raw))


def test_commands_but_the_last_never_pad():
    limits = OperatingParameters(
        maximum_cscd_count=2,
        maximum_segment_count=3,
        maximum_descriptor_list_length=4096,
        maximum_segment_length=64 * KIB,
        descriptor_types=USUAL_LIMITS.descriptor_types,
    )
    plan = plan_copy(disk(1000), TAPE, limits, tape_block=32 * KIB)
    *early, last = [step.copy for step in plan.steps]
    assert len(early) == 3
    assert not any(cscd.parameters.pad for copy in early for cscd in copy.cscds)
    assert [cscd.parameters.pad for cscd in last.cscds] == [False, True]
    assert all([s.cat for s in copy.segments] == [True, False] for copy in early)
    assert [copy.list_identifier for copy in (*early, last)] == [1, 2, 3, 4]


def test_from_tape_both_ends_pad_in_the_last_command():
    """Then what the last tape block has too much is dropped, and surplus on the disk an error."""
    [step] = plan_copy(TAPE, disk(1000)).steps
    assert [cscd.parameters.pad for cscd in step.copy.cscds] == [True, True]
    assert not step.copy.segments[-1].cat


def test_a_large_copy_uses_segments_of_whole_tape_blocks():
    plan = plan_copy(disk((1 << 30) // 512), TAPE)
    [step] = plan.steps
    assert step.size == 1 << 30
    *data, mark = step.copy.segments
    assert {segment.number_of_blocks * 512 % (256 * KIB) for segment in data} == {0}
    assert max(segment.number_of_blocks for segment in data) == 127 * 512
    assert mark.filemark_count == 1


@pytest.mark.parametrize(
    ("why", "source", "destination", "more"),
    [
        ("tape to tape", TAPE, TAPE, {}),
        ("nothing", disk(10), TAPE, {"count": 0}),
        ("nothing", disk(10), TAPE, {"skip": 10}),
        ("beyond the source", disk(10), TAPE, {"count": 11}),
        ("beyond the destination", disk(10), disk(9), {}),
        ("source is a tape", TAPE, disk(10), {"skip": 1}),
        ("destination is a tape", disk(10), TAPE, {"seek": 1}),
        ("can be 1 to", disk(10), TAPE, {"tape_block": 1 << 24}),
        ("can be 1 to", disk(10), TAPE, {"tape_block": 0}),
        ("whole blocks", disk(10, 512), disk(10, 4096), {}),
        ("descriptor type 00h", disk(10), TAPE, {"limits": (0x02, 0x10, 0xE4)}),
        ("descriptor type 10h", disk(10), TAPE, {"limits": (0x00, 0xE4)}),
        ("descriptor type E4h", disk(10), disk(10), {"limits": (0x02,)}),
    ],
)
def test_what_cannot_be_copied_is_refused(why, source, destination, more):
    limits = USUAL_LIMITS
    if "limits" in more:
        limits = OperatingParameters(
            maximum_cscd_count=2,
            maximum_segment_count=9,
            maximum_descriptor_list_length=999,
            descriptor_types=more.pop("limits"),
        )
    with pytest.raises(PlanError, match=why):
        plan_copy(source, destination, limits, **more)


def test_granularity_of_the_copy_manager_is_kept():
    limits = OperatingParameters(
        maximum_cscd_count=2,
        maximum_segment_count=9,
        maximum_descriptor_list_length=999,
        data_segment_granularity=16,
        descriptor_types=(0x02, 0xE4),
    )
    with pytest.raises(PlanError, match="multiples of 64 KiB"):
        plan_copy(disk(100), disk(100), limits)
    assert plan_copy(disk(128), disk(128), limits).size == 64 * KIB


def test_the_world_wide_name_of_the_unit_is_chosen():
    port = Designator(DesignatorType.NAA, bytes(8), association=Association.TARGET_PORT)
    t10 = Designator(DesignatorType.T10_VENDOR_ID, b"IET     0001", CodeSet.ASCII)
    long_name = Designator(DesignatorType.SCSI_NAME_STRING, b"iqn.2001-04.com.example:a,L,0x1")
    assert choose_designator((t10, port, NAA_1, long_name)) is NAA_1
    assert choose_designator((port, t10)) is t10
    with pytest.raises(PlanError):
        choose_designator((port, long_name))


def test_a_plan_can_be_read():
    [step] = plan_copy(disk(1000), TAPE).steps
    lines = list(describe_copy(step.copy))
    assert lines[1:] == [
        "  CSCD 0: E4h disk naa.3000000000000001, blocks of 512",
        "  CSCD 1: E4h tape naa.3000000000000002, variable blocks PAD",
        "  segment 0: 00h block to stream, 0 -> 1, stream transfer length 262144, "
        "number of blocks 1000, lba 0",
        "  segment 1: 10h write filemarks, 1, filemark count 1",
    ]
    assert list(hex_dump(bytes(range(17)))) == [
        "000000  00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f",
        "000010  10",
    ]
