"""A tape drive as typed verbs (SSC-4): blocks of any length, marks, positions."""

from dataclasses import dataclass
from enum import Enum

from serverfree.initiator.unit import Unit
from serverfree.scsi.cdb.layout import Cdb
from serverfree.scsi.cdb.primary import ModeSelect6
from serverfree.scsi.cdb.stream import (
    Destination,
    Erase6,
    LoadUnload,
    Locate10,
    Locate16,
    Read6,
    ReadBlockLimits,
    ReadPositionLong,
    ReadPositionShort,
    Rewind,
    Space6,
    Space16,
    SpaceCode,
    Write6,
    WriteFilemarks6,
)
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.mode import WRITE_PROTECTED, ModeData
from serverfree.scsi.sense import Asc, SenseKey
from serverfree.scsi.tape import (
    BlockLimits,
    DataCompression,
    LongPosition,
    ShortPosition,
    TapeBlockDescriptor,
)

_LARGEST_24 = (1 << 23) - 1


class Stop(Enum):
    """What a tape ends at instead of a block."""

    FILEMARK = "filemark"
    END_OF_DATA = "end of data"
    END_OF_TAPE = "end of tape"
    BEGINNING_OF_TAPE = "beginning of tape"


class BlockTooLong(ValueError):
    """The block on tape is longer than the buffer; the tape stands behind it."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where the tape stands: `block` counts blocks and marks from the beginning of `partition`.

    `file` counts filemarks, None where the drive does not tell. `early_warning`: little room left.
    """

    partition: int
    block: int
    file: int | None
    beginning: bool
    early_warning: bool


@dataclass(frozen=True, slots=True)
class TapeStatus:
    """What `serverfree tape status` shows. `block_length` 0: blocks of any length."""

    ready: bool
    not_ready: str
    write_protected: bool
    block_length: int
    density: int
    compression: bool
    minimum_block: int
    maximum_block: int
    position: Position | None


class Tape(Unit):
    """A sequential-access device in variable block mode.

    What moves or writes depends on where the tape stands, and a unit attention may mean that it
    stands elsewhere now: such verbs are not repeated, the attention is raised.
    """

    _repeatable = False

    # ------------------------------------------------------------------ moving

    def rewind(self) -> None:
        """Go to the beginning of the partition; what was written is on tape then."""
        self.run(Rewind())

    def locate(self, block: int, partition: int | None = None) -> None:
        """Go to a block or mark by its number in this partition, or in another."""
        change = partition is not None
        if block > 0xFFFFFFFF:
            cdb: Cdb = Locate16(change_partition=change, partition=partition or 0, identifier=block)
        else:
            cdb = Locate10(change_partition=change, partition=partition or 0, block=block)
        self.run(cdb)

    def locate_file(self, file: int) -> None:
        """Go behind the filemark that begins this file; file 0 is the beginning."""
        self.run(Locate16(destination=Destination.LOGICAL_FILE, identifier=file))

    def end_of_data(self) -> None:
        """Go to where new blocks can be added."""
        self.run(Space6.by(SpaceCode.END_OF_DATA, 0))

    def space_filemarks(self, count: int) -> Stop | None:
        """Go over filemarks, back with a negative count; return what stopped it, or None."""
        return self._space(SpaceCode.FILEMARKS, count)

    def space_blocks(self, count: int) -> Stop | None:
        """Go over blocks, back with a negative count; a filemark on the way stops behind it."""
        return self._space(SpaceCode.BLOCKS, count)

    def _space(self, code: SpaceCode, count: int) -> Stop | None:
        cdb = Space6 if abs(count) <= _LARGEST_24 else Space16
        try:
            self.run(cdb.by(code, count))
        except CheckCondition as error:
            stop = _stop(error)
            if stop is None:
                raise
            return stop
        return None

    def position(self) -> Position:
        """Where the tape stands (READ POSITION, long form, or short where that is unknown)."""
        try:
            data = self.fetch(ReadPositionLong(), LongPosition.size())
        except CheckCondition as error:
            if error.sense.key is not SenseKey.ILLEGAL_REQUEST:
                raise
            return self._short_position()
        place = LongPosition.unpack(data)
        return Position(
            place.partition,
            place.block,
            None if place.marks_unknown else place.file,
            place.beginning_of_partition,
            place.end_of_partition,
        )

    def _short_position(self) -> Position:
        place = ShortPosition.unpack(self.fetch(ReadPositionShort(), ShortPosition.size()))
        if place.unknown or place.overflow:
            raise ValueError(f"{self.device} does not know where it stands")
        return Position(
            place.partition, place.first, None, place.beginning_of_partition, place.end_of_partition
        )

    # ------------------------------------------------------------------ reading and writing

    def read_block(self, buffer: memoryview) -> memoryview | Stop:
        """Read the next block into the buffer and return the part it fills, or what stopped it.

        A filemark is passed. Raises BlockTooLong if the buffer is shorter than the block.
        """
        try:
            result = self.run(Read6(length=len(buffer)), data_in=buffer)
        except CheckCondition as error:
            sense = error.sense
            if sense.ili and sense.information is not None:
                if sense.information < 0:
                    length = len(buffer) - sense.information
                    raise BlockTooLong(
                        f"{self.device}: the block has {length} bytes, room is for {len(buffer)}"
                    ) from None
                return buffer[: len(buffer) - sense.information]
            stop = _stop(error)
            if stop is None:
                raise
            return stop
        return buffer[: result.transferred]

    def write_block(self, data: bytes | bytearray | memoryview) -> bool:
        """Write one block; return True if it is on tape but little room is left (early warning).

        Raises CheckCondition with VOLUME OVERFLOW if it did not fit.
        """
        return self._write(Write6(length=len(data)), data)

    def write_filemarks(self, count: int = 1, *, immediate: bool = False) -> bool:
        """Write filemarks (0: only put on tape what is buffered); returns as `write_block` does."""
        return self._write(WriteFilemarks6(immediate=immediate, count=count))

    def _write(self, cdb: Cdb, data: bytes | bytearray | memoryview = b"") -> bool:
        try:
            self.run(cdb, data_out=data)
        except CheckCondition as error:
            # NO SENSE with EOM and no residue: all is on tape, and the end is near.
            sense = error.sense
            if sense.key is SenseKey.NO_SENSE and sense.eom and not sense.information:
                return True
            raise
        return False

    def erase(self, *, long: bool = False) -> None:
        """Erase from here on."""
        self.run(Erase6(long=long))

    # ------------------------------------------------------------------ drive and cartridge

    def load(self) -> None:
        self.run(LoadUnload(load=True))

    def unload(self) -> None:
        """Rewind and take the cartridge out of use; what was written is on tape then."""
        self.run(LoadUnload(load=False))

    def block_limits(self) -> BlockLimits:
        """The block lengths that the drive takes."""
        return BlockLimits.unpack(self.fetch(ReadBlockLimits(), BlockLimits.size()))

    def set_block_length(self, length: int) -> None:
        """Choose fixed blocks of this length, or with 0 blocks of any length (MODE SELECT)."""
        density = _block_descriptor(self.mode_sense()).density
        descriptor = TapeBlockDescriptor(density, 0, length).pack()
        # SSC: BUFFERED MODE 1, as MODE SENSE reports it; 0 would slow every write.
        parameters = ModeData(device_specific=0x10, block_descriptor=descriptor).pack(ten=False)
        # MODE DATA LENGTH is reserved in MODE SELECT.
        parameters = b"\0" + parameters[1:]
        self.run(ModeSelect6(parameter_list_length=len(parameters)), data_out=parameters)

    def status(self) -> TapeStatus:
        """Everything at a glance; a drive without a cartridge says so instead of failing."""
        try:
            self.ready()
            not_ready = ""
        except CheckCondition as error:
            not_ready = str(error.sense)
        mode = self.mode_sense()
        descriptor, limits = _block_descriptor(mode), self.block_limits()
        return TapeStatus(
            ready=not not_ready,
            not_ready=not_ready,
            write_protected=bool(mode.device_specific & WRITE_PROTECTED),
            block_length=descriptor.block_length,
            density=descriptor.density,
            compression=_compression(mode),
            minimum_block=limits.minimum,
            maximum_block=limits.maximum,
            position=None if not_ready else self.position(),
        )


def _stop(error: CheckCondition) -> Stop | None:
    """Read from its sense what stopped a tape, None if it is a real failure."""
    sense = error.sense
    if sense.filemark:
        return Stop.FILEMARK
    if sense.key is SenseKey.BLANK_CHECK:
        return Stop.END_OF_DATA
    if sense.asc is Asc.BEGINNING_OF_PARTITION_MEDIUM_DETECTED:
        return Stop.BEGINNING_OF_TAPE
    if sense.eom and sense.asc is Asc.END_OF_PARTITION_MEDIUM_DETECTED:
        return Stop.END_OF_TAPE
    return None


def _block_descriptor(mode: ModeData) -> TapeBlockDescriptor:
    return TapeBlockDescriptor.unpack(mode.block_descriptor)


def _compression(mode: ModeData) -> bool:
    for page in mode.pages:
        if page[0] & 0x7F == DataCompression.PAGE_CODE:
            return DataCompression.unpack(page).enabled
    return False
