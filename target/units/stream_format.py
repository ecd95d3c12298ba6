"""What happens to a medium as a whole: FORMAT MEDIUM, SET CAPACITY, ALLOW OVERWRITE (SSC-4 7.1).

Where the drafts of SSC leave the sense open, the IBM LTO SCSI Reference (GA32-0928) is followed:
append-only mode refuses with DATA PROTECT 5A/02, as a drive does that is set so by its operator,
a WORM medium with 30/0C.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from serverfree.scsi.cdb.stream import (
    MAX_TRANSFER_LENGTH,
    AllowOverwrite,
    FormatMedium,
    Overwrite,
    ReadBlockLimits,
    ReadMediaSerialNumber,
    ReportDensitySupport,
    SetCapacity,
)
from serverfree.scsi.errors import illegal_request, invalid_field_in_cdb
from serverfree.scsi.sense import Asc
from serverfree.scsi.tape import (
    BlockLimits,
    DensityDescriptor,
    MediumTypeDescriptor,
    ObjectLimit,
)
from serverfree.scsi.tape_mode import PROTECTION_LENGTH
from serverfree.target.backstore.cartridge_errors import WriteFailed
from serverfree.target.units.command import Command, Nexus
from serverfree.target.units.stream_medium import Allowance, Medium, on_medium

if TYPE_CHECKING:
    from serverfree.target.units.stream import StreamUnit

_DENSITY_HEADER = Struct(">HH")
_WHOLE = 0xFFFF  # SET CAPACITY proportion
_SMALLEST = 1 << 20  # what SET CAPACITY leaves at least, of a medium that has as much
DEFAULT_FORMAT, PARTITIONS, DEFAULT_FORMAT_AND_PARTITIONS = 0, 1, 2


@on_medium
def format_medium(unit: StreamUnit, medium: Medium, command: Command) -> None:
    """FORMAT MEDIUM: the tape is empty, in one partition or in those that mode page 11h asks for.

    VERIFY=1 finds nothing that a format could have got wrong.
    """
    cdb = FormatMedium.unpack(command.cdb)
    if cdb.format > DEFAULT_FORMAT_AND_PARTITIONS:
        raise invalid_field_in_cdb(2, 3)
    if cdb.transfer_length:
        raise invalid_field_in_cdb(3)
    medium.require_beginning()
    unit.require_formattable(medium)
    cartridge, wanted = medium.cartridge, unit.modes.partitioning
    if cdb.format == DEFAULT_FORMAT:
        capacities: tuple[int, ...] = (cartridge.usable,)
    elif wanted is None:
        capacities = tuple(partition.capacity for partition in cartridge.partitions)
    else:
        try:
            capacities = wanted.capacities(cartridge.usable)
        except ValueError:  # asked for while another medium was in the drive
            raise illegal_request(Asc.PARAMETER_VALUE_INVALID) from None
    _format(unit, medium, capacities, cartridge.usable, command.nexus)


@on_medium
def set_capacity(unit: StreamUnit, medium: Medium, command: Command) -> None:
    """SET CAPACITY: less (or again all) of the medium to write on; one partition, empty."""
    cdb = SetCapacity.unpack(command.cdb)
    medium.require_beginning()
    unit.require_formattable(medium)
    capacity = medium.cartridge.capacity
    usable = max(capacity * cdb.proportion // _WHOLE, min(capacity, _SMALLEST))
    _format(unit, medium, (usable,), usable, command.nexus)


def _format(
    unit: StreamUnit, medium: Medium, capacities: tuple[int, ...], usable: int, nexus: Nexus
) -> None:
    medium.number = medium.block = 0
    unit.modes.partitioning = None
    medium.life.formats += 1  # format puts it on stable storage with the rest of the memory
    try:
        medium.cartridge.format(capacities, usable=usable)
    except OSError as error:
        raise WriteFailed(f"{medium.cartridge.directory}: {error.strerror}") from error
    unit.raise_attention(Asc.MODE_PARAMETERS_CHANGED, but=nexus)


@on_medium
def allow_overwrite(unit: StreamUnit, medium: Medium, command: Command) -> None:
    """ALLOW OVERWRITE: in append-only mode, the next command here may overwrite after all."""
    medium.allowance = None
    cdb = AllowOverwrite.unpack(command.cdb)
    if not unit.modes.append_only:
        raise illegal_request(Asc.ILLEGAL_COMMAND_WHEN_NOT_IN_APPEND_ONLY_MODE)
    if cdb.allow > Overwrite.FORMAT:
        raise invalid_field_in_cdb(2, 3)
    if cdb.allow == Overwrite.NOTHING:
        return
    if cdb.partition >= len(medium.cartridge.partitions):
        raise invalid_field_in_cdb(3)
    here = (medium.number, medium.block)
    if cdb.allow == Overwrite.CURRENT_POSITION and (cdb.partition, cdb.object) != here:
        raise illegal_request(Asc.SEQUENTIAL_POSITIONING_ERROR)
    medium.allowance = Allowance(cdb.allow == Overwrite.FORMAT, *here)


# What can be asked of drive and medium


def read_block_limits(unit: StreamUnit, command: Command) -> bytes:
    """READ BLOCK LIMITS: block lengths, or the largest object number.

    The longest is what a transfer length can say once protection information is added
    (GA32-0928-06 4.9.1.1); without that, blocks of four bytes more are taken and given too.
    """
    if ReadBlockLimits.unpack(command.cdb).object_identifier:
        return ObjectLimit((1 << 64) - 2).pack()  # all ones is "end of data" to LOCATE's users
    return BlockLimits(maximum=MAX_TRANSFER_LENGTH - PROTECTION_LENGTH, minimum=1).pack()


def report_density_support(unit: StreamUnit, command: Command) -> bytes:
    """REPORT DENSITY SUPPORT: the one density there is, or the one kind of medium."""
    cdb = ReportDensitySupport.unpack(command.cdb)
    medium = unit.require_medium() if cdb.media else unit.medium
    profile = unit.profile
    if cdb.medium_type:
        descriptor = MediumTypeDescriptor(
            medium_type=unit.medium_type(medium),
            density=profile.density,
            organization=profile.organization,
            name=profile.density_name,
            description=profile.description,
        ).pack()
    else:
        descriptor = DensityDescriptor(
            primary_code=profile.density,
            secondary_code=profile.density,
            writable=True,
            default=True,
            capacity=medium.cartridge.capacity // 1_000_000 if medium else 0,
            organization=profile.organization,
            name=profile.density_name,
            description=profile.description,
        ).pack()
    header = _DENSITY_HEADER.pack(_DENSITY_HEADER.size - 2 + len(descriptor), 0)
    return (header + descriptor)[: cdb.allocation_length]


@on_medium
def read_media_serial_number(unit: StreamUnit, medium: Medium, command: Command) -> bytes:
    """READ MEDIA SERIAL NUMBER (SPC-4 6.23): the cartridge's identity in hexadecimal."""
    cdb = ReadMediaSerialNumber.unpack(command.cdb)
    serial = medium_serial(medium).encode()
    return (len(serial).to_bytes(4, "big") + serial)[: cdb.allocation_length]


def medium_serial(medium: Medium) -> str:
    """The serial number of a cartridge: 32 characters."""
    return medium.cartridge.identity.hex.upper()
