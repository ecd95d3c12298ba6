"""The disk commands that fill and free blocks: WRITE SAME, UNMAP, GET LBA STATUS (SBC-3)."""

from collections.abc import Iterator
from itertools import islice

from serverfree.scsi.cdb.block import GetLbaStatus, Unmap, WriteSame10, WriteSame16
from serverfree.scsi.cdb.block_long import GetLbaStatus32, WriteSame32
from serverfree.scsi.errors import (
    illegal_request,
    invalid_field_in_cdb,
    invalid_field_in_parameter_list,
)
from serverfree.scsi.provisioning import (
    UNMAP_DESCRIPTOR_LENGTH,
    UNMAP_HEADER_LENGTH,
    LbaStatus,
    Provisioning,
    pack_lba_status,
    unpack_unmap_list,
)
from serverfree.scsi.sense import Asc, FieldPointer
from serverfree.target.units.access import Access
from serverfree.target.units.base import Row, table_of
from serverfree.target.units.block_device import STEP, BlockDevice
from serverfree.target.units.block_io import Range, offered
from serverfree.target.units.block_pages import MAXIMUM_UNMAP_DESCRIPTORS, MAXIMUM_WRITE_SAME
from serverfree.target.units.command import Command, Lane

_LARGEST_RUN = 0xFFFFFFFF  # NUMBER OF LOGICAL BLOCKS of an LBA status descriptor


def _is_thin(unit: BlockDevice) -> bool:
    return unit.thin


def _write_same(layout: type[WriteSame10] | type[WriteSame16] | type[WriteSame32]) -> Row:
    blocks = Range(layout)

    def extent(unit: BlockDevice, cdb: bytes) -> tuple[int, int]:
        offset, length = blocks.extent(unit, cdb)
        if not 0 < length <= MAXIMUM_WRITE_SAME:
            raise blocks.wrong_number()
        unit.require_writable()
        return offset, length

    def has_no_data_out(cdb: WriteSame10 | WriteSame16 | WriteSame32) -> bool:
        return not isinstance(cdb, WriteSame10) and cdb.ndob

    def data_out(unit: BlockDevice, cdb: bytes) -> int:
        extent(unit, cdb)
        return 0 if has_no_data_out(layout.unpack(cdb)) else unit.block_size

    def write_same(unit: BlockDevice, command: Command) -> None:
        cdb = layout.unpack(command.cdb)
        offset, length = extent(unit, command.cdb)
        if cdb.unmap and not unit.thin:
            place = layout.PLACES["unmap"]
            raise invalid_field_in_cdb(place.byte, place.bit)
        block = b"" if has_no_data_out(cdb) else blocks.one_block(unit, command)
        if any(block):
            # Not zeros: unmapped blocks would not read back as asked, so UNMAP is no hint here.
            _fill(unit, command, offset, length, block)
        elif cdb.unmap:
            unit.exclusion.change(offset, length, unit.store.discard, length)
        else:
            unit.exclusion.change(offset, length, unit.store.zero, length)
        if not unit.write_cache:
            unit.store.flush()

    # ANCHOR is refused: nothing is anchored here (ANC_SUP is 0 in page B2h).
    return Row(
        f"WRITE SAME({layout.LENGTH})",
        layout.usage_without("anchor"),
        write_same,
        data_out=data_out,
        lane=Lane.QUEUED,
        service_action=layout.SERVICE_ACTION,
        offered=offered(layout),
    )


def _fill(unit: BlockDevice, command: Command, offset: int, length: int, block: bytes) -> None:
    pattern = memoryview(block * (min(STEP, length) // len(block)))
    for at in range(offset, offset + length, len(pattern)):
        unit.keep_on(command)
        data = pattern[: min(len(pattern), offset + length - at)]
        unit.exclusion.change(at, len(data), unit.store.write, data)


def _unmap(unit: BlockDevice, command: Command) -> None:
    """All descriptors are checked before the first block goes."""
    cdb = Unmap.unpack(command.cdb)
    unit.require_ready()
    unit.require_writable()
    if not cdb.parameter_list_length:
        return
    try:
        if len(command.data_out) < cdb.parameter_list_length:
            raise ValueError("data-out ends before the list")
        ranges = unpack_unmap_list(command.data_out[: cdb.parameter_list_length])
    except ValueError:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR) from None
    if len(ranges) > MAXIMUM_UNMAP_DESCRIPTORS:
        raise invalid_field_in_parameter_list(2)
    extents = [
        unit.extent(
            each.lba,
            each.blocks,
            FieldPointer(UNMAP_HEADER_LENGTH + index * UNMAP_DESCRIPTOR_LENGTH),
        )
        for index, each in enumerate(ranges)
    ]
    for offset, length in extents:
        unit.keep_on(command)
        unit.exclusion.change(offset, length, unit.store.discard, length)
    if not unit.write_cache:
        unit.store.flush()


def _unmap_data_out(unit: BlockDevice, cdb: bytes) -> int:
    unit.require_writable()
    return Unmap.unpack(cdb).parameter_list_length


def _get_lba_status(unit: BlockDevice, command: Command) -> bytes:
    """As many runs from the LBA on as fit the allocation length, at least one (5.3.1)."""
    cdb = GetLbaStatus.unpack(command.cdb)
    unit.extent(cdb.lba, 1, FieldPointer(GetLbaStatus.PLACES["lba"].byte, 7, in_cdb=True))
    room = max(1, (cdb.allocation_length - 8) // 16)
    return pack_lba_status(islice(_runs(unit, cdb.lba), min(room, 4096)))[: cdb.allocation_length]


def _get_lba_status_32(unit: BlockDevice, command: Command) -> bytes:
    """The same with a length to look at (5.7). Of the report types only 0, all LBAs, is known."""
    cdb = GetLbaStatus32.unpack(command.cdb)
    if cdb.report_type:
        raise invalid_field_in_cdb(10)
    if cdb.element_identifier:
        raise invalid_field_in_cdb(24)
    unit.extent(cdb.lba, 1, FieldPointer(GetLbaStatus32.PLACES["lba"].byte, 7, in_cdb=True))
    room = max(1, (cdb.allocation_length - 8) // 16)
    runs = _runs(unit, cdb.lba)
    if cdb.scan_length:
        runs = _up_to(runs, cdb.lba + cdb.scan_length)
    return pack_lba_status(islice(runs, min(room, 4096)))[: cdb.allocation_length]


def _up_to(runs: Iterator[LbaStatus], end: int) -> Iterator[LbaStatus]:
    for run in runs:
        if run.lba >= end:
            return
        yield LbaStatus(run.lba, min(run.blocks, end - run.lba), run.status)


def _runs(unit: BlockDevice, lba: int) -> Iterator[LbaStatus]:
    """The mapped and deallocated runs from an LBA to the end of the medium.

    A block is deallocated only if all of it is a hole; neighbours of one kind are one run.
    """
    start, size = lba << unit.shift, unit.block_size
    mapped_from = lba
    for offset, length, has_data in unit.store.extents(start, unit.size - start):
        if has_data:
            continue
        first, end = -(-offset // size), (offset + length) // size
        if first < end:
            yield from _split(mapped_from, first, Provisioning.MAPPED)
            yield from _split(first, end, Provisioning.DEALLOCATED)
            mapped_from = end
    yield from _split(mapped_from, unit.blocks, Provisioning.MAPPED)


def _split(first: int, end: int, status: Provisioning) -> Iterator[LbaStatus]:
    for lba in range(first, end, _LARGEST_RUN):
        yield LbaStatus(lba, min(_LARGEST_RUN, end - lba), status)


BLOCK_PROVISIONING_TABLE = table_of(
    _write_same(WriteSame10),
    _write_same(WriteSame16),
    _write_same(WriteSame32),
    Row(
        "UNMAP",
        Unmap.usage_without("anchor"),
        _unmap,
        data_out=_unmap_data_out,
        lane=Lane.QUEUED,
        offered=_is_thin,
    ),
    Row(
        "GET LBA STATUS(16)",
        GetLbaStatus.USAGE,
        _get_lba_status,
        lane=Lane.QUEUED,
        service_action=GetLbaStatus.SERVICE_ACTION,
        access=Access.READS,
    ),
    Row(
        "GET LBA STATUS(32)",
        GetLbaStatus32.USAGE,
        _get_lba_status_32,
        lane=Lane.QUEUED,
        service_action=GetLbaStatus32.SERVICE_ACTION,
        offered=offered(GetLbaStatus32),
        access=Access.READS,
    ),
)
