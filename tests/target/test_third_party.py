"""A copy manager behind a unit's gate: commands 83h and 84h, the standalone mover, local copies."""

from collections.abc import Callable, Hashable, Iterator
from pathlib import Path

import pytest

from serverfree.datamover.manager import CopyManager
from serverfree.scsi.copy_cscd import BlockParameters, IdentificationCscd, StreamParameters
from serverfree.scsi.copy_list import THIS_UNIT, CopyList
from serverfree.scsi.copy_segments import (
    BlockToBlock,
    BlockToStream,
    Locate,
    Segment,
    StreamToBlock,
    WriteFilemarks,
)
from serverfree.scsi.errors import illegal_request
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.scsi.status import Status
from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.backstore.file import open_file_store
from serverfree.target.units.base import Unit
from serverfree.target.units.block import BlockUnit
from serverfree.target.units.command import Command, Lane, Nexus, Reply
from serverfree.target.units.controller import CopyController
from serverfree.target.units.local_fabric import LocalFabric
from serverfree.target.units.stream import StreamUnit

NEXUS = Nexus("initiator", "target")
EXTENDED_COPY = "83 00 0000000000000000 {:08x} 00 00"
COPY_STATUS = "84 00 {:02x} 00000000000000 {:08x} 00 00"
PARAMETERS = "84 03 0000000000000000 {:08x} 00 00"
FAILURE_DETAILS = "84 04 {:02x} 00000000000000 {:08x} 00 00"


class Recorder:
    """A copy manager that says what it is told."""

    maximum_parameter_list_length = 1000
    has_aliases = True
    makes_tokens = knows_tokens = False

    def change_aliases(self, nexus: Hashable, parameter_list: bytes) -> None:
        self.calls.append(("aliases", nexus, bytes(parameter_list)))

    def report_aliases(self, nexus: Hashable) -> bytes:
        return bytes(range(60))

    def __init__(self) -> None:
        self.calls: list[tuple] = []
        self.error: Exception | None = None
        self.good_with: Sense | None = None

    def extended_copy(
        self,
        nexus: Hashable,
        parameter_list: bytes,
        aborted: Callable[[], bool],
        *,
        lid4: bool = False,
    ) -> Sense | None:
        self.calls.append((nexus, bytes(parameter_list), aborted(), lid4))
        if self.error is not None:
            raise self.error
        return self.good_with

    def copy_operation_abort(
        self, nexus: Hashable, identifier: int, aborted: Callable[[], bool]
    ) -> None:
        self.calls.append(("abort", nexus, identifier, aborted()))

    def receive_copy_results(
        self, nexus: Hashable, service_action: int, identifier: int, allocation_length: int
    ) -> bytes:
        self.calls.append((nexus, service_action, identifier, allocation_length))
        return bytes(range(60))

    def vpd_page(self) -> bytes:
        return bytes([0, 0x8F, 0, 4, 1, 2, 3, 4])

    def forget(self, nexus: Hashable) -> None:
        self.calls.append(("forget", nexus))

    def reset(self) -> None:
        self.calls.append(("reset",))


def run(unit: Unit, cdb: str, data_out: bytes = b"", *, aborted: bool = False) -> Reply:
    command = Command(NEXUS, bytes.fromhex(cdb), data_out, 1 << 20)
    command.aborted = aborted
    return unit.execute(command)


def sense(reply: Reply) -> tuple[int, int]:
    assert reply.status is Status.CHECK_CONDITION
    assert reply.sense is not None
    raw = reply.sense.pack()
    return raw[2] & 0x0F, int.from_bytes(raw[12:14], "big")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def controller(recorder: Recorder) -> CopyController:
    return CopyController("mover", recorder, target="iqn.2026-11.com.example:datamover")


def test_extended_copy_hands_on_nexus_list_and_abort(controller, recorder) -> None:
    reply = run(controller, EXTENDED_COPY.format(5), b"abcde", aborted=True)
    assert reply.status is Status.GOOD
    assert recorder.calls == [(NEXUS, b"abcde", True, False)]


def test_lid4_is_told_apart_and_its_sense_goes_with_good(controller, recorder) -> None:
    recorder.good_with = Sense(
        SenseKey.COMPLETED, Asc.EXTENDED_COPY_INFORMATION_AVAILABLE, command_specific=3
    )
    reply = run(controller, "83 01 0000000000000000 00000005 00 00", b"abcde")
    assert reply.status is Status.GOOD
    assert recorder.calls == [(NEXUS, b"abcde", False, True)]
    raw = reply.sense.pack()
    assert (raw[2], raw[8:12], raw[12:14]) == (0x0F, b"\0\0\0\3", b"\x00\x20")


def test_abort_names_its_copy(controller, recorder) -> None:
    cdb = "83 1c 01020304 00000000 00000000 00 00"
    assert run(controller, cdb).status is Status.GOOD
    assert recorder.calls == [("abort", NEXUS, 0x01020304, False)]
    assert controller.lane(bytes.fromhex(cdb)) is Lane.DETACHED  # it waits


def test_aliases_are_handed_on(controller, recorder) -> None:
    cdb = "a4 0b 00000000 00000003 00 00"
    assert controller.data_out_length(bytes.fromhex(cdb)) == 3
    assert run(controller, cdb, b"abcd").status is Status.GOOD
    assert recorder.calls == [("aliases", NEXUS, b"abc")]
    reply = run(controller, "a3 0b 00000000 00000005 00 00")
    assert bytes(reply.data) == bytes(range(5))
    recorder.has_aliases = False
    other = CopyController("other", recorder)
    assert sense(run(other, cdb, b"abc")) in ((5, 0x2000), (5, 0x2400))


def test_parameter_list_that_came_short_is_not_made_longer(controller, recorder) -> None:
    run(controller, EXTENDED_COPY.format(20), b"abc")
    assert recorder.calls == [(NEXUS, b"abc", False, False)]


def test_data_beyond_the_parameter_list_is_cut(controller, recorder) -> None:
    run(controller, EXTENDED_COPY.format(2), b"abc")
    assert recorder.calls == [(NEXUS, b"ab", False, False)]


def test_no_parameter_list_does_nothing(controller, recorder) -> None:
    assert run(controller, EXTENDED_COPY.format(0)).status is Status.GOOD
    assert recorder.calls == []


def test_longer_list_than_can_be_right_is_refused_without_asking_for_it(
    controller, recorder
) -> None:
    cdb = EXTENDED_COPY.format(1001)
    assert controller.data_out_length(bytes.fromhex(cdb)) == 0
    assert sense(run(controller, cdb)) == (5, 0x1A00)
    assert recorder.calls == []
    assert controller.data_out_length(bytes.fromhex(EXTENDED_COPY.format(1000))) == 1000


def test_copy_runs_beside_other_commands_and_results_at_once(controller) -> None:
    assert controller.lane(bytes.fromhex(EXTENDED_COPY.format(5))) is Lane.DETACHED
    assert controller.lane(bytes.fromhex(COPY_STATUS.format(1, 12))) is Lane.INLINE


def test_error_of_the_manager_is_the_sense_of_the_command(controller, recorder) -> None:
    recorder.error = illegal_request(Asc.TOO_MANY_TARGET_DESCRIPTORS)
    assert sense(run(controller, EXTENDED_COPY.format(5), b"abcde")) == (5, 0x2606)


@pytest.mark.parametrize(
    ("cdb", "call"),
    [
        (COPY_STATUS.format(0x77, 12), (NEXUS, 0, 0x77, 12)),
        (PARAMETERS.format(12), (NEXUS, 3, 0, 12)),
        (FAILURE_DETAILS.format(0x77, 12), (NEXUS, 4, 0x77, 12)),
        ("84 01 77 00000000000000 0000000c 00 00", (NEXUS, 1, 0x77, 12)),
        ("84 05 01020304 00000000 0000000c 00 00", (NEXUS, 5, 0x01020304, 12)),
        ("84 06 01020304 00000000 0000000c 00 00", (NEXUS, 6, 0x01020304, 12)),
    ],
)
def test_results_are_cut_to_the_allocation_length(controller, recorder, cdb, call) -> None:
    assert bytes(run(controller, cdb).data) == bytes(range(12))
    assert recorder.calls == [call]


@pytest.mark.parametrize(
    "cdb",
    [
        "83 02 0000000000000000 00000010 00 00",
        "83 1f 0000000000000000 00000010 00 00",
        "84 02 0000000000000000 00000010 00 00",
        "84 1f 0000000000000000 00000010 00 00",
    ],
)
def test_service_action_that_is_not_there(controller, recorder, cdb) -> None:
    assert sense(run(controller, cdb)) == (5, 0x2400)
    assert recorder.calls == []


@pytest.mark.parametrize(
    "cdb",
    [
        "83 20 0000000000000000 00000005 00 00",
        "83 00 0100000000000000 00000005 00 00",
        "83 00 0000000000000000 00000005 01 00",
        "84 03 0100000000000000 00000010 00 00",
        "84 00 0101000000000000 00000010 00 00",
    ],
)
def test_reserved_bits_are_refused(controller, recorder, cdb) -> None:
    assert sense(run(controller, cdb, b"abcde")) == (5, 0x2400)
    assert recorder.calls == []


def test_standalone_mover_is_a_processor_with_third_party_copy(controller) -> None:
    inquiry = bytes(run(controller, "12 00 00 00 60 00").data)
    assert inquiry[0] == 0x03
    assert inquiry[5] & 0x08, "3PC (SPC-4 6.6.2)"
    pages = bytes(run(controller, "12 01 00 00 ff 00").data)
    assert list(pages[4 : 4 + pages[3]]) == [0x00, 0x80, 0x83, 0x8F]
    page = bytes(run(controller, "12 01 8f 00 ff 00").data)
    assert page == bytes([0x03, 0x8F, 0, 4, 1, 2, 3, 4])
    assert run(controller, "00 00 00 00 00 00").status is Status.GOOD
    assert sense(run(controller, "25 00 00000000 0000 00 00")) == (5, 0x2000)


def test_supported_operation_codes_list_the_commands_of_the_manager(controller) -> None:
    data = bytes(run(controller, "a3 0c 00 00 0000 00001000 00 00").data)
    codes = {
        (data[at], int.from_bytes(data[at + 2 : at + 4], "big")) for at in range(4, len(data), 8)
    }
    assert {(0x83, 0), (0x84, 0), (0x84, 3), (0x84, 4)} <= codes


def test_unit_without_a_manager_knows_none_of_it(tmp_path: Path) -> None:
    disk = BlockUnit("d", open_file_store(tmp_path / "d", size=1 << 20), target="t")
    assert sense(run(disk, EXTENDED_COPY.format(0))) == (5, 0x2000)
    inquiry = bytes(run(disk, "12 00 00 00 60 00").data)
    assert not inquiry[5] & 0x08
    assert 0x8F not in bytes(run(disk, "12 01 00 00 ff 00").data)[4:]
    disk.close()


def test_manager_hears_of_resets_and_lost_nexuses(controller, recorder) -> None:
    controller.attach(NEXUS)
    controller.reset()
    controller.detach(NEXUS)
    assert recorder.calls == [("reset",), ("forget", NEXUS)]


# ---------------------------------------------------------------------- copies among own units


class Array:
    """Two disks and a tape of one target, each with a copy manager of its own."""

    def __init__(self, folder: Path) -> None:
        name = "iqn.2026-11.com.example:storage"
        self.content = bytes(range(256)) * 8192
        (folder / "a.img").write_bytes(self.content)
        self.a = BlockUnit("a", open_file_store(folder / "a.img"), target=name)
        self.b = BlockUnit(
            "b", open_file_store(folder / "b.img", size=2 << 20), block_size=4096, target=name
        )
        self.tape = StreamUnit("t", open_cartridge(folder / "t", capacity=64 << 20), target=name)
        self.units: list[Unit] = [self.a, self.b, self.tape]
        for unit in self.units:
            fabric = LocalFabric(name, lambda: self.units)
            unit.copy_manager = CopyManager(fabric, own_unit=unit.designator)
        self.cscds = [
            IdentificationCscd(self.a.designator, BlockParameters(512), 0),
            IdentificationCscd(self.b.designator, BlockParameters(4096, pad=True), 0),
            IdentificationCscd(self.tape.designator, StreamParameters(pad=True), 1),
        ]

    def copy(self, unit: Unit, *segments: Segment) -> Reply:
        data = CopyList(self.cscds, segments, list_identifier=1).pack()
        return run(unit, EXTENDED_COPY.format(len(data)), data)

    def content_of_b(self) -> bytes:
        return bytes(self.b.store.pread(0, 2 << 20))


@pytest.fixture
def array(tmp_path: Path) -> Iterator[Array]:
    made = Array(tmp_path)
    yield made
    for unit in made.units:
        unit.close()


def test_local_copy_of_a_disk(array: Array) -> None:
    assert array.copy(array.a, BlockToBlock(0, 1, 4096, 0, 0)).status is Status.GOOD
    assert array.content_of_b() == array.content


def test_local_copy_by_way_of_the_tape(array: Array) -> None:
    reply = array.copy(
        array.b,
        BlockToStream(0, 2, 0x40000, 4096, 0),
        WriteFilemarks(2),
        Locate(2, 0),
        StreamToBlock(2, 1, 0x40000, 512, 0),
    )
    assert reply.status is Status.GOOD
    assert array.content_of_b() == array.content
    status = bytes(run(array.b, COPY_STATUS.format(1, 12)).data)
    assert status == bytes.fromhex("00000008 01 0004 00 00400000")


def test_local_copy_from_the_unit_that_was_asked(array: Array) -> None:
    assert array.copy(array.a, BlockToBlock(THIS_UNIT, 1, 4096, 0, 0)).status is Status.GOOD
    assert array.content_of_b() == array.content


def test_local_copy_that_meets_the_end_of_the_recording(array: Array) -> None:
    reply = array.copy(array.a, StreamToBlock(2, 1, 0x40000, 512, 0))
    assert sense(reply) == (0x0A, 0x0D01)
    assert reply.sense is not None
    raw = reply.sense.pack()
    area = raw[raw[8] :]
    assert area[0] == 0x02
    assert (area[1 + 2] & 0x0F, area[1 + 12], area[1 + 13]) == (8, 0x00, 0x05)
    details = bytes(run(array.a, FAILURE_DETAILS.format(1, 200)).data)
    assert details[60:] == raw
    assert array.content_of_b() == bytes(2 << 20)


def test_failure_is_kept_in_the_format_that_the_command_ended_with(array: Array) -> None:
    # D_SENSE by MODE SELECT; 6.23: "a copy of the sense data that the copy manager prepared".
    run(array.a, "15 10 00 00 10 00", bytes.fromhex("00000000 0a0a 04 10 0000 0000 0000 0000"))
    reply = array.copy(array.a, StreamToBlock(2, 1, 0x40000, 512, 0))
    assert reply.sense is not None
    raw = reply.sense.pack()
    assert raw[:4] == bytes.fromhex("72 0a 0d 01")
    status = bytes(run(array.a, "84 05 00000001 00000000 0000ffff 0000").data)
    assert raw in status  # padded to a multiple of 4
    details = bytes(run(array.a, FAILURE_DETAILS.format(1, 400)).data)
    assert details[60:] == raw


def test_tape_pointed_at_as_disk_changes_nothing(array: Array) -> None:
    array.cscds[1] = IdentificationCscd(array.tape.designator, BlockParameters(512), 0)
    reply = array.copy(array.a, BlockToBlock(0, 1, 1, 0, 0))
    assert sense(reply) == (0x0A, 0x0D03)


def test_copy_leaves_no_nexus_behind(array: Array) -> None:
    array.copy(array.a, BlockToBlock(0, 1, 8, 0, 0))
    assert array.a.attentions.pending == {}
    assert array.b.attentions.pending == {}


def test_managers_of_two_units_do_not_share_identifiers(array: Array) -> None:
    array.copy(array.a, BlockToBlock(0, 1, 8, 0, 0))
    assert sense(run(array.b, COPY_STATUS.format(1, 12))) == (5, 0x2400)
