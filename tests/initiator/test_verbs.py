"""Disk, tape and copy manager as verbs, over model devices that read CDBs by hand."""

import pytest

from serverfree.initiator.copy import CopyManager
from serverfree.initiator.disk import DEPTH, Disk
from serverfree.initiator.tape import BlockTooLong, Stop, Tape
from serverfree.initiator.unit import Unit, WrongDevice
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.device import Result
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.inquiry import DeviceType
from serverfree.scsi.sense import SenseKey
from serverfree.scsi.status import Status
from support.fake_devices import (
    FILEMARK,
    READ_6,
    UNIT_ATTENTION,
    WRITE_6,
    FakeDevice,
    FakeDisk,
    FakeTape,
    check_condition,
    give,
    sense_bytes,
)

READ_10, WRITE_10, READ_16, WRITE_16 = 0x28, 0x2A, 0x88, 0x8A
SYNCHRONIZE_CACHE_10, SYNCHRONIZE_CACHE_16 = 0x35, 0x91
KIB = 1024


class FullDisk(FakeDisk):
    """The model disk with the 10-byte commands too."""

    def command(self, cdb, out, into):
        if cdb[0] in (READ_10, WRITE_10):
            long = bytes((cdb[0] + 0x60, cdb[1])) + bytes(4) + cdb[2:6] + bytes(2) + cdb[7:9]
            return self.transfer(long + bytes(2), out, into)
        if cdb[0] == SYNCHRONIZE_CACHE_10:
            return Result(Status.GOOD)
        return super().command(cdb, out, into)


def content(size):
    return bytes(i * 31 % 253 for i in range(size))


# ---------------------------------------------------------------------- any unit


def test_attentions_are_heard_before_the_first_command():
    device = FullDisk(content(512 * 8))
    device.attentions = 3
    assert Disk(device).read(0, 8) == content(512 * 8)


def test_a_later_attention_repeats_a_verb_once():
    device = FullDisk(content(512))
    disk = Disk(device)
    disk.flush()
    device.attentions = 1
    disk.flush()
    device.attentions = 2
    with pytest.raises(CheckCondition) as caught:
        disk.flush()
    assert caught.value.sense.key is SenseKey.UNIT_ATTENTION


def test_a_unit_that_never_stops_telling_is_an_error():
    device = FullDisk(content(512))
    device.attentions = 1000
    with pytest.raises(CheckCondition):
        Disk(device).flush()


def test_an_unexpected_kind_of_device_is_named():
    with pytest.raises(WrongDevice, match="tape"):
        Disk(FakeTape()).expect(DeviceType.DISK)
    absent = FakeDisk(b"")
    absent.qualifier = 3
    with pytest.raises(WrongDevice, match="no logical unit"):
        Disk(absent).expect(DeviceType.DISK)


def test_a_vpd_page_of_any_length_comes_whole():
    class Pages(FakeDevice):
        def command(self, cdb, out, into):
            allocation = int.from_bytes(cdb[3:5], "big")
            page = bytes((0, cdb[2])) + (5000).to_bytes(2, "big") + content(5000)
            return give(into[:allocation], page)

    assert Unit(Pages()).vpd(0x83)[4:] == content(5000)


# ---------------------------------------------------------------------- disk


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("most", [0, 7])
def test_reads_and_writes_of_any_length(lazy, most):
    device = FullDisk(content(512 * 3000), most=most, lazy=lazy)
    disk = Disk(device)
    assert disk.capacity().blocks == 3000
    assert disk.read(5, 2900) == content(512 * 3000)[5 * 512 : 2905 * 512]
    disk.write(100, bytes(512 * 2500))
    assert device.data[100 * 512 : 2600 * 512] == bytes(512 * 2500)
    assert device.data[: 100 * 512] == content(100 * 512)
    assert device.deepest <= DEPTH


@pytest.mark.parametrize("lazy", [False, True])
def test_chunks_come_in_order_and_cover_the_range(lazy):
    data = content(512 * 10_000)
    disk = Disk(FullDisk(data, lazy=lazy, most=64))
    got = b"".join(bytes(chunk) for chunk in disk.chunks(3, 9_990))
    assert got == data[3 * 512 : 9_993 * 512]


def test_write_chunks_follow_each_other():
    device = FullDisk(bytes(512 * 64), lazy=True)
    pieces = [memoryview(content(512 * n)) for n in (1, 5, 3)]
    assert Disk(device).write_chunks(10, pieces) == 9
    assert device.data[10 * 512 : 19 * 512] == b"".join(pieces)


def test_parts_of_blocks_are_refused():
    with pytest.raises(ValueError, match="whole blocks"):
        Disk(FullDisk(bytes(5120))).write(0, bytes(100))


def test_an_attention_in_the_middle_repeats_that_piece_only():
    device = FullDisk(content(512 * 700), most=64)
    device.fail(READ_10, 3, UNIT_ATTENTION)
    assert Disk(device).read(0, 700) == content(512 * 700)


def test_an_error_in_the_middle_leaves_nothing_under_way():
    device = FullDisk(content(512 * 2000), most=10, lazy=True)
    device.fail(READ_10, 4, check_condition(sense_bytes(3, 0x1100)))
    with pytest.raises(CheckCondition) as caught:
        Disk(device).read(0, 2000)
    assert caught.value.sense.key is SenseKey.MEDIUM_ERROR
    assert not device._queue


def test_addresses_beyond_32_bits_take_the_long_commands():
    class Large(FullDisk):
        def command(self, cdb, out, into):
            if cdb[0] == 0x9E:
                return give(into, (1 << 40).to_bytes(8, "big") + (512).to_bytes(4, "big"))
            if cdb[0] == READ_16:
                assert int.from_bytes(cdb[2:10], "big") == 1 << 33
                return give(into, bytes(512))
            return check_condition(sense_bytes(5, 0x2400))

    assert Disk(Large(b"")).read(1 << 33, 1) == bytes(512)


def test_an_old_disk_tells_its_capacity_in_ten_bytes():
    class Old(FullDisk):
        def command(self, cdb, out, into):
            if cdb[0] == 0x9E:
                return check_condition(sense_bytes(5, 0x2000))
            if cdb[0] == 0x25:
                return give(into, (99).to_bytes(4, "big") + (512).to_bytes(4, "big"))
            return super().command(cdb, out, into)

    capacity = Disk(Old(b"")).capacity()
    assert (capacity.blocks, capacity.block_length, capacity.size) == (100, 512, 51_200)


def test_a_short_read_is_never_taken_for_a_whole_one():
    device = FullDisk(content(512 * 4))
    device.fail(READ_10, 0, Result(Status.GOOD, None, 100))
    with pytest.raises(ValueError, match="100 of 2048"):
        Disk(device).read(0, 4)


# ---------------------------------------------------------------------- tape


def tape_of(*blocks, **more):
    device = FakeTape(blocks, **more)
    return device, Tape(device)


def room(size=64):
    return memoryview(bytearray(size))


def test_blocks_of_any_length_are_read_as_they_are():
    _, tape = tape_of(b"full" * 16, b"short", FILEMARK, b"next")
    assert tape.read_block(room()) == b"full" * 16
    assert tape.read_block(room()) == b"short"
    assert tape.read_block(room()) is Stop.FILEMARK
    assert tape.read_block(room()) == b"next"
    assert tape.read_block(room()) is Stop.END_OF_DATA


def test_a_block_longer_than_the_buffer_is_an_error():
    _, tape = tape_of(b"x" * 100)
    with pytest.raises(BlockTooLong, match="100 bytes, room is for 64"):
        tape.read_block(room())


def test_blocks_and_marks_are_written():
    device, tape = tape_of()
    assert not tape.write_block(b"one")
    assert not tape.write_filemarks()
    assert device.blocks == [b"one", None]


def test_early_warning_is_told_and_the_block_is_on_tape():
    device, tape = tape_of(early_warning=2)
    assert tape.write_block(b"one")
    assert tape.write_filemarks()
    assert device.blocks == [b"one", None]


def test_a_full_tape_is_an_error():
    _, tape = tape_of(capacity=2)
    with pytest.raises(CheckCondition) as caught:
        tape.write_block(b"one")
    assert caught.value.sense.key is SenseKey.VOLUME_OVERFLOW


@pytest.mark.parametrize("opcode", [READ_6, WRITE_6])
def test_what_depends_on_the_position_is_not_repeated(opcode):
    """After a reset the tape may stand at its beginning: a repeated write would destroy it."""
    device, tape = tape_of(b"old", b"older")
    tape.ready()
    device.fail(opcode, 0, UNIT_ATTENTION)
    with pytest.raises(CheckCondition) as caught:
        tape.write_block(b"new") if opcode == WRITE_6 else tape.read_block(room())
    assert caught.value.sense.key is SenseKey.UNIT_ATTENTION
    assert device.blocks == [b"old", b"older"]


@pytest.mark.parametrize(
    ("sense", "stop"),
    [
        (sense_bytes(0, 0x0001, filemark=True, information=3), Stop.FILEMARK),
        (sense_bytes(8, 0x0005, information=2), Stop.END_OF_DATA),
        (sense_bytes(0, 0x0004, eom=True, information=2), Stop.BEGINNING_OF_TAPE),
        (sense_bytes(3, 0x0002, eom=True, information=2), Stop.END_OF_TAPE),
    ],
)
def test_what_stops_a_tape_is_told(sense, stop):
    device, tape = tape_of()
    device.fail(0x11, 0, check_condition(sense))
    assert tape.space_blocks(5) is stop
    assert device.log[-1] == bytes((0x11, 0, 0, 0, 5, 0))


def test_a_failing_drive_is_an_error_not_a_stop():
    device, tape = tape_of()
    device.fail(0x11, 0, check_condition(sense_bytes(4, 0x4400)))
    with pytest.raises(CheckCondition):
        tape.space_filemarks(1)


def test_going_back_is_a_negative_count():
    device, tape = tape_of()
    device.fail(0x11, 0, Result(Status.GOOD))
    assert tape.space_filemarks(-2) is None
    assert device.log[-1] == bytes.fromhex("1101fffffe00")


def test_position_falls_back_to_the_short_form():
    class OldDrive(FakeTape):
        def command(self, cdb, out, into):
            if cdb[0] == 0x34 and cdb[1] & 0x1F == 0:
                return give(into, bytes.fromhex("8000000000000007000000070000000000000000"))
            return check_condition(sense_bytes(5, 0x2400))

    position = Tape(OldDrive()).position()
    assert (position.block, position.file, position.beginning) == (7, None, True)


# ---------------------------------------------------------------------- copy manager


class FakeManager(FakeDevice):
    device_type = 3

    def command(self, cdb, out, into):
        if cdb[0] == 0x83:
            assert cdb[1] == 0
            assert int.from_bytes(cdb[10:14], "big") == len(out)
            self.list = out
            return Result(Status.GOOD)
        assert cdb[0] == 0x84
        answers = {
            0: "00000008 01 0002 00 00100000",
            3: "0000002c 01 000000 0040 4000 00400000 00000000 00100000 00000000 00ffffff 0000"
            "0004 04 00 00 00 000000 04 00 01 02 e4",
            4: "0000004a" + "00" * 52 + "02 00 0012" + sense_bytes(10, 0x0D01).hex(),
        }
        return give(into, bytes.fromhex(answers[cdb[1] & 0x1F]))


def test_a_copy_manager_answers_in_types():
    device = FakeManager()
    manager = CopyManager(device)
    parameters = manager.operating_parameters()
    assert parameters.maximum_cscd_count == 64
    assert parameters.descriptor_types == (0, 1, 2, 0xE4)
    manager.copy(CopyList())
    assert len(device.list) == 16
    assert manager.status(9).bytes_transferred == 1 << 20
    assert device.log[-1][:3] == b"\x84\x00\x09"
    failure = manager.failure(9)
    assert failure.status == Status.CHECK_CONDITION
    assert failure.sense == sense_bytes(10, 0x0D01)
