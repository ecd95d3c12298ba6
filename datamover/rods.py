"""Representations of data: ranges of a medium, now or at a point in time, as a block device.

SPC-4 5.17.6 and 5.17.7.6. What the data lies on is told by a `Medium`; a ROD is read with the
commands of a disk, so that everything that reads a disk can read a ROD.
"""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from serverfree.datamover.units import Facts
from serverfree.scsi.capacity import Capacity16
from serverfree.scsi.cdb.block import Read16, ReadCapacity16
from serverfree.scsi.device import Buffer, Result
from serverfree.scsi.errors import CheckCondition, illegal_request
from serverfree.scsi.inquiry import DeviceType, StandardInquiry
from serverfree.scsi.opcodes import OperationCode
from serverfree.scsi.rod_token import Range, RodType
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.scsi.status import Status


class Hold(Protocol):
    """Ranges of a medium that somebody keeps."""

    @property
    def valid(self) -> bool:
        """Whether they still read as they did when they were taken hold of."""

    def read(self, offset: int, length: int) -> Buffer:
        """Return bytes of the medium. Raises OSError; look at `valid` afterwards."""

    def lend(self, offset: int, length: int) -> object:
        """Return bytes of the medium as a `Taker` takes them, None to have them read."""

    def release(self) -> None:
        """Let go of them; more than once does nothing."""


class Medium(Protocol):
    """The blocks of the unit that contains a copy manager, as far as RODs can be made of them."""

    @property
    def rod_types(self) -> Collection[RodType]:
        """The types that `hold` can make."""

    @property
    def block_length(self) -> int:
        """Bytes of a block."""

    @property
    def blocks(self) -> int:
        """How many there are."""

    def capacity(self) -> bytes:
        """Return the parameter data of READ CAPACITY(16)."""

    def hold(self, rod_type: RodType, ranges: Sequence[tuple[int, int]]) -> Hold:
        """Keep byte ranges (offset, length) as they are at this moment, as the type demands.

        Raises OSError or ValueError if that cannot be.
        """


@dataclass(frozen=True, slots=True)
class _Piece:
    hold: Hold
    offset: int  # on the medium
    length: int


@dataclass(slots=True, eq=False)
class Rod:
    """A representation of data: pieces one behind the other, of whole blocks."""

    type: RodType
    block_length: int
    capacity: bytes = b""
    pieces: list[_Piece] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes that it represents."""
        return sum(piece.length for piece in self.pieces)

    @property
    def valid(self) -> bool:
        """Whether it can still be read."""
        return all(piece.hold.valid for piece in self.pieces)

    def populate(self, medium: Medium, ranges: Sequence[Range]) -> None:
        """Add blocks of a medium. Raises the ILLEGAL REQUEST of what cannot be kept."""
        length = medium.block_length
        places = [(lba * length, blocks * length) for lba, blocks in ranges if blocks]
        if not places:
            return
        try:
            hold = medium.hold(self.type, places)
        except (OSError, ValueError):
            raise illegal_request(Asc.INSUFFICIENT_RESOURCES_TO_CREATE_ROD) from None
        self.pieces += [_Piece(hold, offset, size) for offset, size in places]

    def read_into(self, offset: int, into: memoryview) -> None:
        """Read bytes; behind the end there are zeros. Raises OSError, CheckCondition."""
        at = 0
        for piece in self.pieces:
            skip = max(0, offset - at)
            if skip < piece.length and len(into):
                size = min(piece.length - skip, len(into))
                into[:size] = memoryview(piece.hold.read(piece.offset + skip, size))
                if not piece.hold.valid:
                    raise illegal_request(Asc.INVALID_TOKEN_OPERATION_TOKEN_CANCELLED)
                into, offset = into[size:], offset + size
            at += piece.length
        into[:] = bytes(len(into))

    def lend(self, offset: int, length: int) -> object:
        """Return bytes as a `Taker` takes them, None to have them read: they lie in one piece."""
        at = 0
        for piece in self.pieces:
            if at <= offset and offset + length <= at + piece.length:
                return piece.hold.lend(piece.offset + offset - at, length)
            at += piece.length
        return None

    def release(self) -> None:
        """Let go of everything."""
        for piece in self.pieces:
            piece.hold.release()


def zeros(block_length: int) -> Rod:
    """Return what the block device zero ROD token stands for, on a unit with such blocks."""
    return Rod(RodType.BLOCK_DEVICE_ZERO, block_length)


@dataclass(frozen=True, slots=True)
class _Ended:
    result: Result

    def wait(self, timeout: float | None = None) -> Result:
        return self.result


class RodDevice:
    """A ROD as a disk of `blocks` blocks, by default as many as it represents."""

    def __init__(self, rod: Rod, blocks: int | None = None) -> None:
        self.facts: Facts | None = None
        self.rod = rod
        self._blocks = rod.size // rod.block_length if blocks is None else blocks
        self._commands: dict[int, Callable[[bytes, memoryview], Result]] = {
            OperationCode.INQUIRY: self._inquiry,
            OperationCode.SERVICE_ACTION_IN_16: self._capacity,
            OperationCode.READ_16: self._read,
        }

    @property
    def identity(self) -> Hashable:
        """The ROD: two CSCD descriptors of one token read the same data."""
        return id(self.rod)

    def submit(
        self,
        cdb: bytes,
        *,
        data_out: Buffer | Sequence[Buffer] = b"",
        data_in: memoryview | None = None,
    ) -> _Ended:
        """Run a command. There are those that a copy sends to a disk it reads."""
        if cdb[0] == OperationCode.TEST_UNIT_READY:
            return _Ended(Result(Status.GOOD))
        run = self._commands.get(cdb[0], self._unknown)
        try:
            return _Ended(run(cdb, memoryview(b"") if data_in is None else data_in))
        except CheckCondition as error:
            return _Ended(Result(Status.CHECK_CONDITION, error.sense))
        except OSError:
            failure = Sense(SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR)
            return _Ended(Result(Status.CHECK_CONDITION, failure))

    def lend(self, cdb: bytes) -> tuple[Result, object]:
        """See Lender. What is wrong with a READ will show when the data is read."""
        wanted = Read16.unpack(cdb)
        length = self.rod.block_length
        lent = self.rod.lend(wanted.lba * length, wanted.blocks * length)
        return Result(Status.GOOD), lent

    def close(self, *, broken: bool = False) -> None:
        """The ROD is not this device's to let go of."""

    def _inquiry(self, cdb: bytes, into: memoryview) -> Result:
        if cdb[1] & 1:
            raise illegal_request(Asc.INVALID_FIELD_IN_CDB)
        return _give(into, StandardInquiry(device_type=DeviceType.DISK).pack())

    def _capacity(self, cdb: bytes, into: memoryview) -> Result:
        if cdb[1] & 0x1F != ReadCapacity16.SERVICE_ACTION:
            raise illegal_request(Asc.INVALID_FIELD_IN_CDB)
        return _give(into, Capacity16(self._blocks - 1, self.rod.block_length).pack())

    def _read(self, cdb: bytes, into: memoryview) -> Result:
        wanted = Read16.unpack(cdb)
        if wanted.lba + wanted.blocks > self._blocks:
            raise illegal_request(Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
        size = wanted.blocks * self.rod.block_length
        self.rod.read_into(wanted.lba * self.rod.block_length, into[:size])
        return Result(Status.GOOD, transferred=size)

    def _unknown(self, cdb: bytes, into: memoryview) -> Result:
        raise illegal_request(Asc.INVALID_COMMAND_OPERATION_CODE)


def _give(into: memoryview, data: bytes) -> Result:
    size = min(len(into), len(data))
    into[:size] = data[:size]
    return Result(Status.GOOD, transferred=size)


def choose(rod_type: RodType, medium: Medium) -> RodType:
    """Return the type that is made where this one is asked for (5.17.6.2.3.5)."""
    if rod_type is not RodType.ANY_POINT_IN_TIME:
        return rod_type
    keeps = RodType.PERSISTENT in medium.rod_types
    return RodType.PERSISTENT if keeps else RodType.CHANGE_VULNERABLE
