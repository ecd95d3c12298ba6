"""What a host tells a unit of itself: identifying information and the time (SPC-4 6.32, 6.38)."""

import time
from typing import Any

from serverfree.scsi.cdb.management import (
    ReportIdentifyingInformation,
    ReportTimestamp,
    SetIdentifyingInformation,
    SetTimestamp,
)
from serverfree.scsi.errors import (
    illegal_request,
    invalid_field_in_cdb,
    invalid_field_in_parameter_list,
)
from serverfree.scsi.sense import Asc
from serverfree.target.units.access import Access
from serverfree.target.units.base import Row, Table, table_of
from serverfree.target.units.command import Command, Lane

SECTION = "identifying information"

_PERIPHERAL_DEVICE, _PERIPHERAL_TEXT, _SUPPORTED = 0x00, 0x02, 0x7F  # INFORMATION TYPE
_LONGEST = {_PERIPHERAL_DEVICE: 64, _PERIPHERAL_TEXT: 256}
_TIMESTAMP_LIST = 12
_CLOCK_OF_OURS, _CLOCK_SET = 0b000, 0b010  # TIMESTAMP ORIGIN, 5.2.3


class Clock:
    """A timestamp in milliseconds: since 1970 once it is set, since the start before that."""

    def __init__(self) -> None:
        self._offset = -self._now()
        self.origin = _CLOCK_OF_OURS

    @staticmethod
    def _now() -> int:
        return time.monotonic_ns() // 1_000_000

    def read(self) -> int:
        """Return the timestamp."""
        return self._now() + self._offset & (1 << 48) - 1

    def set(self, timestamp: int) -> None:
        """Set it, by SET TIMESTAMP."""
        self._offset = timestamp - self._now()
        self.origin = _CLOCK_SET


def _information(unit: Any) -> dict[str, str]:
    kept = None if unit.state is None else unit.state.get(SECTION)
    return dict(kept or {})


def _report_identifying_information(unit: Any, command: Command) -> bytes:
    cdb = ReportIdentifyingInformation.unpack(command.cdb)
    if cdb.type == _SUPPORTED:
        body = b"".join(
            bytes((kind << 1, 0)) + longest.to_bytes(2, "big") for kind, longest in _LONGEST.items()
        )
    elif cdb.type in _LONGEST:
        body = bytes.fromhex(_information(unit).get(str(cdb.type), ""))
    else:
        raise invalid_field_in_cdb(10, 7)
    return (bytes(2) + len(body).to_bytes(2, "big") + body)[: cdb.allocation_length]


def _set_identifying_information(unit: Any, command: Command) -> None:
    """Kept in the state file; a text ends with a zero byte (6.43)."""
    cdb = SetIdentifyingInformation.unpack(command.cdb)
    if cdb.type not in _LONGEST:
        raise invalid_field_in_cdb(10, 7)
    if cdb.parameter_list_length > _LONGEST[cdb.type]:
        raise invalid_field_in_cdb(6)
    if len(command.data_out) < cdb.parameter_list_length:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    data = bytes(command.data_out[: cdb.parameter_list_length])
    if cdb.type == _PERIPHERAL_TEXT and data and data[-1]:
        raise invalid_field_in_parameter_list(len(data) - 1)
    assert unit.state is not None, "the row is offered with a state file only"
    unit.state.put(SECTION, {**_information(unit), str(cdb.type): data.hex()})
    unit.raise_attention(Asc.DEVICE_IDENTIFIER_CHANGED, but=command.nexus)


def _information_length(unit: Any, cdb: bytes) -> int:
    asked = SetIdentifyingInformation.unpack(cdb)
    length = asked.parameter_list_length
    return length if length <= _LONGEST.get(asked.type, 0) else 0


def _can_keep(unit: Any) -> bool:
    return unit.state is not None


def _report_timestamp(unit: Any, command: Command) -> bytes:
    clock: Clock = unit.clock
    data = b"\0\x0a" + bytes((clock.origin, 0)) + clock.read().to_bytes(6, "big") + b"\0\0"
    return data[: ReportTimestamp.unpack(command.cdb).allocation_length]


def _set_timestamp(unit: Any, command: Command) -> None:
    cdb = SetTimestamp.unpack(command.cdb)
    if not cdb.parameter_list_length:
        return
    if min(cdb.parameter_list_length, len(command.data_out)) < _TIMESTAMP_LIST:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    unit.clock.set(int.from_bytes(command.data_out[4:10], "big"))
    unit.raise_attention(Asc.TIMESTAMP_CHANGED, but=command.nexus)


def _timestamp_length(unit: Any, cdb: bytes) -> int:
    return min(_TIMESTAMP_LIST, SetTimestamp.unpack(cdb).parameter_list_length)


IDENTITY_TABLE: Table = table_of(
    Row(
        "REPORT IDENTIFYING INFORMATION",
        ReportIdentifyingInformation.USAGE,
        _report_identifying_information,
        service_action=ReportIdentifyingInformation.SERVICE_ACTION,
        access=Access.ALWAYS,
    ),
    Row(
        "SET IDENTIFYING INFORMATION",
        SetIdentifyingInformation.USAGE,
        _set_identifying_information,
        data_out=_information_length,
        lane=Lane.QUEUED,
        service_action=SetIdentifyingInformation.SERVICE_ACTION,
        offered=_can_keep,
    ),
    Row(
        "REPORT TIMESTAMP",
        ReportTimestamp.USAGE,
        _report_timestamp,
        service_action=ReportTimestamp.SERVICE_ACTION,
        access=Access.ALWAYS,
    ),
    Row(
        "SET TIMESTAMP",
        SetTimestamp.USAGE,
        _set_timestamp,
        data_out=_timestamp_length,
        service_action=SetTimestamp.SERVICE_ACTION,
    ),
)
