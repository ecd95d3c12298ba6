"""CDB classes: each place in the figure, both ways, and what is done about what does not fit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.scsi.cdb import block, primary
from serverfree.scsi.cdb.layout import Cdb, at, bits, cdb, flag
from serverfree.scsi.opcodes import OperationCode, ServiceAction, cdb_length

COMMANDS = [
    declared
    for module in (primary, block)
    for declared in vars(module).values()
    if isinstance(declared, type) and issubclass(declared, Cdb) and declared is not Cdb
]


@cdb(OperationCode.READ_10)
class Sample(Cdb):
    """One field of each kind."""

    on: bool = flag(1, 3)
    crossing: int = bits(1, 2, 11)
    whole: int = at(7, 2)


def test_a_field_lies_where_its_figure_draws_it() -> None:
    assert Sample(on=True).pack() == bytes.fromhex("28 08 00 00 00 00 00 00 00 00")
    assert Sample(crossing=0x7FF).pack() == bytes.fromhex("28 07 ff 00 00 00 00 00 00 00")
    assert Sample(whole=0x1234).pack() == bytes.fromhex("28 00 00 00 00 00 00 12 34 00")


def test_usage_has_a_one_in_every_bit_of_a_field() -> None:
    assert Sample.usage_without() == bytes.fromhex("28 0f ff 00 00 00 00 ff ff 00")
    assert Sample.usage_without("on", "whole") == bytes.fromhex("28 07 ff 00 00 00 00 00 00 00")


def test_usage_shows_the_service_action_by_its_value() -> None:
    usage = primary.ReportSupportedOperationCodes.USAGE
    assert usage[:2] == bytes((0xA3, ServiceAction.REPORT_SUPPORTED_OPERATION_CODES))


def test_overlapping_fields_cannot_be_declared() -> None:
    with pytest.raises(AssertionError, match="overlaps"):

        @cdb(OperationCode.READ_10)
        class Overlapping(Cdb):
            one: int = at(2, 4)
            other: int = at(5)


def test_a_value_that_does_not_fit_its_field_is_not_sent() -> None:
    with pytest.raises(ValueError, match="lba 4294967296 does not fit 32 bits"):
        block.Read10(lba=1 << 32).pack()
    with pytest.raises(ValueError):
        block.Read10(lba=-1).pack()


def test_a_cdb_of_another_command_is_not_read() -> None:
    with pytest.raises(ValueError):
        block.Read10.unpack(block.Write10().pack())
    with pytest.raises(ValueError):
        block.ReadCapacity16.unpack(block.GetLbaStatus().pack())
    with pytest.raises(ValueError):
        block.Read10.unpack(block.Read10().pack()[:9])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each.__name__)
def test_a_command_has_the_length_of_its_operation_code(command: type[Cdb]) -> None:
    assert len(command().pack()) == len(command.USAGE) == cdb_length(bytes((command.OPCODE,)))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each.__name__)
@settings(max_examples=10)
@given(data=st.data())
def test_what_is_packed_is_read_back(command: type[Cdb], data: st.DataObject) -> None:
    values = {
        name: data.draw(st.booleans() if place.is_flag else st.integers(0, place.mask))
        for name, place in command.PLACES.items()
    }
    made = command(**values)
    padded = made.pack() + bytes(16 - command.LENGTH)  # as iSCSI carries it
    assert command.unpack(padded) == made
    outside = int.from_bytes(made.pack(), "big") & ~int.from_bytes(command.USAGE, "big")
    assert outside == 0
