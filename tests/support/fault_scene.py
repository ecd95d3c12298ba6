"""Disks and tapes on which copies are tried with every fault, and what a copy says of it.

The devices stand there twice: as model devices that the data mover talks to, and as the values of
`copy_model`. Sense data is read by hand, in fixed and in descriptor format.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from serverfree.datamover.manager import CopyManager
from serverfree.scsi.copy_cscd import Cscd
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_segments import Segment, VerifyCscd, WriteFilemarks
from serverfree.scsi.device import Result
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.sense import Sense
from serverfree.scsi.status import Status
from support.copies import NEXUS, ModelFabric, SenseBytes, cscd, forwarded
from support.copies import noise as make_noise
from support.copy_model import ModelDisk, ModelTape
from support.fake_devices import (
    FILEMARK,
    READ_6,
    READ_16,
    WRITE_6,
    WRITE_16,
    WRITE_FILEMARKS_6,
    CarrierLost,
    FakeDevice,
    FakeDisk,
    FakeTape,
    check_condition,
    give,
    sense_bytes,
)

noise = functools.cache(make_noise)

DISK, OTHER, TAPE, OUT = range(4)  # the devices, and their CSCD descriptors
SEGMENT = 1  # the one that is tried; before it stands a look at a CSCD, behind it a filemark
BLOCKS = 24
INLINE = noise(64, 9)
IDENTIFIER = 5
READ_BLOCK_LIMITS, SPACE_6, PERSISTENT_RESERVE_OUT = 0x05, 0x11, 0x5F

FUNCTIONS = {0x07, 0x10, 0x11, 0x12, 0x14, 0x15, 0xBE, 0xBF, 0xC1}
"""Types of segments that leave residue as it is and move no data (SPC-4 table 115)."""

FIXED_SENSE = sense_bytes(3, 0x1100, information=7)
DESCRIPTOR_SENSE = bytes.fromhex("72 03 11 00 00 00 00 0c 00 0a 80 00 00 00 00 00 00 00 00 07")
READS = {DISK: READ_16, OTHER: READ_16, TAPE: READ_6, OUT: READ_6}
WRITES = {DISK: WRITE_16, OTHER: WRITE_16, TAPE: WRITE_6, OUT: WRITE_6}

FAULTS = (
    (check_condition(FIXED_SENSE), forwarded(FIXED_SENSE)),
    (check_condition(DESCRIPTOR_SENSE), forwarded(DESCRIPTOR_SENSE)),
    (CarrierLost(), b""),
)
"""What a command ends with, and what of that is forwarded. They take turns."""


class Drive(FakeTape):
    """A tape that also tells how long its blocks may be, spaces, and takes reservations.

    With `full` there is no room for a filemark any more, with `warns_marks` it is near the end.
    """

    full = warns_marks = False

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.reservations: list[bytes] = []

    def command(self, cdb: bytes, out: bytes, into: memoryview | None) -> Result:
        if cdb[0] == READ_BLOCK_LIMITS:
            return give(into, bytes.fromhex("00 00 20 00 00 01"))
        if cdb[0] == SPACE_6:
            return self.space(cdb[1] & 0x0F, int.from_bytes(cdb[2:5], "big", signed=True))
        if cdb[0] == PERSISTENT_RESERVE_OUT:
            self.reservations.append(cdb[1:2] + out)
            return Result(Status.GOOD)
        if cdb[0] == WRITE_FILEMARKS_6 and self.full:
            left = int.from_bytes(cdb[2:5], "big")
            return check_condition(sense_bytes(13, 0x0002, eom=True, information=left))
        done = super().command(cdb, out, into)
        if cdb[0] == WRITE_FILEMARKS_6 and self.warns_marks:
            return check_condition(sense_bytes(0, 0x0002, eom=True, information=0))
        return done

    def space(self, code: int, count: int) -> Result:
        """SPACE over blocks: a filemark or an end stops it (SSC-4 7.9)."""
        assert code == 0, "only blocks are spaced over here"
        for done in range(abs(count)):
            left = abs(count) - done
            at = self.position - (count < 0)
            if at < 0:
                return check_condition(sense_bytes(0, 0x0004, eom=True, information=left))
            if at == len(self.blocks):
                return check_condition(sense_bytes(8, 0x0005, information=left))
            self.position += 1 if count > 0 else -1
            if self.blocks[at] is FILEMARK:
                return check_condition(sense_bytes(0, 0x0001, filemark=True, information=left))
        return Result(Status.GOOD)


class ReservableDisk(FakeDisk):
    """A disk that takes reservations."""

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.reservations: list[bytes] = []

    def command(self, cdb: bytes, out: bytes, into: memoryview | None) -> Result:
        if cdb[0] == PERSISTENT_RESERVE_OUT:
            self.reservations.append(cdb[1:2] + out)
            return Result(Status.GOOD)
        return super().command(cdb, out, into)


@dataclass
class Scene:
    """Two disks and two tapes, once as devices and once as the model's values.

    Transfers of a tape are one block, or two blocks with `fixed`; disks take a block a command.
    """

    block: int
    fixed: bool
    pad: bool
    cat: bool
    devices: list[FakeDevice] = field(init=False)
    manager: CopyManager = field(init=False)

    def __post_init__(self) -> None:
        self.other_block = 4608 - self.block
        self.unit, self.out_unit = (600, 1024) if self.fixed else (700, 900)
        contents = noise(self.block * BLOCKS, 1), noise(self.other_block * BLOCKS, 2)
        records = [noise(self.unit, 3 + n) for n in range(40)]
        half = self.unit // 2
        pieces = [part for one in records for part in (one[:half], one[half:])]
        self.tape = Drive(pieces if self.fixed else records, half if self.fixed else 0)
        self.out = Drive(block_length=512 if self.fixed else 0)
        self.disk = ReservableDisk(contents[0], self.block, most=1)
        self.other = ReservableDisk(contents[1], self.other_block, most=1)
        self.devices = [self.disk, self.other, self.tape, self.out]
        self.model = [
            ModelDisk(contents[0], self.block, self.pad),
            ModelDisk(contents[1], self.other_block, self.pad),
            ModelTape(list(records), 0, self.pad),
            ModelTape([], 0, self.pad),
        ]

    @property
    def transfer(self) -> int:
        """TRANSFER LENGTH of a read of the tape."""
        return 2 if self.fixed else self.unit

    @property
    def out_transfer(self) -> int:
        return 2 if self.fixed else self.out_unit

    def around(self, segment: Segment) -> list[Segment]:
        """A segment between a look at a CSCD and a filemark: it is segment 1 then."""
        return [VerifyCscd(DISK), segment, WriteFilemarks(OUT)]

    def copy(
        self,
        segments: Sequence[Segment],
        aborted: Callable[[], bool] = lambda: False,
        *,
        more_cscds: Sequence[Cscd] = (),
        manager: CopyManager | None = None,
    ) -> Sense | None:
        """Return the sense data that a copy ends with, None if it ends well."""
        cscds = [cscd(number, one, pad=self.pad) for number, one in enumerate(self.devices)]
        self.manager = manager or CopyManager(ModelFabric(*self.devices))
        copy_list = CopyList([*cscds, *more_cscds], segments, INLINE, IDENTIFIER)
        try:
            self.manager.extended_copy(NEXUS, copy_list.pack(), aborted)
        except CheckCondition as error:
            return error.sense
        finally:
            assert not any(device._queue for device in self.devices), "nothing is under way"
        return None

    def held(self) -> bytes:
        """What the copy has held, by RECEIVE COPY DATA(LID1)."""
        response = self.manager.receive_copy_results(NEXUS, 1, IDENTIFIER, 1 << 20)
        assert int.from_bytes(response[:4], "big") == len(response) - 4
        return response[4:]

    def count(self, device: int, opcode: int) -> int:
        return sum(cdb[0] == opcode for cdb in self.devices[device].log)


@dataclass
class Told:
    """What sense data of both formats says, which must be the same."""

    code: int
    segment: int
    residual: int | None
    source: bytes
    destination: bytes
    pointer: tuple[str, int] | None

    @classmethod
    def of(cls, sense: Sense) -> "Told":
        fixed = SenseBytes(sense.pack())
        told = cls(
            fixed.code, fixed.segment, fixed.residual, fixed.source, fixed.destination,
            fixed.pointer,
        )  # fmt: skip
        if told.source and told.destination:  # the first area ends where the second begins
            told.source = told.source[: -len(told.destination)]
        assert told == cls.of_descriptors(sense.pack_descriptors())
        return told

    @classmethod
    def of_descriptors(cls, raw: bytes) -> "Told":
        """SPC-4 4.5.2: 72h, key, code, then descriptors of type and length."""
        assert (raw[0], raw[1], raw[7]) == (0x72, 0x0A, len(raw) - 8)
        told = cls(int.from_bytes(raw[2:4], "big"), -1, None, b"", b"", None)
        at = 8
        while at < len(raw):
            kind, length = raw[at], raw[at + 1]
            body = raw[at + 2 : at + 2 + length]
            match kind:
                case 0x00:
                    assert body[0] == 0x80
                    told.residual = int.from_bytes(body[2:10], "big")
                case 0x01:
                    told.segment = int.from_bytes(body[8:10], "big")
                case 0x02:
                    where = "segment" if body[2] & 0x20 else "list"
                    told.pointer = where, int.from_bytes(body[3:5], "big")
                case 0x0C if body[0] == 1:
                    told.source = body[1:]
                case 0x0C if body[0] == 2:
                    told.destination = body[1:]
                case _:
                    raise AssertionError(f"descriptor {kind:02X}h in {raw.hex(' ')}")
            at += 2 + length
        return told


def some_of(numbers: range) -> list[int]:
    """The first and the last, and one in the middle."""
    return sorted({numbers[0], numbers[len(numbers) // 2], numbers[-1]}) if numbers else []


SETTINGS = list(itertools.product((512, 4096), *[(False, True)] * 3))
"""Block length, fixed, PAD, CAT: every way a segment may be set."""

PAIRS = [(512, False, False, False), (4096, False, True, True), (512, True, False, True)]
PAIRS += [(4096, True, True, False)]
"""Some of them: every two of the latter three meet in each combination."""
