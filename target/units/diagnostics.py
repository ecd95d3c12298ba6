"""SEND DIAGNOSTIC, RECEIVE DIAGNOSTIC RESULTS and self-tests (SPC-4 5.15, 6.28, 6.42)."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Protocol

from serverfree.scsi.cdb.management import ReceiveDiagnosticResults, SendDiagnostic
from serverfree.scsi.errors import (
    CheckCondition,
    illegal_request,
    invalid_field_in_cdb,
    invalid_field_in_parameter_list,
)
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.target.units.access import Access
from serverfree.target.units.base import Row, Table, table_of
from serverfree.target.units.command import Command, Lane

_RESULT = Struct(">BBHQBBBB")  # SPC-4 table 361 behind the parameter header
_SUPPORTED_PAGES = bytes((0, 0, 0, 1, 0))
_DEFAULT_TEST, _ABORT_BACKGROUND = 0b000, 0b100
_TESTS = {0b001: False, 0b010: False, 0b101: True, 0b110: True}  # code -> whether in foreground
_EXTENDED = (0b010, 0b110)
_GOOD, _FAILED = 0x0, 0x4


class SelfTests:
    """The results of the last self-tests, newest first."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._results: deque[bytes] = deque(maxlen=20)

    def record(self, code: int, outcome: int, sense: Sense | None = None) -> None:
        """Note that a test has ended."""
        hours = min(0xFFFF, int(time.monotonic() - self._began) // 3600)
        key, asc = (0, 0) if sense is None else (sense.key, sense.asc)
        lba = (1 << 64) - 1 if sense is None or sense.information is None else sense.information
        self._results.appendleft(
            _RESULT.pack(code << 5 | outcome, 0, hours, lba, key, asc >> 8, asc & 0xFF, 0)
        )

    def results(self, count: int) -> Sequence[bytes]:
        """Return so many results, zeros where there were fewer tests."""
        return [*self._results, *(bytes(_RESULT.size),) * count][:count]


class Testable(Protocol):
    """What a self-test needs of a unit."""

    self_tests: SelfTests
    self_test: Callable[[Command, bool], None]
    """Test; the flag asks for all of the medium. Raises ScsiError or OSError."""

    def sense_of(self, error: OSError) -> Sense:
        """What a failure of the storage is to an initiator."""


def _send_diagnostic(unit: Testable, command: Command) -> None:
    """A self-test, or a diagnostic page. Background tests end before they are answered, too."""
    cdb = SendDiagnostic.unpack(command.cdb)
    code = cdb.self_test_code
    if cdb.self_test:
        if code != _DEFAULT_TEST or cdb.parameter_list_length:
            raise invalid_field_in_cdb(1, 7)
        _test(unit, command, code, extended=False)
    elif code in _TESTS:
        if cdb.parameter_list_length:
            raise invalid_field_in_cdb(3)
        _test(unit, command, code, extended=code in _EXTENDED)
    elif code not in (_DEFAULT_TEST, _ABORT_BACKGROUND):
        raise invalid_field_in_cdb(1, 7)
    elif cdb.parameter_list_length:
        if len(command.data_out) < max(4, cdb.parameter_list_length):
            raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
        if bytes(command.data_out[:4]) != bytes(4):
            raise invalid_field_in_parameter_list(0)  # page 00h is all there is


def _test(unit: Testable, command: Command, code: int, *, extended: bool) -> None:
    try:
        unit.self_test(command, extended)
    except OSError as error:
        sense = unit.sense_of(error)
    except CheckCondition as error:
        sense = error.sense
    else:
        unit.self_tests.record(code, _GOOD)
        return
    unit.self_tests.record(code, _FAILED, sense)
    if code == _DEFAULT_TEST or _TESTS[code]:
        raise CheckCondition(Sense(SenseKey.HARDWARE_ERROR, Asc.LOGICAL_UNIT_FAILED_SELF_TEST))


def _send_length(unit: Testable, cdb: bytes) -> int:
    return SendDiagnostic.unpack(cdb).parameter_list_length


def _receive_diagnostic_results(unit: Testable, command: Command) -> bytes:
    cdb = ReceiveDiagnosticResults.unpack(command.cdb)
    if cdb.page_code_valid and cdb.page_code:
        raise invalid_field_in_cdb(2)
    return _SUPPORTED_PAGES[: cdb.allocation_length]


DIAGNOSTIC_TABLE: Table = table_of(
    Row(
        "SEND DIAGNOSTIC",
        SendDiagnostic.USAGE,
        _send_diagnostic,
        data_out=_send_length,
        lane=Lane.QUEUED,
    ),
    Row(
        "RECEIVE DIAGNOSTIC RESULTS",
        ReceiveDiagnosticResults.USAGE,
        _receive_diagnostic_results,
        access=Access.READS,
    ),
)
