"""A tape drive driven by bare CDB bytes, and sense in the words of the tables."""

import os
from dataclasses import dataclass
from pathlib import Path

from serverfree.scsi.sense import Asc, FieldPointer, Sense, SenseKey
from serverfree.scsi.status import Status
from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.units.command import Command, Nexus, Reply
from serverfree.target.units.stream import StreamUnit

OVERHEAD = 72  # log bytes of a record beside its payload, as the format has it

# Where a sync costs nothing, for tests that make hundreds of cartridges; None: the usual place.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

BLOCKS, FILEMARKS, END_OF_DATA = 0, 1, 3  # what SPACE counts

REWIND = bytes.fromhex("01 00 00 00 00 00")
UNLOAD = bytes.fromhex("1b 00 00 00 00 00")
LOAD = bytes.fromhex("1b 00 00 00 01 00")
TEST_UNIT_READY = bytes(6)


def read(length: int, *, fixed: bool = False, sili: bool = False) -> bytes:
    """READ(6)."""
    return bytes((0x08, sili << 1 | fixed)) + length.to_bytes(3, "big") + b"\0"


def write(length: int, *, fixed: bool = False) -> bytes:
    """WRITE(6)."""
    return bytes((0x0A, fixed)) + length.to_bytes(3, "big") + b"\0"


def filemarks(count: int, *, immediate: bool = False) -> bytes:
    """WRITE FILEMARKS(6)."""
    return bytes((0x10, immediate)) + count.to_bytes(3, "big") + b"\0"


def space(code: int, count: int) -> bytes:
    """SPACE(6): code 0 blocks, 1 filemarks, 3 end of data."""
    return bytes((0x11, code)) + count.to_bytes(3, "big", signed=True) + b"\0"


def locate(block: int) -> bytes:
    """LOCATE(10)."""
    return b"\x2b\0\0" + block.to_bytes(4, "big") + b"\0\0\0"


def locate16(identifier: int, destination: int = 0) -> bytes:
    """LOCATE(16)."""
    return bytes((0x92, destination << 3, 0, 0)) + identifier.to_bytes(8, "big") + bytes(4)


@dataclass(frozen=True)
class Drive:
    """A stream unit and a nexus that has heard its unit attentions."""

    unit: StreamUnit
    nexus: Nexus

    def __call__(self, cdb: bytes, data: bytes = b"", nexus: Nexus | None = None) -> Reply:
        """Run a command, and what the unit does while the answer is on its way."""
        reply = self.unit.execute(Command(nexus or self.nexus, cdb, data))
        if reply.after:
            reply.after()
        return reply

    def good(self, cdb: bytes, data: bytes = b"") -> bytes:
        """Run a command that must end with GOOD; return its data."""
        reply = self(cdb, data)
        assert (reply.status, reply.sense) == (Status.GOOD, None), f"{cdb.hex(' ')}: {reply.sense}"
        return bytes(reply.data)

    def sense(self, cdb: bytes, data: bytes = b"") -> Sense:
        """Run a command that must end with CHECK CONDITION; return its sense as it travels."""
        reply = self(cdb, data)
        assert reply.status is Status.CHECK_CONDITION
        assert reply.sense is not None
        raw = reply.sense.pack()
        assert raw[0] & 0x7F == 0x70, "fixed format, current"
        sense = Sense.unpack(raw)
        sense.raw = b""
        return sense

    @property
    def block(self) -> int:
        """FIRST LOGICAL OBJECT LOCATION of READ POSITION, short form."""
        return int.from_bytes(self.good(bytes.fromhex("34 00 00 00 00 00 00 00 00 00"))[4:8], "big")

    @property
    def file(self) -> int:
        """LOGICAL FILE IDENTIFIER of READ POSITION, long form."""
        data = self.good(bytes.fromhex("34 06 00 00 00 00 00 00 00 00"))
        return int.from_bytes(data[16:24], "big")

    def set_block_length(self, length: int) -> None:
        """MODE SELECT(6) with a block descriptor only, as `mt setblk` sends it."""
        data = bytes((0, 0, 0x10, 8, 0, 0, 0, 0, 0)) + length.to_bytes(3, "big")
        self.good(bytes.fromhex("15 10 00 00 0c 00"), data)

    def fill(self, tape: str) -> None:
        """Write a tape from a picture: letters are blocks, `|` filemarks; then rewind.

        A lower-case letter is a block of 100 bytes of it, an upper-case one of 200.
        """
        for letter in tape:
            if letter == "|":
                self.good(filemarks(1, immediate=True))
            else:
                data = letter.encode() * (100 if letter.islower() else 200)
                self.good(write(len(data)), data)
        self.good(REWIND)


def make_drive(
    directory: Path, *, capacity: int = 1 << 20, early_warning: int | None = None
) -> Drive:
    """A drive with a new cartridge, or with the one that is there."""
    cartridge = open_cartridge(directory, capacity, early_warning=early_warning)
    nexus = Nexus("iqn.test:initiator", "iqn.test:target")
    unit = StreamUnit("tape", cartridge, target="iqn.test:target")
    unit.attach(nexus)
    unit.attentions.take(nexus)
    return Drive(unit, nexus)


def make_small_drive(directory: Path) -> Drive:
    """Room for ten blocks of 1000 bytes, early warning after the eighth."""
    block = 1000 + OVERHEAD
    return make_drive(directory, capacity=10 * block, early_warning=8 * block)


def sense(
    key: int,
    asc: int,
    information: int | None = None,
    *,
    filemark: bool = False,
    eom: bool = False,
    ili: bool = False,
) -> Sense:
    """What a row of the sense table says."""
    return Sense(SenseKey(key), Asc(asc), information, filemark=filemark, eom=eom, ili=ili)


def invalid_field(byte: int, bit: int | None = None) -> Sense:
    """INVALID FIELD IN CDB, pointing at it."""
    expected = sense(5, 0x2400)
    expected.pointer = FieldPointer(byte, bit, in_cdb=True)
    return expected
