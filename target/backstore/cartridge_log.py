"""The record log of a tape partition: `partN.log`, append-only, checked, readable both ways.

All numbers are little-endian. After a file header the log holds one record per logical object:

    header   64 bytes  what the record is, where it belongs, a CRC32C of these 60 bytes
    payload            the logical block, coded as the header's flags say; nothing for a filemark
    trailer   8 bytes  stored length, and a CRC32C of header, payload and that length

The length in the trailer lets a reader walk backwards, its CRC shows a torn or damaged record. The
CRC stands last, so the CRC32C of a whole good record is the polynomial's constant residue: one
read and one call check everything. Because the header is under it, a payload can never be taken
for that of another block. A header names its cartridge and its own offset, so a copy of a log that
was written to tape as data is never taken for records.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import google_crc32c

from serverfree.scsi.device import Buffer
from serverfree.target.backstore.cartridge_behind import WriteBehind
from serverfree.target.backstore.cartridge_errors import CartridgeError
from serverfree.target.backstore.file import KEEP_SIZE, fallocate

crc32c = google_crc32c.value
crc32c_extend = google_crc32c.extend

VERSION = 1
_RESIDUE = 0x48674BC7  # CRC32C of any message that ends with its own CRC32C

_FILE_HEADER = Struct("<8sHH16s32xI")
_FILE_MAGIC = b"SRVFTAPE"
LOG_START = _FILE_HEADER.size

# magic, version, type, flags, block, file, plain and stored length, previous record, generation,
# cartridge, own offset
_HEADER = Struct("<4sBBHQQIIQI8sQ")
_IDENTITY = Struct("<4sxBHQ8xII8xI8s8x")  # of these what tells a whole record from others
_MAGIC = b"\xabSFR"
_CRC = Struct("<I")
_TRAILER = Struct("<II")
HEADER_LENGTH = _HEADER.size + _CRC.size
OVERHEAD = HEADER_LENGTH + _TRAILER.size  # bytes of log that a record takes beside its payload
NO_PREVIOUS = 0

MAX_RECORD = 0xFFFFFF  # what a READ(6) can ask for
_IOV_MAX = 1024
_SEARCH_CHUNK = 1 << 20
_RESERVE = 32 << 20
_RESERVE_LEFT = 1 << 20  # more than a file system takes for its own ends
_STATUS_BLOCK = 512  # what stat(2) counts in
_PAGE = 4096
_ZEROS = bytes(_PAGE)
_BAD_PLACE = 4096  # what a disk that cannot read something is allowed to keep from us


class RecordType(IntEnum):
    """What a record is."""

    DATA = 1
    FILEMARK = 2
    LOST = 255  # never in a log: stands in an index for an object whose record cannot be found


class Coding(IntFlag):
    """What was done to a block before it was stored, in this order; no flag: nothing."""

    COMPRESSED = 1
    ENCRYPTED = 2
    UNREADABLE = 4  # came from a tape image in which it is marked as read with an error


_CODINGS = int(Coding.COMPRESSED | Coding.ENCRYPTED | Coding.UNREADABLE)


class StoredBlock(NamedTuple):
    """A block as the log keeps it: its bytes, its length when decoded, and the `Coding`."""

    payload: Buffer
    length: int
    coding: int = 0


@dataclass(slots=True)
class RecordHeader:
    """A record's header, its CRC checked.

    `block` counts logical objects (blocks and filemarks) before it, `file` the filemarks before
    it. `previous` is the offset of the record before, `NO_PREVIOUS` for the first. `generation`
    says which overwrite of the partition wrote it.
    """

    type: int
    block: int
    file: int
    length: int
    stored_length: int
    previous: int
    generation: int
    coding: int = 0

    @property
    def record_length(self) -> int:
        """Bytes of log from this header to the next."""
        return self.stored_length + OVERHEAD


def _as_it_lies(payload: Buffer) -> Buffer:
    """Return a payload as the CRC32C takes it, without the copy that costs more than the CRC.

    The function refuses what must be released after use, as a view must; an array of ctypes over
    the same memory need not be.
    """
    if isinstance(payload, bytes):
        return payload
    view = memoryview(payload)
    if view.readonly or not len(view):
        return bytes(view)
    return (ctypes.c_char * len(view)).from_buffer(view)  # type: ignore[return-value]


class RecordLog:
    """An open `partN.log`. Knows records and their bytes, not which of them count.

    What an overwrite leaves behind the records stays until it is written over or given back: to
    free and to find the same room again costs a file system more than the writing itself.
    """

    def __init__(self, path: Path, fd: int, cartridge: bytes) -> None:
        self.path = path
        self.fd = fd
        self._salt = cartridge[:8]
        self._reserved = 0
        self._old_end = 0  # where that ends which is left of records that count no more
        self._behind = WriteBehind(fd)

    @classmethod
    def create(cls, path: Path, partition: int, cartridge: bytes) -> None:
        """Make a log without records and put it on stable storage."""
        with path.open("wb") as file:
            file.write(cls.file_header(partition, cartridge))
            file.flush()
            os.fsync(file.fileno())

    @staticmethod
    def file_header(partition: int, cartridge: bytes) -> bytes:
        """What a log begins with."""
        head = _FILE_HEADER.pack(_FILE_MAGIC, VERSION, partition, cartridge, 0)[: -_CRC.size]
        return head + _CRC.pack(crc32c(head))

    @classmethod
    def open(cls, path: Path, partition: int, cartridge: bytes) -> "RecordLog":
        """Open a log. Raises CartridgeError unless it is this partition's log of this cartridge."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise CartridgeError(f"{path}: {error.strerror}") from error
        log = cls(path, fd, cartridge)
        try:
            log._check_file_header(partition, cartridge)
        except BaseException:
            os.close(fd)
            raise
        return log

    def _check_file_header(self, partition: int, cartridge: bytes) -> None:
        raw = os.pread(self.fd, LOG_START, 0)
        # A damaged file header harms no record: what it says is also in the superblocks and in
        # each record. Only a sound header that says otherwise means that files were mixed up.
        if len(raw) < LOG_START or crc32c(raw[: -_CRC.size]) != _CRC.unpack(raw[-_CRC.size :])[0]:
            return
        magic, version, number, owner, _ = _FILE_HEADER.unpack(raw)
        if magic != _FILE_MAGIC or version != VERSION:
            raise CartridgeError(f"{self.path}: not a version {VERSION} record log")
        if (number, owner) != (partition, cartridge):
            raise CartridgeError(f"{self.path}: belongs to another cartridge or partition")

    def pack(
        self,
        kind: RecordType,
        block: int,
        file: int,
        payload: Buffer,
        previous: int,
        generation: int,
        offset: int,
        plain_length: int,
        coding: int,
    ) -> tuple[bytes, Buffer, bytes]:
        """Return a record as header, payload and trailer. The payload is not copied."""
        length = len(payload)
        head = _HEADER.pack(
            _MAGIC,
            VERSION,
            kind,
            coding,
            block,
            file,
            plain_length,
            length,
            previous,
            generation,
            self._salt,
            offset,
        )
        head += _CRC.pack(crc32c(head))
        stored = _CRC.pack(length)
        # The header ends with its own CRC too, so its CRC as a whole is known.
        crc = crc32c_extend(crc32c_extend(_RESIDUE, _as_it_lies(payload)), stored)
        return head, payload, stored + _CRC.pack(crc)

    def write(self, pieces: Sequence[Buffer], offset: int) -> None:
        """Write the pieces one behind the other, in one system call. Raises OSError."""
        total = length = sum(map(len, pieces))
        if offset + length < self._old_end:
            # A page that is written as a whole need not be read first.
            fill = min(-(offset + length) % _PAGE, self._old_end - offset - length)
            pieces = [*pieces, _ZEROS[:fill]]
            total += fill
        if len(pieces) > _IOV_MAX:
            pieces = [b"".join(pieces)]
        written = os.pwritev(self.fd, pieces, offset)
        if written < total:
            rest = memoryview(b"".join(pieces))
            while written < total:
                # Where the file system is full this raises what is wrong.
                written += os.pwrite(self.fd, rest[written:], offset + written)
        self._behind.written(offset, length)

    def reserve(self, offset: int, end: int, limit: int) -> None:
        """See to it that the file system has set room aside for what comes at `offset` up to `end`.

        It does so for much at once, not beyond `limit`: to look for room with each block would cost
        as much as to write it. The file does not grow by this; where the file system cannot, or has
        no room, the write itself will tell.
        """
        if end <= self._reserved:
            return
        start = max(offset, self._reserved)
        self._reserved = max(end, min(end + _RESERVE, limit))
        with contextlib.suppress(OSError):
            fallocate(self.fd, KEEP_SIZE, start, self._reserved - start)

    def read_header(self, offset: int) -> RecordHeader | None:
        """Return the header of the record that starts here, None if there is no sound one."""
        try:
            raw = os.pread(self.fd, HEADER_LENGTH, offset)
        except OSError:
            return None
        return self._unpack_header(raw, offset)

    def _unpack_header(self, raw: bytes, offset: int) -> RecordHeader | None:
        if len(raw) < HEADER_LENGTH:
            return None
        if crc32c(raw[: _HEADER.size]) != _CRC.unpack_from(raw, _HEADER.size)[0]:
            return None
        (
            magic,
            version,
            kind,
            flags,
            block,
            file,
            length,
            stored_length,
            previous,
            generation,
            salt,
            place,
        ) = _HEADER.unpack_from(raw)
        if (magic, version, salt, place) != (_MAGIC, VERSION, self._salt, offset):
            return None
        if flags & ~_CODINGS:
            return None
        return RecordHeader(kind, block, file, length, stored_length, previous, generation, flags)

    def read_whole(self, offset: int, stored_length: int) -> bytes | None:
        """Return a record from header to trailer if every bit of it is as written, else None."""
        try:
            raw = os.pread(self.fd, stored_length + OVERHEAD, offset)
        except OSError:
            return None
        if len(raw) != stored_length + OVERHEAD or crc32c(raw) != _RESIDUE:
            return None
        return raw

    def block_of(self, raw: bytes, kind: int, block: int, generation: int) -> StoredBlock | None:
        """Return what a whole record stores, None if it is not the record meant."""
        magic, its_kind, flags, its_block, plain, length, its_generation, salt = (
            _IDENTITY.unpack_from(raw)
        )
        if (
            its_block != block
            or its_generation != generation
            or its_kind != kind
            or length != len(raw) - OVERHEAD
            or salt != self._salt
            or magic != _MAGIC
        ):
            return None
        return StoredBlock(memoryview(raw)[HEADER_LENGTH : HEADER_LENGTH + length], plain, flags)

    def search(self, offset: int, end: int) -> Iterator[tuple[int, RecordHeader]]:
        """Yield the sound record headers from an offset on, and where each lies."""
        while offset < end:
            try:
                chunk = os.pread(self.fd, min(_SEARCH_CHUNK + HEADER_LENGTH, end - offset), offset)
            except OSError:
                offset += _BAD_PLACE
                continue
            at = chunk.find(_MAGIC)
            while 0 <= at < _SEARCH_CHUNK:
                header = self._unpack_header(chunk[at : at + HEADER_LENGTH], offset + at)
                if header:
                    yield offset + at, header
                at = chunk.find(_MAGIC, at + 1)
            offset += _SEARCH_CHUNK

    def size(self) -> int:
        """Bytes in the log file."""
        return os.fstat(self.fd).st_size

    def reuse(self) -> None:
        """What lies behind the next record counts no more; its room is for those that follow."""
        self._old_end = self.size()
        self._reserved = max(self._reserved, self._old_end)

    def truncate(self, offset: int) -> None:
        """Drop everything from `offset` on."""
        os.ftruncate(self.fd, offset)
        self._reserved = self._old_end = 0  # it went too

    def sync(self) -> None:
        """Return when what was written is on stable storage."""
        os.fdatasync(self.fd)

    def give_back(self, end: int) -> None:
        """Free the room behind the records, which end here."""
        status = os.fstat(self.fd)
        if status.st_size > end or status.st_blocks * _STATUS_BLOCK >= end + _RESERVE_LEFT:
            with contextlib.suppress(OSError):
                self.truncate(end)

    def close(self) -> None:
        """Let go of the file."""
        self._behind.close()
        os.close(self.fd)
