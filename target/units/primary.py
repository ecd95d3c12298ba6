"""The commands that every logical unit answers (SPC-4 chapter 6)."""

from dataclasses import replace

from serverfree.scsi.cdb.primary import (
    Inquiry,
    ModeSelect6,
    ModeSelect10,
    ModeSense6,
    ModeSense10,
    PageControl,
    ReportLuns,
    ReportSupportedOperationCodes,
    ReportSupportedTaskManagementFunctions,
    RequestSense,
    SelectReport,
    TestUnitReady,
)
from serverfree.scsi.errors import (
    CheckCondition,
    illegal_request,
    invalid_field_in_cdb,
    invalid_field_in_parameter_list,
)
from serverfree.scsi.luns import pack_lun_list
from serverfree.scsi.mode import ALL_PAGES, ALL_SUBPAGES, WRITE_PROTECTED, ModeData, ModePage
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.scsi.vpd import DeviceIdentification, SupportedPages
from serverfree.target.units.access import Access
from serverfree.target.units.base import Row, Unit, table_of
from serverfree.target.units.command import Command, Lane, Nexus
from serverfree.target.units.report import (
    report_supported_operation_codes,
    report_supported_task_management_functions,
)


def test_unit_ready(unit: Unit, command: Command) -> None:
    """TEST UNIT READY, 6.47."""
    unit.require_ready()


def request_sense(unit: Unit, command: Command) -> bytes:
    """REQUEST SENSE, 6.39: a pending unit attention, which is cleared so, or how the unit is."""
    cdb = RequestSense.unpack(command.cdb)
    asc = unit.attentions.take(command.nexus)
    sense = unit.pollable_sense() if asc is None else Sense(SenseKey.UNIT_ATTENTION, asc)
    data = sense.pack_descriptors() if cdb.desc else sense.pack()
    return data[: cdb.allocation_length]


def inquiry(unit: Unit, command: Command) -> bytes:
    """INQUIRY, 6.6: standard data or a vital product data page."""
    cdb = Inquiry.unpack(command.cdb)
    standard = unit.standard_inquiry()
    if not cdb.evpd:
        if cdb.page_code:
            raise invalid_field_in_cdb(2)
        return standard.pack()[: cdb.allocation_length]
    pages = unit.vpd_pages()
    if cdb.page_code == DeviceIdentification.PAGE_CODE and cdb.page_code in pages:
        own = DeviceIdentification.unpack(pages[cdb.page_code]).designators
        pages[cdb.page_code] = DeviceIdentification(
            (*own, *unit.port_designators(command.nexus))
        ).pack()
    pages[SupportedPages.PAGE_CODE] = SupportedPages(
        tuple(sorted({SupportedPages.PAGE_CODE, *pages}))
    ).pack()
    page = pages.get(cdb.page_code)
    if page is None:
        raise invalid_field_in_cdb(2)
    peripheral = standard.qualifier << 5 | standard.device_type
    return (bytes((peripheral,)) + page[1:])[: cdb.allocation_length]


def report_luns(unit: Unit, command: Command) -> bytes:
    """REPORT LUNS, 6.33. There are no well known logical units."""
    cdb = ReportLuns.unpack(command.cdb)
    if cdb.select_report not in list(SelectReport):
        raise invalid_field_in_cdb(2)
    unit.attentions.clear(command.nexus, Asc.REPORTED_LUNS_DATA_HAS_CHANGED)
    luns = () if cdb.select_report == SelectReport.WELL_KNOWN else unit.lun_inventory(command.nexus)
    return pack_lun_list(luns)[: cdb.allocation_length]


def mode_sense(unit: Unit, command: Command) -> bytes:
    """MODE SENSE(6) and (10), 6.13 and 6.14."""
    ten = command.cdb[0] == ModeSense10.OPCODE
    cdb = ModeSense10.unpack(command.cdb) if ten else ModeSense6.unpack(command.cdb)
    if cdb.page_control == PageControl.SAVED and not _can_save(unit):
        raise illegal_request(Asc.SAVING_PARAMETERS_NOT_SUPPORTED)
    present = unit.mode_pages(command.nexus)
    pages = [page for page in present if _is_asked_for(page, cdb)]
    if not pages:
        if any(page.code == cdb.page_code for page in present):
            raise invalid_field_in_cdb(3)
        # With no page at all, header and block descriptor are what "all pages" means.
        if cdb.page_code not in (0, ALL_PAGES):
            raise invalid_field_in_cdb(2, 5)
    if cdb.page_code == ALL_PAGES and cdb.subpage_code not in (0, ALL_SUBPAGES):
        raise invalid_field_in_cdb(3)
    medium_type, device_specific = unit.mode_medium()
    if unit.permission(command.nexus).read_only:
        device_specific |= WRITE_PROTECTED
    long_lba = isinstance(cdb, ModeSense10) and cdb.long_lba_accepted
    data = ModeData(
        medium_type,
        device_specific,
        b"" if cdb.disable_block_descriptors else unit.mode_block_descriptor(long_lba=long_lba),
        tuple(_values(page, cdb.page_control) for page in pages),
    )
    return data.pack(ten=ten)[: cdb.allocation_length]


def _is_asked_for(page: ModePage, cdb: ModeSense6 | ModeSense10) -> bool:
    return cdb.page_code in (page.code, ALL_PAGES) and cdb.subpage_code in (
        page.subpage,
        ALL_SUBPAGES,
    )


def _can_save(unit: Unit) -> bool:
    return any(page.saved is not None for page in unit.mode_pages(None))


def _values(page: ModePage, control: int) -> bytes:
    match control:
        case PageControl.CHANGEABLE:
            values = page.changeable
        case PageControl.DEFAULT:
            values = page.default
        case PageControl.SAVED if page.saved is not None:
            values = page.saved
        case _:
            values = page.current
    savable = _PS if page.saved is not None else 0
    return bytes((values[0] | savable,)) + values[1:]


def mode_select(unit: Unit, command: Command) -> None:
    """MODE SELECT(6) and (10), 6.11 and 6.12: everything is checked before anything changes."""
    ten = command.cdb[0] == ModeSelect10.OPCODE
    cdb = ModeSelect10.unpack(command.cdb) if ten else ModeSelect6.unpack(command.cdb)
    if not cdb.parameter_list_length:
        return
    try:
        if len(command.data_out) < cdb.parameter_list_length:
            raise ValueError("data-out ends before the list")
        data = ModeData.unpack(command.data_out[: cdb.parameter_list_length], ten=ten)
    except ValueError:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR) from None
    if data.pages and not cdb.page_format:
        raise invalid_field_in_cdb(1, 4)
    if cdb.save_pages and not _can_save(unit):
        raise invalid_field_in_cdb(1, 0)
    known = {(page.code, page.subpage): page for page in unit.mode_pages(command.nexus)}
    for page, offset in zip(data.pages, data.offsets, strict=True):
        _check_page(known.get((page[0] & 0x3F, page[1] if page[0] & 0x40 else 0)), page, offset)
    before = _shared_parameters(unit)
    with unit.selecting_modes():
        unit.select_mode_medium(data.medium_type, data.device_specific)
        if data.block_descriptor:
            unit.select_block_descriptor(data.block_descriptor, 8 if ten else 4, command.nexus)
        for page, offset in zip(data.pages, data.offsets, strict=True):
            _select_page(unit, page, offset, command.nexus)
        if cdb.save_pages:
            unit.save_mode_pages()
    if before != _shared_parameters(unit):
        unit.raise_attention(Asc.MODE_PARAMETERS_CHANGED, but=command.nexus)


def _shared_parameters(unit: Unit) -> tuple[object, ...]:
    """What other nexuses are told of if it changes."""
    descriptor = unit.mode_block_descriptor(long_lba=True)
    return unit.mode_medium(), descriptor, tuple(unit.mode_pages(None))


def _select_page(unit: Unit, page: bytes, offset: int, nexus: Nexus) -> None:
    try:
        unit.select_mode_page(page, nexus)
    except CheckCondition as error:
        pointer = error.sense.pointer
        if pointer is not None:  # the unit sees a page, the initiator sent a list
            error.sense.pointer = replace(pointer, byte=pointer.byte + offset)
        raise


def _check_page(known: ModePage | None, page: bytes, offset: int) -> None:
    """Refuse a page that the unit has not, of another length, or changed where it must not be."""
    if known is None:
        raise invalid_field_in_parameter_list(offset, 5)
    longest = len(known.current)
    if not (known.shortest or longest) <= len(page) <= longest:
        raise invalid_field_in_parameter_list(offset + (2 if page[0] & 0x40 else 1))
    for index in range(4 if page[0] & 0x40 else 2, len(page)):
        wrong = (page[index] ^ known.current[index]) & ~known.changeable[index]
        if wrong:
            raise invalid_field_in_parameter_list(offset + index, wrong.bit_length() - 1)


def _parameter_list_length(unit: Unit, cdb: bytes) -> int:
    layout = ModeSelect10 if cdb[0] == ModeSelect10.OPCODE else ModeSelect6
    return layout.unpack(cdb).parameter_list_length


_PS = 0x80  # byte 0 of a mode page: it can be saved

PRIMARY_TABLE = table_of(
    Row("TEST UNIT READY", TestUnitReady.USAGE, test_unit_ready, access=Access.ALWAYS),
    *(
        Row(name, layout.USAGE, run, in_attention=True, access=Access.ALWAYS)
        for name, layout, run in (
            ("REQUEST SENSE", RequestSense, request_sense),
            ("INQUIRY", Inquiry, inquiry),
            ("REPORT LUNS", ReportLuns, report_luns),
        )
    ),
    Row("MODE SENSE(6)", ModeSense6.USAGE, mode_sense, access=Access.READS),
    Row("MODE SENSE(10)", ModeSense10.USAGE, mode_sense, access=Access.READS),
    Row(
        "MODE SELECT(6)",
        ModeSelect6.usage_without("save_pages"),
        mode_select,
        data_out=_parameter_list_length,
    ),
    Row(
        "MODE SELECT(10)",
        ModeSelect10.usage_without("save_pages"),
        mode_select,
        data_out=_parameter_list_length,
    ),
    Row(
        "REPORT SUPPORTED OPERATION CODES",
        ReportSupportedOperationCodes.USAGE,
        report_supported_operation_codes,
        service_action=ReportSupportedOperationCodes.SERVICE_ACTION,
        access=Access.READS,
    ),
    Row(
        "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
        ReportSupportedTaskManagementFunctions.USAGE,
        report_supported_task_management_functions,
        service_action=ReportSupportedTaskManagementFunctions.SERVICE_ACTION,
        access=Access.READS,
    ),
)

MODE_SELECT_SAVING_TABLE = table_of(
    *(
        Row(
            f"MODE SELECT({layout.LENGTH})",
            layout.USAGE,
            mode_select,
            data_out=_parameter_list_length,
            lane=Lane.QUEUED,
        )
        for layout in (ModeSelect6, ModeSelect10)
    )
)
"""MODE SELECT of a unit whose pages can be saved (SP)."""
