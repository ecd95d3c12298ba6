"""The gate: what is refused before a command runs, and what no command can do to the process."""

from collections.abc import Iterator

import pytest

from serverfree.scsi.errors import ReservationConflict, illegal_request
from serverfree.scsi.sense import Asc, FieldPointer, Sense, SenseKey
from serverfree.scsi.status import Status
from serverfree.target.units.base import Row, Unit, merge_tables, table_of
from serverfree.target.units.command import Command, Lane, Reply
from support.disk import NEXUS, OTHER, Host


def _raise(error: Exception) -> None:
    raise error


ECHO = bytes.fromhex("12 00 00 00 ff 00")
TABLE = table_of(
    Row("ECHO", ECHO, lambda unit, command: command.cdb[4:5], in_attention=True),
    Row("NOTHING", bytes.fromhex("00 00 00 00 00 00"), lambda unit, command: None),
    Row(
        "WHOLE REPLY",
        bytes.fromhex("01 00 00 00 00 00"),
        lambda unit, command: Reply(b"short", Status.CHECK_CONDITION, Sense(SenseKey.NO_SENSE)),
    ),
    Row(
        "REFUSED",
        bytes.fromhex("0a 1f 00 00 00 00"),
        lambda unit, command: _raise(illegal_request(Asc.INVALID_FIELD_IN_CDB)),
        data_out=lambda unit, cdb: cdb[1] & 0x1F,
        lane=Lane.QUEUED,
    ),
    Row(
        "CONFLICT",
        bytes.fromhex("15 00 00 00 00 00"),
        lambda unit, command: _raise(ReservationConflict()),
        data_out=lambda unit, cdb: _raise(ReservationConflict()),
    ),
    Row(
        "BROKEN",
        bytes.fromhex("1a 00 00 00 00 00"),
        lambda unit, command: _raise(ZeroDivisionError("a fault of ours")),
    ),
    Row(
        "STORAGE",
        bytes.fromhex("1b 00 00 00 00 00"),
        lambda unit, command: _raise(OSError(5, "Input/output error")),
    ),
    Row(
        "ONE ACTION",
        bytes.fromhex("9e 10 00 00 00 00 00 00 00 00 00 00 00 00 00 00"),
        lambda unit, command: b"10",
        service_action=0x10,
    ),
    Row(
        "ANOTHER ACTION",
        bytes.fromhex("9e 12 0f 00 00 00 00 00 00 00 00 00 00 00 00 00"),
        lambda unit, command: b"12",
        service_action=0x12,
        lane=lambda unit, cdb: Lane.DETACHED if cdb[2] else Lane.INLINE,
    ),
)


class Sample(Unit):
    """A unit with one row of each kind."""

    TABLE = TABLE


@pytest.fixture
def host() -> Host:
    return Host(Sample("sample"))


def test_rows_answer_with_data_with_nothing_or_with_a_whole_reply(host: Host) -> None:
    assert host.good(bytes.fromhex("12 00 00 00 7f 00")) == b"\x7f"
    assert host.good(bytes(6)) == b""
    assert host(bytes.fromhex("01 00 00 00 00 00")).data == b"short"


def test_a_service_action_chooses_its_row(host: Host) -> None:
    assert host.good(bytes.fromhex("9e 10") + bytes(14)) == b"10"
    assert host.good(bytes.fromhex("9e 12") + bytes(14)) == b"12"


@pytest.mark.parametrize("cdb", ["02 00 00 00 00 00", "c0", "7f 00 00 00 00 00 00 08", ""])
def test_an_unknown_operation_code_is_refused(host: Host, cdb: str) -> None:
    reply = host.unit.execute(Command(NEXUS, bytes.fromhex(cdb)))
    assert reply.sense == Sense(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_COMMAND_OPERATION_CODE)


def test_an_unknown_service_action_is_refused_at_its_field(host: Host) -> None:
    for action in (0x00, 0x11, 0x1F):
        sense = host.sense(bytes((0x9E, action)))
        assert sense.asc is Asc.INVALID_FIELD_IN_CDB
        assert sense.pointer == FieldPointer(1, 4, in_cdb=True)


@pytest.mark.parametrize(
    ("cdb", "byte", "bit"),
    [
        ("12 01 00 00 ff 00", 1, 0),
        ("12 81 00 00 ff 00", 1, 7),
        ("12 00 00 40 ff 01", 3, 6),  # the leftmost of several
        ("12 00 00 00 ff 02", 5, 1),  # a reserved bit of the control byte
        ("9e 32 00 00 00 00 00 00 00 00 00 00 00 00 00 00", 1, 5),
        ("9e 12 10 00 00 00 00 00 00 00 00 00 00 00 00 00", 2, 4),
        ("9e 12 0f 00 00 00 00 00 00 00 00 00 00 00 00 80", 15, 7),
    ],
)
def test_a_bit_that_is_not_honoured_is_refused_where_it_is(
    host: Host, cdb: str, byte: int, bit: int
) -> None:
    sense = host.sense(bytes.fromhex(cdb))
    assert (sense.key, sense.asc) == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
    assert sense.pointer == FieldPointer(byte, bit, in_cdb=True)


def test_padding_behind_a_short_cdb_is_not_looked_at(host: Host) -> None:
    assert host.good(bytes.fromhex("12 00 00 00 01 00") + b"\xff" * 10) == b"\x01"


@pytest.mark.parametrize("length", [1, 5])
def test_a_cdb_that_is_cut_short_is_refused(host: Host, length: int) -> None:
    reply = host.unit.execute(Command(NEXUS, ECHO[:length]))
    assert reply.sense is not None
    assert reply.sense.pointer == FieldPointer(length, None, in_cdb=True)
    assert host.unit.execute(Command(NEXUS, b"\x9e")).status is Status.CHECK_CONDITION


def test_what_a_row_raises_is_how_the_command_ends(host: Host) -> None:
    assert host.sense(bytes.fromhex("0a 00 00 00 00 00")).asc is Asc.INVALID_FIELD_IN_CDB
    conflict = host(bytes.fromhex("15 00 00 00 00 00"))
    assert (conflict.status, conflict.sense) == (Status.RESERVATION_CONFLICT, None)


def test_a_fault_of_ours_is_an_internal_target_failure(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    for opcode in ("1a", "1b"):
        sense = host.sense(bytes.fromhex(opcode) + bytes(5))
        assert (sense.key, sense.asc) == (SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)
    assert "ZeroDivisionError: a fault of ours" in caplog.text
    assert "1b 00 00 00 00 00" in caplog.text


def test_a_lane_is_fixed_or_follows_the_cdb(host: Host) -> None:
    assert host.unit.lane(ECHO) is Lane.INLINE
    assert host.unit.lane(bytes.fromhex("0a 00 00 00 00 00")) is Lane.QUEUED
    assert host.unit.lane(bytes.fromhex("9e 12 01") + bytes(13)) is Lane.DETACHED
    assert host.unit.lane(b"\xff") is Lane.INLINE  # refused at once


def test_data_out_is_asked_for_only_if_the_cdb_will_run(host: Host) -> None:
    assert host.unit.data_out_length(bytes.fromhex("0a 11 00 00 00 00")) == 0x11
    assert host.unit.data_out_length(bytes.fromhex("0a 31 00 00 00 00")) == 0  # reserved bit
    assert host.unit.data_out_length(bytes.fromhex("15 00 00 00 00 00")) == 0  # will be refused
    assert host.unit.data_out_length(ECHO) == 0
    assert host.unit.data_out_length(b"\xff") == 0


def test_a_command_that_is_not_offered_does_not_exist() -> None:
    class Choosy(Unit):
        TABLE = table_of(
            Row("NEVER", ECHO, lambda unit, command: b"", offered=lambda unit: False),
            Row(
                "NEITHER",
                bytes.fromhex("9e 10") + bytes(14),
                lambda unit, command: b"",
                service_action=0x10,
                offered=lambda unit: False,
            ),
        )

    host = Host(Choosy("choosy"))
    for cdb in (ECHO, bytes.fromhex("9e 10") + bytes(14)):
        assert host.sense(cdb).asc is Asc.INVALID_COMMAND_OPERATION_CODE


def test_usage_data_must_have_the_length_of_its_command() -> None:
    class Wrong(Unit):
        TABLE = table_of(Row("WRONG", bytes.fromhex("28 00"), lambda unit, command: None))

    with pytest.raises(AssertionError, match="usage data"):
        Wrong("wrong")


def test_merged_tables_keep_all_actions_of_an_operation_code() -> None:
    first = table_of(Row("A", b"\x9e\x01" + bytes(14), lambda u, c: b"a", service_action=1))
    second = table_of(Row("B", b"\x9e\x02" + bytes(14), lambda u, c: b"b", service_action=2))

    class Merged(Unit):
        TABLE = merge_tables(first, second)

    host = Host(Merged("merged"))
    assert host.good(b"\x9e\x01") == b"a"
    assert host.good(b"\x9e\x02") == b"b"


# Unit attentions


@pytest.fixture
def attached(host: Host) -> Iterator[Host]:
    host.unit.attach(NEXUS)
    yield host
    host.unit.detach(NEXUS)


def test_the_first_command_of_a_nexus_hears_the_power_on(attached: Host) -> None:
    sense = attached.sense(bytes(6))
    assert (sense.key, sense.asc) == (
        SenseKey.UNIT_ATTENTION,
        Asc.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED,
    )
    assert attached.good(bytes(6)) == b""


def test_a_row_that_runs_in_attention_leaves_it_pending(attached: Host) -> None:
    assert attached.good(bytes.fromhex("12 00 00 00 01 00")) == b"\x01"
    assert attached.sense(bytes(6)).key is SenseKey.UNIT_ATTENTION


def test_a_refused_cdb_leaves_it_pending(attached: Host) -> None:
    assert attached.sense(b"\xff").key is SenseKey.ILLEGAL_REQUEST
    assert attached.sense(bytes(6)).key is SenseKey.UNIT_ATTENTION


def test_attentions_are_heard_in_order_and_each_once(attached: Host) -> None:
    for _ in range(1000):
        attached.unit.raise_attention(Asc.CAPACITY_DATA_HAS_CHANGED)
        attached.unit.raise_attention(Asc.MODE_PARAMETERS_CHANGED)
    heard = [attached.sense(bytes(6)).asc for _ in range(3)]
    assert heard == [
        Asc.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED,
        Asc.CAPACITY_DATA_HAS_CHANGED,
        Asc.MODE_PARAMETERS_CHANGED,
    ]
    attached.good(bytes(6))


def test_each_nexus_hears_for_itself_and_the_cause_does_not(attached: Host) -> None:
    other = Host(attached.unit, OTHER)
    other.unit.attach(OTHER)
    for host in (attached, other):
        assert host.sense(bytes(6)).key is SenseKey.UNIT_ATTENTION
    attached.unit.raise_attention(Asc.MODE_PARAMETERS_CHANGED, but=NEXUS)
    attached.good(bytes(6))
    assert other.sense(bytes(6)).asc is Asc.MODE_PARAMETERS_CHANGED
    other.unit.detach(OTHER)
    attached.unit.raise_attention(Asc.MODE_PARAMETERS_CHANGED)
    other.good(bytes(6))  # nothing is kept for a nexus that is gone


def test_a_reset_is_heard_by_all(attached: Host) -> None:
    attached.sense(bytes(6))
    attached.unit.reset()
    assert attached.sense(bytes(6)).asc is Asc.BUS_DEVICE_RESET_FUNCTION_OCCURRED


def test_a_nexus_that_comes_back_hears_the_power_on_again(attached: Host) -> None:
    attached.sense(bytes(6))
    attached.unit.detach(NEXUS)
    attached.unit.attach(NEXUS)
    assert attached.sense(bytes(6)).asc is Asc.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED


def test_identity_survives_a_restart_and_differs_between_targets() -> None:
    one, again = Sample("a", target="iqn.a:t"), Sample("a", target="iqn.a:t")
    other = Sample("a", target="iqn.a:u")
    assert (one.designator, one.serial) == (again.designator, again.serial)
    assert one.designator != other.designator
    assert one.serial != other.serial
