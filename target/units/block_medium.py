"""The disk commands about its medium: capacity, loading and starting, defects (SBC-4 chapter 5)."""

from serverfree.scsi.capacity import CAPACITY_10_MAXIMUM, Capacity10, Capacity16
from serverfree.scsi.cdb.block import ReadCapacity10, ReadCapacity16, StartStopUnit
from serverfree.scsi.cdb.block_medium import ReadDefectData10, ReadDefectData12, ReassignBlocks
from serverfree.scsi.cdb.stream import PreventAllowMediumRemoval
from serverfree.scsi.errors import illegal_request, invalid_field_in_cdb
from serverfree.scsi.medium import pack_defects, unpack_reassign_list
from serverfree.scsi.sense import Asc, FieldPointer
from serverfree.target.units.access import Access
from serverfree.target.units.base import Row, Table, table_of
from serverfree.target.units.block_device import BlockDevice
from serverfree.target.units.command import Command, Lane
from serverfree.target.units.prevention import prevent_access, prevent_allow_medium_removal

_LONGEST_REASSIGN_LIST = 4 + 8 * 1024


def _read_capacity_10(unit: BlockDevice, command: Command) -> bytes:
    unit.require_ready()
    unit.look_at_size(but=command.nexus)
    return Capacity10(min(unit.blocks - 1, CAPACITY_10_MAXIMUM), unit.block_size).pack()


def _read_capacity_16(unit: BlockDevice, command: Command) -> bytes:
    unit.require_ready()
    unit.look_at_size(but=command.nexus)
    return capacity_16(unit).pack()[: ReadCapacity16.unpack(command.cdb).allocation_length]


def capacity_16(unit: BlockDevice) -> Capacity16:
    """Return what READ CAPACITY(16) says of a disk."""
    return Capacity16(
        unit.blocks - 1,
        unit.block_size,
        physical_exponent=unit.physical_exponent,
        thin=unit.thin,
        reads_zeros=unit.thin,
    )


def _start_stop_unit(unit: BlockDevice, command: Command) -> None:
    """5.31. LOEJ is for removable media only; a tray that nobody took from is loaded again.

    A file is in any power condition at once, and START and LOEJ mean nothing beside one. A
    removable medium stays accessible until it is ejected, as there is no motor to stop.
    """
    cdb = StartStopUnit.unpack(command.cdb)
    if cdb.power_condition:
        unit.require_medium()
        return
    if cdb.load_eject:
        if not unit.removable:
            raise invalid_field_in_cdb(4, 1)
        if unit.preventing:
            raise illegal_request(Asc.MEDIUM_REMOVAL_PREVENTED)
        if not cdb.start:
            unit.store.flush()
            unit.ejected = True
            return
        if unit.ejected:
            unit.ejected = False
            unit.raise_attention(Asc.NOT_READY_TO_READY_CHANGE, but=command.nexus)
    unit.require_medium()
    if not cdb.start and not cdb.no_flush:
        unit.store.flush()
    unit.stopped = not cdb.start and not unit.removable


def _start_stop_access(cdb: bytes) -> Access:
    return Access.ALWAYS if cdb[4] & 0xF1 == 0x01 else Access.CHANGES


def _is_removable(unit: BlockDevice) -> bool:
    return unit.removable


def _read_defect_data(unit: BlockDevice, command: Command) -> bytes:
    """5.22, 5.23. The primary list is empty; the grown one is what REASSIGN BLOCKS has named."""
    cdb: ReadDefectData10 | ReadDefectData12
    unit.require_ready()
    if command.cdb[0] == ReadDefectData12.OPCODE:
        cdb = ReadDefectData12.unpack(command.cdb)
        first = cdb.first
    else:
        cdb, first = ReadDefectData10.unpack(command.cdb), 0
    lbas = unit.defects[first:] if cdb.grown else ()
    data = pack_defects(
        lbas,
        primary=cdb.primary,
        grown=cdb.grown,
        form=cdb.format,
        twelve=isinstance(cdb, ReadDefectData12),
    )
    return data[: cdb.allocation_length]


def _reassign_blocks(unit: BlockDevice, command: Command) -> None:
    """5.24: the named blocks get good storage; what they held is lost, and read as zeros then."""
    cdb = ReassignBlocks.unpack(command.cdb)
    unit.require_ready()
    unit.require_writable()
    try:
        lbas = unpack_reassign_list(
            command.data_out, long_lba=cdb.long_lba, long_list=cdb.long_list
        )
    except ValueError:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR) from None
    width = 8 if cdb.long_lba else 4
    for index, lba in enumerate(lbas):
        unit.extent(lba, 1, FieldPointer(4 + index * width))
    for lba in lbas:
        unit.reassign(lba)


def _reassign_length(unit: BlockDevice, cdb: bytes) -> int:
    return _LONGEST_REASSIGN_LIST  # the CDB has no length: as much as comes, up to this


BLOCK_MEDIUM_TABLE: Table = table_of(
    Row("READ CAPACITY(10)", ReadCapacity10.USAGE, _read_capacity_10, access=Access.ALWAYS),
    Row(
        "READ CAPACITY(16)",
        ReadCapacity16.USAGE,
        _read_capacity_16,
        service_action=ReadCapacity16.SERVICE_ACTION,
        access=Access.ALWAYS,
    ),
    Row(
        "START STOP UNIT",
        StartStopUnit.USAGE,
        _start_stop_unit,
        lane=Lane.QUEUED,
        access=_start_stop_access,
    ),
    Row(
        "PREVENT ALLOW MEDIUM REMOVAL",
        PreventAllowMediumRemoval.USAGE,
        prevent_allow_medium_removal,
        offered=_is_removable,
        access=prevent_access,
    ),
    Row("READ DEFECT DATA(10)", ReadDefectData10.USAGE, _read_defect_data, access=Access.READS),
    Row("READ DEFECT DATA(12)", ReadDefectData12.USAGE, _read_defect_data, access=Access.READS),
    Row(
        "REASSIGN BLOCKS",
        ReassignBlocks.USAGE,
        _reassign_blocks,
        data_out=_reassign_length,
        lane=Lane.QUEUED,
    ),
)
