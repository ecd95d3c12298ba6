"""LOG SENSE and LOG SELECT of every unit that has log pages (SPC-4 6.7, 6.8)."""

from typing import Any

from serverfree.scsi.cdb.management import LogSelect, LogSense
from serverfree.scsi.errors import invalid_field_in_cdb
from serverfree.scsi.log import ALL_SUBPAGES, LogParameter, pack_log_page, pack_parameters
from serverfree.scsi.sense import Asc
from serverfree.target.units.access import Access
from serverfree.target.units.base import Row, Table, table_of
from serverfree.target.units.command import Command

_CUMULATIVE, _DEFAULT_CUMULATIVE = 0b01, 0b11  # PAGE CONTROL, SPC-4 table 160
_SUPPORTED_PAGES = 0x00


def _log_sense(unit: Any, command: Command) -> bytes:
    cdb = LogSense.unpack(command.cdb)
    pages = unit.log_pages()
    if cdb.page_code == _SUPPORTED_PAGES and cdb.subpage_code in (0, ALL_SUBPAGES):
        if cdb.parameter_pointer:
            raise invalid_field_in_cdb(5)
        return _supported(sorted({_SUPPORTED_PAGES, *pages}), cdb.subpage_code)[
            : cdb.allocation_length
        ]
    parameters = pages.get(cdb.page_code)
    if parameters is None:
        raise invalid_field_in_cdb(2, 5)
    if cdb.subpage_code:
        raise invalid_field_in_cdb(3)
    if cdb.page_control != _CUMULATIVE:
        # There are no thresholds, and every counter's default is the zero it began with.
        if cdb.page_control != _DEFAULT_CUMULATIVE:
            raise invalid_field_in_cdb(2, 7)
        parameters = [
            LogParameter(each.code, bytes(len(each.value)), each.control) for each in parameters
        ]
    if cdb.parameter_pointer > max((each.code for each in parameters), default=0):
        raise invalid_field_in_cdb(5)
    body = pack_parameters(parameters, cdb.parameter_pointer)
    return pack_log_page(cdb.page_code, 0, body)[: cdb.allocation_length]


def _supported(codes: list[int], subpage: int) -> bytes:
    """Page 00h: the page codes; 00h/FFh: with their subpages (7.3.16, 7.3.17)."""
    if not subpage:
        return pack_log_page(_SUPPORTED_PAGES, 0, bytes(codes))
    pairs = b"".join(bytes((code, 0)) for code in codes)
    return pack_log_page(_SUPPORTED_PAGES, subpage, b"\0\0\0\xff" + pairs[2:])


def _log_select(unit: Any, command: Command) -> None:
    """PCR alone: counters are set to zero. There is nothing that a list could set."""
    cdb = LogSelect.unpack(command.cdb)
    if cdb.parameter_list_length:
        raise invalid_field_in_cdb(7)
    if cdb.page_code and cdb.page_code not in unit.log_pages():
        raise invalid_field_in_cdb(2, 5)
    if cdb.subpage_code not in (0, ALL_SUBPAGES):
        raise invalid_field_in_cdb(3)
    if cdb.reset or cdb.page_control == _DEFAULT_CUMULATIVE:
        unit.reset_logs()
        unit.raise_attention(Asc.LOG_PARAMETERS_CHANGED, but=command.nexus)


LOG_TABLE: Table = table_of(
    Row("LOG SENSE", LogSense.usage_without("save"), _log_sense, access=Access.ALWAYS),
    Row("LOG SELECT", LogSelect.usage_without("save"), _log_select),
)
