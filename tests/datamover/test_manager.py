"""The copy manager's memory of copies: list identifiers, status, failure details (SPC-4 5.17.4)."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from serverfree.datamover.buffers import BufferPool
from serverfree.datamover.errors import UnitUnreachable
from serverfree.datamover.manager import LIMITS, CopyManager
from serverfree.scsi.copy_cscd import BlockParameters, IdentificationCscd
from serverfree.scsi.copy_list import CopyList, ListIdUsage
from serverfree.scsi.copy_segments import BlockToBlock
from serverfree.scsi.designator import Designator, DesignatorType
from serverfree.scsi.device import Result
from serverfree.scsi.errors import CheckCondition
from support.fake_devices import READ_16, FakeDisk, check_condition, sense_bytes

STATUS, PARAMETERS, FAILURE = 0, 3, 4
EVER = 1 << 20
INVALID_FIELD_IN_CDB = (5, 0x2400)


class SlowDisk(FakeDisk):
    """A disk whose reads wait for leave."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.reached = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)

    def transfer(self, cdb: bytes, out: bytes, into: memoryview | None) -> Result:
        if cdb[0] == READ_16:
            self.reached.release()
            assert self.leave.acquire(timeout=20)
        return super().transfer(cdb, out, into)


def named(number: int) -> Designator:
    return Designator(DesignatorType.NAA, bytes([0x30, 0, 0, 0, 0, 0, 0, number]))


class Units:
    """A new model disk at each opening: copies do not share one."""

    def __init__(self, make: Callable[[int], FakeDisk]) -> None:
        self.make = make
        self.opened: list[FakeDisk] = []

    def open(self, designator: Designator, nexus: object = None) -> FakeDisk:
        if designator.identifier[-1] > 1:
            raise UnitUnreachable(str(designator))
        self.opened.append(self.make(designator.identifier[-1]))
        return self.opened[-1]


def plain(number: int) -> FakeDisk:
    return FakeDisk(bytes(8192))


def broken(number: int) -> FakeDisk:
    disk = FakeDisk(bytes(8192))
    disk.fail(READ_16, 0, check_condition(sense_bytes(3, 0x1100)))
    return disk


CSCDS = [IdentificationCscd(named(number), BlockParameters(512), 0) for number in (0, 1)]


def parameter_list(
    identifier: int = 1, usage: ListIdUsage = ListIdUsage.HOLD, segments: int = 1
) -> bytes:
    moves = [BlockToBlock(0, 1, 4, 4 * number, 4 * number) for number in range(segments)]
    return CopyList(CSCDS, moves, b"", identifier, usage).pack()


def run(manager: CopyManager, nexus: str = "a", **options) -> None:
    manager.extended_copy(nexus, parameter_list(**options), lambda: False)


def refusal(call: Callable[..., object], *arguments, **options) -> tuple[int, int]:
    with pytest.raises(CheckCondition) as caught:
        call(*arguments, **options)
    raw = caught.value.sense.pack()
    return raw[2] & 0x0F, int.from_bytes(raw[12:14], "big")


class Background:
    """A copy that is under way while the test looks at it."""

    def __init__(self, manager: CopyManager, disk: SlowDisk, nexus: str, **options) -> None:
        self.disk = disk
        self.error: BaseException | None = None
        self.stop = False

        def work() -> None:
            try:
                manager.extended_copy(nexus, parameter_list(**options), lambda: self.stop)
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=work)
        self.thread.start()

    def finish(self) -> None:
        for _ in range(100):
            self.disk.leave.release()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def slow() -> Iterator[Callable[..., tuple[CopyManager, Callable[..., Background]]]]:
    """A manager over a slow source disk, and how to begin a copy and wait until it reads."""
    begun: list[Background] = []

    def make(**settings) -> tuple[CopyManager, Callable[..., Background]]:
        disk = SlowDisk(bytes(8192))
        manager = CopyManager(Units(lambda number: plain(1) if number else disk), **settings)

        def begin(nexus: str = "a", **options) -> Background:
            background = Background(manager, disk, nexus, **options)
            begun.append(background)
            assert disk.reached.acquire(timeout=20)
            return background

        return manager, begin

    yield make
    for background in begun:
        background.stop = True
        background.finish()


# ---------------------------------------------------------------------- status


def test_status_of_a_copy_that_is_done_is_told_once() -> None:
    manager = CopyManager(Units(plain))
    run(manager, identifier=7, segments=2)
    response = manager.receive_copy_results("a", STATUS, 7, 12)
    assert response == bytes.fromhex("00000008 01 0002 00 00001000")
    assert refusal(manager.receive_copy_results, "a", STATUS, 7, 12) == INVALID_FIELD_IN_CDB


def test_status_under_way_counts_the_segment_and_the_bytes(slow) -> None:
    manager, begin = slow()
    background = begin(identifier=9, segments=2)
    for _ in range(3):  # polls do not use it up
        response = manager.receive_copy_results("a", STATUS, 9, 12)
        assert response == bytes.fromhex("00000008 00 0001 00 00000000")
    background.finish()
    assert background.error is None
    response = manager.receive_copy_results("a", STATUS, 9, 12)
    assert response == bytes.fromhex("00000008 01 0002 00 00001000")


def test_unknown_identifier() -> None:
    manager = CopyManager(Units(plain))
    for action in (STATUS, FAILURE):
        assert refusal(manager.receive_copy_results, "a", action, 1, EVER) == INVALID_FIELD_IN_CDB


def test_identifiers_belong_to_their_nexus() -> None:
    manager = CopyManager(Units(plain))
    run(manager, "a", identifier=3)
    assert refusal(manager.receive_copy_results, "b", STATUS, 3, EVER) == INVALID_FIELD_IN_CDB
    assert manager.receive_copy_results("a", STATUS, 3, EVER)


def test_usage_11b_leaves_nothing_behind() -> None:
    manager = CopyManager(Units(plain))
    run(manager, identifier=0, usage=ListIdUsage.NO_IDENTIFIER)
    assert refusal(manager.receive_copy_results, "a", STATUS, 0, EVER) == INVALID_FIELD_IN_CDB


# ---------------------------------------------------------------------- failure details


def failed(manager: CopyManager, **options) -> bytes:
    with pytest.raises(CheckCondition) as caught:
        run(manager, **options)
    return caught.value.sense.pack()


@pytest.mark.parametrize("usage", [ListIdUsage.HOLD, ListIdUsage.DISCARD])
def test_failure_details_hold_the_sense_of_the_copy(usage: ListIdUsage) -> None:
    manager = CopyManager(Units(broken))
    sense = failed(manager, identifier=5, usage=usage)
    details = manager.receive_copy_results("a", FAILURE, 5, EVER)
    assert int.from_bytes(details[:4], "big") == len(details) - 4
    assert details[4:56] == bytes(52)
    assert details[56] == 0x02
    assert int.from_bytes(details[58:60], "big") == len(sense)
    assert details[60:] == sense
    assert manager.receive_copy_results("a", STATUS, 5, 12)[4] == 2


def test_failure_details_stay_until_they_are_fetched_whole() -> None:
    manager = CopyManager(Units(broken))
    failed(manager, identifier=5)
    first = manager.receive_copy_results("a", FAILURE, 5, 4)
    assert manager.receive_copy_results("a", FAILURE, 5, len(first)) == first
    assert manager.receive_copy_results("a", FAILURE, 5, EVER) == bytes(4)
    assert manager.receive_copy_results("a", STATUS, 5, EVER)[4] == 2
    assert refusal(manager.receive_copy_results, "a", FAILURE, 5, EVER) == INVALID_FIELD_IN_CDB


def test_allocation_length_zero_declines_failure_details() -> None:
    manager = CopyManager(Units(broken))
    failed(manager, identifier=5)
    manager.receive_copy_results("a", FAILURE, 5, 0)
    assert manager.receive_copy_results("a", FAILURE, 5, EVER) == bytes(4)


def test_failure_details_outlive_the_status() -> None:
    manager = CopyManager(Units(broken))
    failed(manager, identifier=5)
    manager.receive_copy_results("a", STATUS, 5, EVER)
    assert len(manager.receive_copy_results("a", FAILURE, 5, EVER)) > 60


def test_no_failure_details_of_a_copy_that_went_well_or_goes_on(slow) -> None:
    manager, begin = slow()
    background = begin(identifier=5)
    assert refusal(manager.receive_copy_results, "a", FAILURE, 5, EVER) == INVALID_FIELD_IN_CDB
    background.finish()
    assert manager.receive_copy_results("a", FAILURE, 5, EVER) == bytes(4)


def test_using_an_identifier_again_drops_what_was_kept_under_it() -> None:
    units = Units(broken)
    manager = CopyManager(units)
    failed(manager, identifier=5)
    units.make = plain
    run(manager, identifier=5)
    assert manager.receive_copy_results("a", FAILURE, 5, EVER) == bytes(4)
    assert manager.receive_copy_results("a", STATUS, 5, EVER)[4] == 1


def test_malformed_list_leaves_what_is_kept_alone() -> None:
    manager = CopyManager(Units(plain))
    run(manager, identifier=5)
    data = parameter_list(identifier=5)[:-1]
    assert refusal(manager.extended_copy, "a", data, lambda: False) == (5, 0x1A00)
    assert manager.receive_copy_results("a", STATUS, 5, EVER)[4] == 1


# ---------------------------------------------------------------------- identifiers in use


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ListIdUsage.HOLD, ListIdUsage.HOLD),
        (ListIdUsage.HOLD, ListIdUsage.DISCARD),
        (ListIdUsage.DISCARD, ListIdUsage.HOLD),
    ],
)
def test_identifier_in_use_is_refused(slow, first: ListIdUsage, second: ListIdUsage) -> None:
    manager, begin = slow()
    begin(identifier=1, usage=first)
    assert refusal(run, manager, identifier=1, usage=second) == (5, 0x0016)
    assert manager.receive_copy_results("a", STATUS, 1, EVER)[4] == 0


def test_identifier_in_use_by_another_nexus_is_free(slow) -> None:
    _, begin = slow()
    begin("a", identifier=1)
    begin("b", identifier=1)


def test_many_copies_under_one_identifier_with_usage_10b(slow) -> None:
    _, begin = slow()
    for _ in range(3):
        begin(identifier=1, usage=ListIdUsage.DISCARD)


def test_strict_manager_refuses_that_as_the_standard_says(slow) -> None:
    manager, begin = slow(tolerate_duplicate_identifiers=False)
    begin(identifier=1, usage=ListIdUsage.DISCARD)
    refused = refusal(run, manager, identifier=1, usage=ListIdUsage.DISCARD)
    assert refused == (5, 0x0016)


def test_identifier_is_free_again_when_its_copy_has_ended() -> None:
    manager = CopyManager(Units(plain))
    for _ in range(3):
        run(manager, identifier=1)


def test_more_copies_than_the_manager_runs_at_once(slow) -> None:
    limits = replace(LIMITS, maximum_concurrent_copies=1, total_concurrent_copies=2)
    manager, begin = slow(limits=limits)
    first = begin(identifier=1)
    assert refusal(run, manager, identifier=2) == (5, 0x5503)
    begin("a", identifier=0, usage=ListIdUsage.NO_IDENTIFIER)
    refused = refusal(run, manager, identifier=0, usage=ListIdUsage.NO_IDENTIFIER)
    assert refused == (5, 0x5503)
    first.finish()
    manager.receive_copy_results("a", PARAMETERS, 0, EVER)


# ---------------------------------------------------------------------- events


def test_nexus_loss_drops_results_and_lets_copies_go_on(slow) -> None:
    manager, begin = slow()
    background = begin(identifier=1)
    manager.forget("a")
    assert refusal(manager.receive_copy_results, "a", STATUS, 1, EVER) == INVALID_FIELD_IN_CDB
    background.finish()
    assert background.error is None
    assert refusal(manager.receive_copy_results, "a", STATUS, 1, EVER) == INVALID_FIELD_IN_CDB


def test_reset_ends_copies_and_drops_results(slow) -> None:
    manager, begin = slow()
    background = begin(identifier=1, segments=4)
    manager.reset()
    background.finish()
    assert isinstance(background.error, CheckCondition)
    raw = background.error.sense.pack()
    assert (raw[2] & 0x0F, raw[12], raw[13]) == (0x0A, 0x2F, 0x02)
    assert refusal(manager.receive_copy_results, "a", STATUS, 1, EVER) == INVALID_FIELD_IN_CDB


def test_copy_waits_for_memory_and_can_be_aborted_while_it_does(slow) -> None:
    manager, begin = slow(pool=BufferPool(1 << 20))
    begin(identifier=1)
    asked = iter([False, False, True, True, True, True])
    data = parameter_list(identifier=2)
    refused = refusal(manager.extended_copy, "a", data, lambda: next(asked))
    assert refused == (0x0A, 0x2F02)


def test_copies_take_turns_where_memory_is_short(slow) -> None:
    manager, begin = slow(pool=BufferPool(1 << 20))
    first = begin(identifier=1)
    second = Background(manager, first.disk, "b", identifier=1)
    assert manager.receive_copy_results("a", STATUS, 1, EVER)[4] == 0
    first.finish()
    second.finish()
    assert (first.error, second.error) == (None, None)


def test_fault_of_our_own_does_not_leave_a_copy_under_way_for_ever() -> None:
    def explode(number: int) -> FakeDisk:
        raise RuntimeError("a bug")

    units = Units(explode)
    manager = CopyManager(units)
    with pytest.raises(RuntimeError):
        run(manager, identifier=1)
    assert manager.receive_copy_results("a", STATUS, 1, EVER)[4] == 2
    units.make = plain
    run(manager, identifier=1)


def test_every_unit_is_handed_back() -> None:
    units = Units(plain)
    run(CopyManager(units))
    assert [disk.closed for disk in units.opened] == [[False], [False]]


# ---------------------------------------------------------------------- what it says of itself


def test_operating_parameters_and_page_agree() -> None:
    manager = CopyManager(Units(plain), own_unit=named(0))
    raw = manager.receive_copy_results("a", PARAMETERS, 0, EVER)
    page = manager.vpd_page()
    assert raw[4] == 1  # SNLID
    assert raw[8:10] == b"\x00\x40"  # CSCDs
    assert raw[10:12] == b"\x40\x00"  # segments
    assert raw[12:16] == b"\x00\x40\x00\x00"  # descriptors
    assert raw[16:20] == b"\xff\xff\xff\xff"  # a segment: 0 would mean no limit, but not to all
    assert raw[20:24] == b"\x00\x10\x00\x00"  # inline
    assert raw[28:32] == b"\x01\x00\x00\x00"  # stream transfer
    assert raw[37:40] == bytes(3)  # granularity of one byte
    codes = raw[44:]
    assert raw[43] == len(codes)
    assert list(codes) == [*range(0x17), 0xC0, 0xC1, 0xE4]
    assert page[1] == 0x8F
    assert bytes([len(codes)]) + codes in page
    assert raw[8:16] + raw[20:24] in page
    assert bytes.fromhex("0001 0010 0d 83 03 00 01 1c 84 06 00 01 03 04 05 06 0000") in page
    assert bytes.fromhex("000c 0008 0006 c000 c001 ffff") in page
    assert bytes.fromhex("c001 001c 00100000 00") in page
    assert raw[24:28] == bytes.fromhex("00100000")  # held data


def test_lists_at_the_limits_fit_within_the_longest_descriptor_list() -> None:
    """libiscsi ExtendedCopy.DescrLimits needs room for one descriptor more than is allowed."""
    assert LIMITS.maximum_descriptor_list_length >= 32 * (LIMITS.maximum_cscd_count + 1) + 28
    assert LIMITS.maximum_descriptor_list_length >= 32 + 28 * (LIMITS.maximum_segment_count + 1)


def test_list_without_segments_does_nothing() -> None:
    units = Units(plain)
    CopyManager(units).extended_copy("a", CopyList().pack(), lambda: False)
    assert units.opened == []
