"""Copies with list identifiers of 32 bits, in the background, aborted; held data (SPC-4 5.17.4)."""

import threading
import time
from dataclasses import replace

import pytest

from serverfree.datamover.held import HeldData
from serverfree.datamover.manager import LIMITS, CopyManager
from serverfree.scsi.copy_cscd import BlockParameters, IdentificationCscd
from serverfree.scsi.copy_list import CopyList, ListIdUsage
from serverfree.scsi.copy_segments import (
    BlockToBlock,
    BlockToBlockHold,
    BlockToStreamHold,
    StreamToDiscardHold,
)
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.sense import Sense
from support.copies import ModelFabric, cscd, named, noise
from support.fake_devices import READ_16, FakeDisk, FakeTape, check_condition, sense_bytes

STATUS, DATA, STATUS4, DATA4, FAILURE = 0, 1, 5, 6, 4
EVER = 1 << 20
INVALID_FIELD_IN_CDB, INVALID_FIELD = (5, 0x2400), (5, 0x2600)
CSCDS = [IdentificationCscd(named(number), BlockParameters(512), 0) for number in (0, 1)]


class SlowDisk(FakeDisk):
    """A disk whose reads take until leave is given."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.reached = threading.Event()
        self.leave = threading.Event()

    def transfer(self, cdb, out, into):
        if cdb[0] == READ_16:
            self.reached.set()
            assert self.leave.wait(20)
        return super().transfer(cdb, out, into)


def copy(manager: CopyManager, segments, *, nexus: str = "a", lid4: bool = True, **options):
    packed = CopyList(CSCDS, segments, lid4=lid4, **options).pack()
    return manager.extended_copy(nexus, packed, lambda: False, lid4=lid4)


def refusal(call, *arguments, **options) -> tuple[int, int]:
    with pytest.raises(CheckCondition) as caught:
        call(*arguments, **options)
    raw = caught.value.sense.pack()
    return raw[2] & 0x0F, int.from_bytes(raw[12:14], "big")


def ended(manager: CopyManager, identifier: int) -> bytes:
    """STATUS(LID4) of a copy once it has ended."""
    for _ in range(200):
        raw = manager.receive_copy_results("a", STATUS4, identifier, EVER)
        if raw[5] not in (0x11, 0x12):
            return raw
        time.sleep(0.02)
    raise AssertionError("the copy goes on")


# ---------------------------------------------------------------------- the parameter list


def test_list_has_the_bytes_of_table_126() -> None:
    raw = bytes.fromhex(
        "01 29 0020" + "00" * 11 + "03 ff 000000 a1a2a3a4" + "00" * 18 + "0000 001c 0003"
        "02 00 0018 0000 0001 0000 0004 0000000000000000 0000000000000008"
        "616263"
    )
    copy_list = CopyList(
        (),
        [BlockToBlock(0, 1, 4, 0, 8)],
        b"abc",
        0xA1A2A3A4,
        sequential_striped=True,
        lid4=True,
        good_with_sense=True,
        immediate=True,
    )
    copy_list.list_id_usage = 0b01  # type: ignore[assignment]  # reserved, to see its bits
    assert copy_list.pack() == raw
    fine = bytearray(raw)
    fine[1], fine[15] = 0x21, 0x02
    read = CopyList.unpack(bytes(fine), LIMITS, lid4=True)
    assert read.list_identifier == 0xA1A2A3A4
    assert (read.good_with_sense, read.immediate, read.sequential_striped) == (True, False, True)
    assert (read.segments, bytes(read.inline)) == ([BlockToBlock(0, 1, 4, 0, 8)], b"abc")


@pytest.mark.parametrize(
    ("byte", "value", "code", "pointer"),
    [
        (0, 0x02, 0x2600, 0),
        (3, 0x21, 0x2600, 2),
        (16, 0xE4, 0x2600, 16),
        (15, 0x03, 0x2400, None),  # IMMED and G_SENSE
        (1, 0x08, 0x2600, 1),  # reserved LIST ID USAGE
        (1, 0x18, 0x2600, 20),  # no identifier, but there is one
    ],
)
def test_header_that_cannot_be(byte: int, value: int, code: int, pointer: int | None) -> None:
    raw = bytearray(CopyList(list_identifier=5, lid4=True).pack())
    raw[byte] = value
    with pytest.raises(CheckCondition) as caught:
        CopyList.unpack(bytes(raw), LIMITS, lid4=True)
    sense = caught.value.sense.pack()
    assert (sense[2], int.from_bytes(sense[12:14], "big")) == (5, code)
    if pointer is not None:
        assert sense[15] & 0x80
        assert int.from_bytes(sense[16:18], "big") == pointer


def test_immediate_without_an_identifier_is_refused() -> None:
    usage = ListIdUsage.NO_IDENTIFIER
    raw = CopyList(list_id_usage=usage, lid4=True, immediate=True).pack()
    assert refusal(CopyList.unpack, raw, LIMITS, lid4=True) == INVALID_FIELD_IN_CDB


def test_list_cut_in_its_header_is_a_length_error() -> None:
    assert refusal(CopyList.unpack, CopyList(lid4=True).pack()[:47], LIMITS, lid4=True) == (
        5,
        0x1A00,
    )


# ---------------------------------------------------------------------- foreground, background


def test_good_with_sense_says_how_many_segments() -> None:
    manager = CopyManager(ModelFabric(FakeDisk(noise(4096)), FakeDisk(bytes(4096))))
    sense = copy(manager, [BlockToBlock(0, 1, 2, 0, 0)] * 3, good_with_sense=True)
    assert isinstance(sense, Sense)
    raw = sense.pack()
    assert (raw[2], raw[12:14], raw[8:12]) == (0x0F, b"\x00\x20", b"\0\0\0\3")
    assert copy(manager, [BlockToBlock(0, 1, 2, 0, 0)]) is None


def test_status_of_a_copy_that_ended_well_stays() -> None:
    manager = CopyManager(ModelFabric(FakeDisk(noise(4096)), FakeDisk(bytes(4096))))
    copy(
        manager, [BlockToBlock(0, 1, 2, 0, 0), BlockToBlock(0, 1, 2, 2, 2)], list_identifier=1 << 24
    )
    raw = manager.receive_copy_results("a", STATUS4, 1 << 24, EVER)
    assert raw[:6] == bytes.fromhex("0000001c 01 01")
    assert int.from_bytes(raw[6:8], "big") >= 4  # two reads, two writes, and what came before
    assert raw[8:12] == bytes.fromhex("fffffffe")
    assert raw[12:16] == bytes(4)
    assert raw[16:24] == (2048).to_bytes(8, "big")
    assert raw[24:] == bytes.fromhex("0002 000000000000")
    assert manager.receive_copy_results("a", STATUS4, 1 << 24, EVER) == raw
    assert (
        refusal(manager.receive_copy_results, "b", STATUS4, 1 << 24, EVER) == INVALID_FIELD_IN_CDB
    )


def test_immediate_copy_goes_on_in_the_background() -> None:
    disk, destination = SlowDisk(noise(4096)), FakeDisk(bytes(4096))
    manager = CopyManager(ModelFabric(disk, destination))
    copy(manager, [BlockToBlock(0, 1, 8, 0, 0)], list_identifier=7, immediate=True)
    assert disk.reached.wait(20)
    raw = manager.receive_copy_results("a", STATUS4, 7, EVER)
    assert raw[4:6] == b"\x01\x12"
    assert raw[8:12] not in (b"\xff\xff\xff\xfe", bytes(4))
    assert raw[24:26] == b"\x00\x01"
    assert refusal(copy, manager, [], list_identifier=7) == (5, 0x0016)
    assert refusal(copy, manager, [], list_identifier=7, lid4=False) == INVALID_FIELD
    disk.leave.set()
    assert ended(manager, 7)[5] == 0x01
    assert destination.data == disk.data
    copy(manager, [], list_identifier=7)  # the identifier is free again


def test_error_in_the_background_is_there_to_be_asked_for() -> None:
    disk = FakeDisk(noise(4096))
    drives_sense = sense_bytes(3, 0x1100)
    disk.fail(READ_16, 0, check_condition(drives_sense))
    manager = CopyManager(ModelFabric(disk, FakeDisk(bytes(4096))))
    copy(manager, [BlockToBlock(0, 1, 8, 0, 0)], list_identifier=7, immediate=True)
    raw = ended(manager, 7)
    assert (raw[5], raw[12]) == (0x02, 0x02)  # with errors, CHECK CONDITION
    length = raw[14]
    assert raw[13] % 4 == 0
    assert raw[13] >= length
    sense = raw[32 : 32 + length]
    assert (sense[2], sense[12:14]) == (0x0A, b"\x0d\x01")
    assert sense[sense[8] :] == b"\x02" + drives_sense
    # Failure details are those of LID1 copies.
    assert refusal(manager.receive_copy_results, "a", FAILURE, 7, EVER) == INVALID_FIELD_IN_CDB


@pytest.mark.parametrize("immediate", [True, False])
def test_abort_ends_a_copy_between_its_commands(immediate: bool) -> None:
    disk, destination = SlowDisk(noise(1 << 20)), FakeDisk(bytes(1 << 20))
    disk.most = destination.most = 8
    manager = CopyManager(ModelFabric(disk, destination))
    errors: list[CheckCondition] = []

    def begin() -> None:
        try:
            copy(manager, [BlockToBlock(0, 1, 2048, 0, 0)], list_identifier=7, immediate=immediate)
        except CheckCondition as error:
            errors.append(error)

    threads = [threading.Thread(target=begin)]
    threads[0].start()
    assert disk.reached.wait(20)
    threads.append(
        threading.Thread(target=manager.copy_operation_abort, args=("a", 7, lambda: False))
    )
    threads[1].start()
    time.sleep(0.1)
    disk.leave.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    raw = manager.receive_copy_results("a", STATUS4, 7, EVER)
    assert (raw[5], raw[12], raw[13], raw[14]) == (0x60, 0x40, 0, 0)
    assert not any(destination.data[len(destination.data) // 2 :])
    if immediate:
        assert not errors
    else:
        sense = errors[0].sense.pack()
        assert (sense[2], sense[12:14]) == (0x0A, b"\x2f\x02")


def test_abort_of_no_copy_is_refused() -> None:
    manager = CopyManager(ModelFabric(FakeDisk(noise(4096)), FakeDisk(bytes(4096))))
    copy(manager, [], list_identifier=7)
    for identifier in (7, 8):
        abort = manager.copy_operation_abort
        assert refusal(abort, "a", identifier, lambda: False) == INVALID_FIELD_IN_CDB


def test_no_more_copies_at_once_than_promised() -> None:
    """In the background too: none is begun that could not be told of."""
    disk = SlowDisk(noise(4096))
    manager = CopyManager(ModelFabric(disk, FakeDisk(bytes(4096))))
    for identifier in range(64):
        copy(manager, [BlockToBlock(0, 1, 8, 0, 0)], list_identifier=identifier, immediate=True)
    assert refusal(copy, manager, [], list_identifier=64) == (5, 0x5503)
    disk.leave.set()
    assert ended(manager, 7)[5] == 0x01
    copy(manager, [], list_identifier=64)  # whoever hears of an end finds the place free
    for identifier in range(64):
        assert ended(manager, identifier)[5] == 0x01


def test_a_system_without_threads_takes_no_copy_in_the_background(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = replace(LIMITS, total_concurrent_copies=1, maximum_concurrent_copies=1)
    devices = FakeDisk(noise(4096)), FakeDisk(bytes(4096))
    manager = CopyManager(ModelFabric(*devices), limits=limits)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    segments = [BlockToBlock(0, 1, 8, 0, 0)]
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            refused = refusal(copy, manager, segments, list_identifier=7, immediate=True)
            assert refused == (5, 0x5503)
    copy(manager, segments, list_identifier=7)
    assert devices[1].data == devices[0].data


def test_nexus_loss_takes_the_results_and_leaves_the_copy() -> None:
    disk, destination = SlowDisk(noise(4096)), FakeDisk(bytes(4096))
    manager = CopyManager(ModelFabric(disk, destination))
    copy(manager, [BlockToBlock(0, 1, 8, 0, 0)], list_identifier=7, immediate=True)
    assert disk.reached.wait(20)
    manager.forget("a")
    status = manager.receive_copy_results
    assert refusal(status, "a", STATUS4, 7, EVER) == INVALID_FIELD_IN_CDB
    disk.leave.set()
    deadline = time.monotonic() + 20
    while destination.data != disk.data:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_reset_ends_a_copy_in_the_background() -> None:
    """And it is over when the reset is: nothing is written behind the back of who asked for it."""
    disk, destination = SlowDisk(noise(1 << 20)), FakeDisk(bytes(1 << 20))
    disk.most = destination.most = 8
    manager = CopyManager(ModelFabric(disk, destination))
    copy(manager, [BlockToBlock(0, 1, 2048, 0, 0)], list_identifier=7, immediate=True)
    assert disk.reached.wait(20)
    leave = threading.Timer(0.1, disk.leave.set)
    leave.start()
    manager.reset()
    assert disk.closed, "the copy has let go of its units"
    assert not any(destination.data[1 << 19 :])


def test_reset_does_not_wait_for_units_that_do_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serverfree.datamover.manager._RESET_SECONDS", 0.05)
    disk = SlowDisk(noise(4096))
    manager = CopyManager(ModelFabric(disk, FakeDisk(bytes(4096))))
    copy(manager, [BlockToBlock(0, 1, 8, 0, 0)], list_identifier=7, immediate=True)
    assert disk.reached.wait(20)
    manager.reset()
    assert not disk.closed
    disk.leave.set()
    deadline = time.monotonic() + 20
    while not disk.closed:
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---------------------------------------------------------------------- held data


def test_held_data_is_what_was_processed_and_goes_once_fetched() -> None:
    disk, other, tape = FakeDisk(noise(4096)), FakeDisk(bytes(4096)), FakeTape([noise(100, 5)])
    out = FakeTape()
    manager = CopyManager(ModelFabric(disk, other, tape, out))
    cscds = [cscd(0, disk), cscd(1, other), cscd(2, tape, pad=True), cscd(3, out)]
    segments = [
        BlockToStreamHold(0, 3, 512, 1, 1),
        BlockToBlock(0, 1, 8, 0, 0),
        StreamToDiscardHold(2, 100, 30),
        BlockToBlockHold(0, 1, 2, 6, 0),
    ]
    manager.extended_copy("a", CopyList(cscds, segments, b"", 9).pack(), lambda: False)
    held = disk.data[512:1024] + noise(100, 5)[:30] + disk.data[3072:4096]
    raw = manager.receive_copy_results("a", DATA, 9, 100)  # not all of it: it stays
    assert raw == len(held).to_bytes(4, "big") + held
    assert manager.receive_copy_results("a", STATUS, 9, EVER)[4] == 0x01
    assert manager.receive_copy_results("a", DATA, 9, EVER) == raw
    assert refusal(manager.receive_copy_results, "a", DATA, 9, EVER) == INVALID_FIELD_IN_CDB


def test_held_data_of_lid4_lies_behind_the_status() -> None:
    disk = FakeDisk(noise(4096))
    manager = CopyManager(ModelFabric(disk, FakeDisk(bytes(4096))))
    copy(manager, [BlockToBlockHold(0, 1, 1, 3, 0)], list_identifier=1 << 30)
    raw = manager.receive_copy_results("a", DATA4, 1 << 30, EVER)
    assert int.from_bytes(raw[:4], "big") == len(raw) - 4
    assert raw[4:6] == b"\x01\x01"
    assert raw[32:36] == (512).to_bytes(4, "big")
    assert raw[36:] == disk.data[3 * 512 : 4 * 512]
    again = manager.receive_copy_results("a", DATA4, 1 << 30, EVER)
    assert again[32:] == bytes(4)


def test_what_a_failed_copy_has_held_is_not_told_and_can_be_declined() -> None:
    disk = FakeDisk(noise(4096))
    for nth in (1, 3):
        disk.fail(READ_16, nth, check_condition(sense_bytes(3, 0x1100)))
    manager = CopyManager(ModelFabric(disk, FakeDisk(bytes(4096))))
    segments = [BlockToBlockHold(0, 1, 1, 3, 0), BlockToBlock(0, 1, 1, 0, 1)]
    assert refusal(copy, manager, segments, list_identifier=9)[0] == 0x0A
    assert manager.receive_copy_results("a", DATA4, 9, EVER)[-4:] == bytes(4)
    held = manager.receive_copy_results("a", DATA, 9, 0)  # 5.17.4.5 b: LID1 tells it, once
    assert held[4:] == disk.data[3 * 512 : 4 * 512]
    assert manager.receive_copy_results("a", DATA, 9, EVER) == bytes(4)
    assert refusal(copy, manager, segments, list_identifier=9)[0] == 0x0A
    manager.receive_copy_results("a", DATA4, 9, 0)
    assert manager.receive_copy_results("a", DATA, 9, EVER) == bytes(4)


def test_more_than_the_limit_keeps_the_latest_and_says_so() -> None:
    disk, other = FakeDisk(noise(3 << 20)), FakeDisk(bytes(3 << 20))
    manager = CopyManager(ModelFabric(disk, other))
    manager.extended_copy(
        "a",
        CopyList(CSCDS, [BlockToBlockHold(0, 1, 5001, 0, 0)], b"", 9).pack(),
        lambda: False,
    )
    raw = manager.receive_copy_results("a", DATA, 9, EVER)
    assert raw[4:] == disk.data[5001 * 512 - (1 << 20) : 5001 * 512]
    assert manager.receive_copy_results("a", STATUS, 9, EVER)[4] == 0x81


def test_copy_upwards_within_a_disk_holds_in_order() -> None:
    disk = FakeDisk(noise(64 * 512))
    disk.most = 4
    original = bytes(disk.data)
    manager = CopyManager(ModelFabric(disk))
    copy_list = CopyList(CSCDS[:1], [BlockToBlockHold(0, 0, 30, 1, 4)], b"", 9)
    manager.extended_copy("a", copy_list.pack(), lambda: False)
    assert disk.data[4 * 512 : 34 * 512] == original[512 : 31 * 512]
    assert manager.receive_copy_results("a", DATA, 9, EVER)[4:] == original[512 : 31 * 512]


def test_holding_needs_an_identifier() -> None:
    manager = CopyManager(ModelFabric(FakeDisk(noise(4096)), FakeDisk(bytes(4096))))
    hold = [BlockToBlockHold(0, 1, 1, 3, 0)]
    usage = ListIdUsage.NO_IDENTIFIER
    assert refusal(copy, manager, hold, list_id_usage=usage) == INVALID_FIELD
    assert refusal(copy, manager, hold, list_id_usage=usage, lid4=False) == INVALID_FIELD


def test_data_of_a_copy_that_goes_on_is_refused_to_lid1() -> None:
    disk = SlowDisk(noise(4096))
    manager = CopyManager(ModelFabric(disk, FakeDisk(bytes(4096))))
    copy(manager, [BlockToBlockHold(0, 1, 8, 0, 0)], list_identifier=7, immediate=True)
    assert disk.reached.wait(20)
    assert refusal(manager.receive_copy_results, "a", DATA, 7, EVER) == INVALID_FIELD_IN_CDB
    assert manager.receive_copy_results("a", DATA4, 7, EVER)[32:] == bytes(4)
    disk.leave.set()
    ended(manager, 7)


def test_held_memory_is_bounded_by_dropping_the_oldest() -> None:
    disk, other = FakeDisk(noise(1 << 20)), FakeDisk(bytes(1 << 20))
    manager = CopyManager(ModelFabric(disk, other))
    for identifier in range(20):
        copy(manager, [BlockToBlockHold(0, 1, 2048, 0, 0)], list_identifier=identifier)
    assert manager.receive_copy_results("a", DATA4, 0, 1)[32:36] == bytes(4)
    assert manager.receive_copy_results("a", DATA4, 0, 1)[5] == 0x81
    assert manager.receive_copy_results("a", DATA4, 19, 1)[32:36] == bytes.fromhex("00100000")


def test_pieces_larger_and_smaller_than_the_limit() -> None:
    held = HeldData(10)
    held.add(b"abc")
    assert (held.bytes(), held.discarded) == (b"abc", False)
    held.add(b"defghijk")
    assert (held.bytes(), held.discarded, held.length) == (b"bcdefghijk", True, 10)
    held.add(b"0123456789ABC")
    assert held.bytes() == b"3456789ABC"
