"""READ ATTRIBUTE and WRITE ATTRIBUTE of a tape drive: the memory of the cartridge in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serverfree.scsi import attributes
from serverfree.scsi.attributes import HOST, AttributeId, MediumAttribute, ascii_text, binary
from serverfree.scsi.cdb.attribute import (
    ReadAttributeList,
    ReadAttributeValues,
    ReadLogicalVolumeList,
    ReadPartitionList,
    ReadSupportedAttributes,
    WriteAttribute,
)
from serverfree.scsi.errors import (
    illegal_request,
    invalid_field_in_cdb,
    invalid_field_in_parameter_list,
)
from serverfree.scsi.sense import Asc
from serverfree.target.backstore.cartridge_errors import WriteFailed
from serverfree.target.backstore.cartridge_memory import Attribute
from serverfree.target.units.base import VENDOR
from serverfree.target.units.command import Command
from serverfree.target.units.stream_format import medium_serial
from serverfree.target.units.stream_medium import Medium, on_memory

if TYPE_CHECKING:
    from serverfree.target.units.stream import StreamUnit

_MIB = 1 << 20
_CAPACITY = 16 << 10  # bytes that hosts may fill: more than all that HOST lets them write
_WORM_MEDIUM, _DATA_MEDIUM = 0x80, 0x00


@on_memory
def read_attribute(unit: StreamUnit, medium: Medium, command: Command) -> bytes:
    """READ ATTRIBUTE, every service action."""
    forms: tuple[Any, ...] = (
        ReadAttributeValues,
        ReadAttributeList,
        ReadLogicalVolumeList,
        ReadPartitionList,
        ReadSupportedAttributes,
    )
    form = next(each for each in forms if command.cdb[1] & 0x1F == each.SERVICE_ACTION)
    cdb = form.unpack(command.cdb)
    if cdb.logical_volume:
        raise invalid_field_in_cdb(5)
    if cdb.partition >= len(medium.cartridge.partitions):
        raise invalid_field_in_cdb(7)
    present = {each.identifier: each for each in _present(unit, medium, cdb.partition)}
    match cdb:
        case ReadAttributeValues():
            if cdb.first not in present:
                raise invalid_field_in_cdb(8)
            data = attributes.pack_values(
                each for key, each in sorted(present.items()) if key >= cdb.first
            )
        case ReadAttributeList():
            data = attributes.pack_identifiers(sorted(present))
        case ReadLogicalVolumeList():
            data = bytes((0, 2, 0, 1))
        case ReadPartitionList():
            data = bytes((0, 2, 0, len(medium.cartridge.partitions)))
        case _:
            data = attributes.pack_identifiers(sorted({*present, *HOST}))
    result: bytes = data[: cdb.allocation_length]
    return result


def _present(unit: StreamUnit, medium: Medium, number: int) -> list[MediumAttribute]:
    """Every attribute that has a value."""
    cartridge = medium.cartridge
    memory, partition = cartridge.memory, cartridge.partitions[number]
    life, before = memory.life, memory.before_load
    alerts = sum(1 << (64 - flag) for flag in unit.alerts)
    drives = [
        ascii_text(AttributeId.DEVICE_AT_LAST_LOAD + index, drive, 40)
        for index, drive in enumerate(memory.drives)
    ]
    return [
        binary(AttributeId.REMAINING_CAPACITY_IN_PARTITION, partition.remaining // _MIB, 8),
        binary(AttributeId.MAXIMUM_CAPACITY_IN_PARTITION, partition.capacity // _MIB, 8),
        binary(AttributeId.TAPEALERT_FLAGS, alerts, 8),
        binary(AttributeId.LOAD_COUNT, life.loads, 8),
        binary(AttributeId.MAM_SPACE_REMAINING, _CAPACITY - _host_bytes(medium), 8),
        ascii_text(AttributeId.ASSIGNING_ORGANIZATION, VENDOR, 8),
        binary(AttributeId.FORMATTED_DENSITY_CODE, unit.profile.density, 1),
        binary(AttributeId.INITIALIZATION_COUNT, life.formats, 2),
        binary(AttributeId.VOLUME_CHANGE_REFERENCE, cartridge.change_reference, 4),
        *drives,
        binary(AttributeId.TOTAL_MIB_WRITTEN, life.bytes_written // _MIB, 8),
        binary(AttributeId.TOTAL_MIB_READ, life.bytes_read // _MIB, 8),
        binary(
            AttributeId.MIB_WRITTEN_SINCE_LOAD,
            (life.bytes_written - before.bytes_written) // _MIB,
            8,
        ),
        binary(AttributeId.MIB_READ_SINCE_LOAD, (life.bytes_read - before.bytes_read) // _MIB, 8),
        ascii_text(AttributeId.MEDIUM_MANUFACTURER, VENDOR, 8),
        ascii_text(AttributeId.MEDIUM_SERIAL_NUMBER, medium_serial(medium), 32),
        ascii_text(AttributeId.MEDIUM_ASSIGNING_ORGANIZATION, VENDOR, 8),
        binary(AttributeId.MEDIUM_DENSITY_CODE, unit.profile.density, 1),
        binary(AttributeId.MAM_CAPACITY, _CAPACITY, 8),
        binary(AttributeId.MEDIUM_TYPE, _WORM_MEDIUM if cartridge.worm else _DATA_MEDIUM, 1),
        binary(AttributeId.MEDIUM_TYPE_INFORMATION, 0, 2),
        *(
            MediumAttribute(key, attribute.format, attribute.value)
            for (where, key), attribute in memory.attributes.items()
            if key in HOST and where == _home(key, number)
        ),
    ]


def _home(identifier: int, partition: int) -> int:
    return partition if HOST[identifier].per_partition else 0


def _host_bytes(medium: Medium) -> int:
    return sum(5 + len(each.value) for each in medium.cartridge.memory.attributes.values())


def write_attribute_length(unit: StreamUnit, cdb: bytes) -> int:
    """Bytes of data-out that the command brings."""
    return WriteAttribute.unpack(cdb).parameter_list_length


@on_memory
def write_attribute(unit: StreamUnit, medium: Medium, command: Command) -> None:
    """WRITE ATTRIBUTE (SPC-4 6.48): all of the list is checked before any of it is kept."""
    cdb = WriteAttribute.unpack(command.cdb)
    if cdb.logical_volume:
        raise invalid_field_in_cdb(5)
    if cdb.partition >= len(medium.cartridge.partitions):
        raise invalid_field_in_cdb(7)
    if not cdb.parameter_list_length:
        return
    unit.require_unprotected(medium)
    try:
        given = attributes.unpack_values(bytes(command.data_out))
    except ValueError:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR) from None
    memory = medium.cartridge.memory
    changed = dict(memory.attributes)
    last = -1
    for offset, attribute in given:
        rule = HOST.get(attribute.identifier)
        if rule is None or attribute.identifier <= last:
            raise invalid_field_in_parameter_list(offset)
        if attribute.format != rule.format:
            raise invalid_field_in_parameter_list(offset + 2, 1)
        if len(attribute.value) > rule.length:
            raise invalid_field_in_parameter_list(offset + 3)
        last = attribute.identifier
        place = (_home(attribute.identifier, cdb.partition), attribute.identifier)
        if attribute.value:
            changed[place] = Attribute(attribute.format, attribute.value)
        else:  # an attribute written without a value ceases to exist
            changed.pop(place, None)
    before, memory.attributes = memory.attributes, changed
    try:
        memory.save()
    except OSError as error:
        memory.attributes = before
        raise WriteFailed(f"{memory.directory}: {error.strerror}") from error
