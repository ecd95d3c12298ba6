"""Commands of sequential-access devices (SSC-4 chapters 5 and 6)."""

from enum import IntEnum
from typing import Self

from serverfree.scsi.cdb.layout import Cdb, at, bits, cdb, flag
from serverfree.scsi.opcodes import OperationCode, ServiceAction

MAX_TRANSFER_LENGTH = 0xFFFFFF


@cdb(OperationCode.READ_6)
class Read6(Cdb):
    """READ(6). `length` counts bytes, or with `fixed` blocks of the length in the mode parameters.

    `suppress_incorrect_length` (SILI) asks for silence about blocks shorter than `length`.
    """

    suppress_incorrect_length: bool = flag(1, 1)
    fixed: bool = flag(1, 0)
    length: int = at(2, 3)


@cdb(OperationCode.WRITE_6)
class Write6(Cdb):
    """WRITE(6). `length` counts bytes of one block, or with `fixed` blocks."""

    fixed: bool = flag(1, 0)
    length: int = at(2, 3)


@cdb(OperationCode.READ_REVERSE_6)
class ReadReverse6(Cdb):
    """READ REVERSE(6): blocks towards the beginning.

    With `byte_order` (BYTORD) the bytes within a block come as READ gives them, else last first.
    So SSC defines the bit; Fujitsu's M2488, which keeps it reserved (0), has to refuse compressed
    blocks because it "is impossible to transfer the bytes of blocks in reverse order" of them
    (Product Guide CG00000-011503, 4-3.18.2), which is the same reading of 0. No drive with the bit
    has been found documented, and neither mhvtl, SCST, LTFS nor Linux st sends or takes it.
    """

    byte_order: bool = flag(1, 2)
    suppress_incorrect_length: bool = flag(1, 1)
    fixed: bool = flag(1, 0)
    length: int = at(2, 3)


@cdb(OperationCode.RECOVER_BUFFERED_DATA)
class RecoverBufferedData(Cdb):
    """RECOVER BUFFERED DATA: blocks that the drive took and could not put on the medium."""

    suppress_incorrect_length: bool = flag(1, 1)
    fixed: bool = flag(1, 0)
    length: int = at(2, 3)


@cdb(OperationCode.VERIFY_6)
class Verify6(Cdb):
    """VERIFY(6): a READ(6) that transfers nothing, or takes data to compare (`compare`, BYTCMP).

    `length` counts bytes, blocks (`fixed`) or with `by_filemarks` (VBF) marks; `to_end_of_data`
    (VTE) needs none. `protected` (VLBPM) wants logical block protection information looked at.
    """

    to_end_of_data: bool = flag(1, 5)
    protected: bool = flag(1, 4)
    by_filemarks: bool = flag(1, 3)
    immediate: bool = flag(1, 2)
    compare: bool = flag(1, 1)
    fixed: bool = flag(1, 0)
    length: int = at(2, 3)


@cdb(OperationCode.WRITE_FILEMARKS_6)
class WriteFilemarks6(Cdb):
    """WRITE FILEMARKS(6). Without `immediate` all that was written lasts when it ends."""

    immediate: bool = flag(1, 0)
    count: int = at(2, 3)


class SpaceCode(IntEnum):
    """What SPACE counts."""

    BLOCKS = 0
    FILEMARKS = 1
    SEQUENTIAL_FILEMARKS = 2
    END_OF_DATA = 3


@cdb(OperationCode.SPACE_6)
class Space6(Cdb):
    """SPACE(6). `count` is a two's complement number of 24 bits: see `distance`."""

    code: int = bits(1, 3, 4)
    count: int = at(2, 3)

    @property
    def distance(self) -> int:
        """How far, and with a negative sign back."""
        return _signed(self.count, 24)

    @classmethod
    def by(cls, code: SpaceCode, distance: int) -> Self:
        """Return the command that goes this far. Raises ValueError if 24 bits cannot say it."""
        return cls(code, _twos_complement(distance, 24))


@cdb(OperationCode.SPACE_16)
class Space16(Cdb):
    """SPACE(16). `count` is a two's complement number of 64 bits: see `distance`."""

    code: int = bits(1, 3, 4)
    count: int = at(4, 8)

    @property
    def distance(self) -> int:
        """How far, and with a negative sign back."""
        return _signed(self.count, 64)

    @classmethod
    def by(cls, code: SpaceCode, distance: int) -> Self:
        """Return the command that goes this far. Raises ValueError if 64 bits cannot say it."""
        return cls(code, _twos_complement(distance, 64))


@cdb(OperationCode.LOCATE_10)
class Locate10(Cdb):
    """LOCATE(10). `partition` counts only with `change_partition`.

    `block_type` (BT) says that `block` is an address of the vendor's own form.
    """

    block_type: bool = flag(1, 2)
    change_partition: bool = flag(1, 1)
    immediate: bool = flag(1, 0)
    block: int = at(3, 4)
    partition: int = at(8)


class Destination(IntEnum):
    """DEST_TYPE of LOCATE(16): what its identifier numbers."""

    LOGICAL_OBJECT = 0
    LOGICAL_FILE = 1
    END_OF_DATA = 3


@cdb(OperationCode.LOCATE_16)
class Locate16(Cdb):
    """LOCATE(16). `partition` counts only with `change_partition`."""

    destination: int = bits(1, 4, 2)
    change_partition: bool = flag(1, 1)
    immediate: bool = flag(1, 0)
    partition: int = at(3)
    identifier: int = at(4, 8)


@cdb(OperationCode.READ_POSITION, ServiceAction.READ_POSITION_SHORT)
class ReadPositionShort(Cdb):
    """READ POSITION, short form with logical object identifiers: 20 bytes come in."""


@cdb(OperationCode.READ_POSITION, ServiceAction.READ_POSITION_SHORT_VENDOR)
class ReadPositionShortVendor(Cdb):
    """READ POSITION, short form with addresses of the vendor's own: 20 bytes come in."""


@cdb(OperationCode.READ_POSITION, ServiceAction.READ_POSITION_LONG)
class ReadPositionLong(Cdb):
    """READ POSITION, long form: 32 bytes come in."""


@cdb(OperationCode.READ_POSITION, ServiceAction.READ_POSITION_EXTENDED)
class ReadPositionExtended(Cdb):
    """READ POSITION, extended form: 32 bytes."""

    allocation_length: int = at(7, 2)


@cdb(OperationCode.REWIND)
class Rewind(Cdb):
    """REWIND."""

    immediate: bool = flag(1, 0)


@cdb(OperationCode.ERASE_6)
class Erase6(Cdb):
    """ERASE(6): what lies behind the position goes."""

    immediate: bool = flag(1, 1)
    long: bool = flag(1, 0)


@cdb(OperationCode.LOAD_UNLOAD)
class LoadUnload(Cdb):
    """LOAD UNLOAD."""

    immediate: bool = flag(1, 0)
    hold: bool = flag(4, 3)
    end_of_tape: bool = flag(4, 2)
    retension: bool = flag(4, 1)
    load: bool = flag(4, 0)


@cdb(OperationCode.READ_BLOCK_LIMITS)
class ReadBlockLimits(Cdb):
    """READ BLOCK LIMITS: 6 bytes come in, or with `object_identifier` (MLOI) 20."""

    object_identifier: bool = flag(1, 0)


@cdb(OperationCode.PREVENT_ALLOW_MEDIUM_REMOVAL)
class PreventAllowMediumRemoval(Cdb):
    """PREVENT ALLOW MEDIUM REMOVAL."""

    prevent: int = bits(4, 1, 2)


@cdb(OperationCode.REPORT_DENSITY_SUPPORT)
class ReportDensitySupport(Cdb):
    """REPORT DENSITY SUPPORT. `media` asks about the medium in the drive only."""

    medium_type: bool = flag(1, 1)
    media: bool = flag(1, 0)
    allocation_length: int = at(7, 2)


# The explicit address command set (SSC-4 4.2.12): each command says where it begins.


@cdb(OperationCode.READ_16)
class Read16(Cdb):
    """READ(16): a READ(6) from a place."""

    suppress_incorrect_length: bool = flag(1, 1)
    fixed: bool = flag(1, 0)
    partition: int = at(3)
    object: int = at(4, 8)
    length: int = at(12, 3)


@cdb(OperationCode.READ_REVERSE_16)
class ReadReverse16(Cdb):
    """READ REVERSE(16): a READ REVERSE(6) from a place."""

    byte_order: bool = flag(1, 2)
    suppress_incorrect_length: bool = flag(1, 1)
    fixed: bool = flag(1, 0)
    partition: int = at(3)
    object: int = at(4, 8)
    length: int = at(12, 3)


@cdb(OperationCode.VERIFY_16)
class Verify16(Cdb):
    """VERIFY(16): a VERIFY(6) from a place."""

    to_end_of_data: bool = flag(1, 5)
    protected: bool = flag(1, 4)
    by_filemarks: bool = flag(1, 3)
    immediate: bool = flag(1, 2)
    compare: bool = flag(1, 1)
    fixed: bool = flag(1, 0)
    partition: int = at(3)
    object: int = at(4, 8)
    length: int = at(12, 3)


@cdb(OperationCode.WRITE_16)
class Write16(Cdb):
    """WRITE(16): a WRITE(6) at a place. `first` and `last` (FCS, LCS) bracket a sequence."""

    first: bool = flag(1, 3)
    last: bool = flag(1, 2)
    fixed: bool = flag(1, 0)
    partition: int = at(3)
    object: int = at(4, 8)
    length: int = at(12, 3)


@cdb(OperationCode.WRITE_FILEMARKS_16)
class WriteFilemarks16(Cdb):
    """WRITE FILEMARKS(16): a WRITE FILEMARKS(6) at a place."""

    first: bool = flag(1, 3)
    last: bool = flag(1, 2)
    immediate: bool = flag(1, 0)
    partition: int = at(3)
    object: int = at(4, 8)
    count: int = at(12, 3)


@cdb(OperationCode.ERASE_16)
class Erase16(Cdb):
    """ERASE(16): an ERASE(6) from a place."""

    first: bool = flag(1, 3)
    last: bool = flag(1, 2)
    immediate: bool = flag(1, 1)
    long: bool = flag(1, 0)
    partition: int = at(3)
    object: int = at(4, 8)


# The medium as a whole


@cdb(OperationCode.FORMAT_MEDIUM)
class FormatMedium(Cdb):
    """FORMAT MEDIUM. `format` 0: one partition; 1 and 2: those of the medium partition page."""

    verify: bool = flag(1, 1)
    immediate: bool = flag(1, 0)
    format: int = bits(2, 3, 4)
    transfer_length: int = at(3, 2)


@cdb(OperationCode.SET_CAPACITY)
class SetCapacity(Cdb):
    """SET CAPACITY: use `proportion` 65535ths of the medium, empty and in one partition."""

    immediate: bool = flag(1, 0)
    proportion: int = at(3, 2)


class Overwrite(IntEnum):
    """What ALLOW OVERWRITE allows."""

    NOTHING = 0
    CURRENT_POSITION = 1
    FORMAT = 2


@cdb(OperationCode.ALLOW_OVERWRITE)
class AllowOverwrite(Cdb):
    """ALLOW OVERWRITE: lets one command through the append-only mode."""

    allow: int = bits(2, 3, 4)
    partition: int = at(3)
    object: int = at(4, 8)


@cdb(OperationCode.SERVICE_ACTION_IN_12, ServiceAction.READ_MEDIA_SERIAL_NUMBER)
class ReadMediaSerialNumber(Cdb):
    """READ MEDIA SERIAL NUMBER (SPC-4 6.23)."""

    allocation_length: int = at(6, 4)


def _signed(value: int, width: int) -> int:
    return value - (1 << width) if value >> (width - 1) else value


def _twos_complement(value: int, width: int) -> int:
    if not -(1 << width - 1) <= value < 1 << width - 1:
        raise ValueError(f"{value} does not fit {width} bits")
    return value & (1 << width) - 1
