"""The superblocks of a cartridge: `state.A` and `state.B`, written in turn; the newest counts.

A superblock says where the data of each partition ended when everything before that was on stable
storage. The one that is being replaced is never the newest, so a torn write loses nothing.
"""

import fcntl
import os
from dataclasses import dataclass, replace
from pathlib import Path
from struct import Struct

from serverfree.target.backstore.cartridge_errors import CartridgeError
from serverfree.target.backstore.cartridge_log import LOG_START, NO_PREVIOUS, crc32c

VERSION = 2  # 1 had one partition, and its limits in the head
_HEAD = Struct("<8sHHIQ16sQQ")  # magic, version, partitions, flags, sequence, id, capacity, usable
# EOD block, EOD offset, EOD file, last record, generation, capacity, early warning
_PARTITION = Struct("<QQQQI4xQQ")
_CRC = Struct("<I")
_MAGIC = b"SRVFSTAT"
_SIZE = 4096
_WRITE_PROTECTED, _WORM = 1, 2
MAX_PARTITIONS = 4
NAMES = ("state.A", "state.B")


@dataclass(frozen=True, slots=True)
class PartitionState:
    """The end of data of a partition: in blocks, log bytes and filemarks, and its generation."""

    eod: int = 0
    offset: int = LOG_START
    file: int = 0
    last: int = NO_PREVIOUS
    generation: int = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a partition's log must end, and from where on early warning is given."""

    capacity: int
    early_warning: int


@dataclass(frozen=True, slots=True)
class State:
    """What a superblock says.

    `capacity` counts the log bytes of the whole medium, `usable` those that SET CAPACITY left to
    partitions. `limits` are those of each partition. A `worm` medium takes new records at the end
    of data only.
    """

    cartridge: bytes
    capacity: int
    usable: int
    limits: tuple[Limits, ...]
    write_protected: bool = False
    worm: bool = False
    partitions: tuple[PartitionState, ...] = (PartitionState(),)
    sequence: int = 0

    def pack(self) -> bytes:
        """The superblock: 4 KiB, its CRC32C last."""
        raw = _HEAD.pack(
            _MAGIC,
            VERSION,
            len(self.partitions),
            (_WRITE_PROTECTED if self.write_protected else 0) | (_WORM if self.worm else 0),
            self.sequence,
            self.cartridge,
            self.capacity,
            self.usable,
        )
        for partition, limits in zip(self.partitions, self.limits, strict=True):
            raw += _PARTITION.pack(
                partition.eod,
                partition.offset,
                partition.file,
                partition.last,
                partition.generation,
                limits.capacity,
                limits.early_warning,
            )
        raw = raw.ljust(_SIZE - _CRC.size, b"\0")
        return raw + _CRC.pack(crc32c(raw))

    @classmethod
    def unpack(cls, raw: bytes) -> "State | None":
        """Read a superblock, None if it is not sound."""
        if len(raw) != _SIZE or crc32c(raw[: -_CRC.size]) != _CRC.unpack(raw[-_CRC.size :])[0]:
            return None
        magic, version, count, flags, sequence, cartridge, capacity, usable = _HEAD.unpack_from(raw)
        if magic != _MAGIC or version != VERSION or not 1 <= count <= MAX_PARTITIONS:
            return None
        partitions, limits = [], []
        for index in range(count):
            *state, partition_capacity, early_warning = _PARTITION.unpack_from(
                raw, _HEAD.size + index * _PARTITION.size
            )
            partitions.append(PartitionState(*state))
            limits.append(Limits(partition_capacity, early_warning))
        return cls(
            cartridge,
            capacity,
            usable,
            tuple(limits),
            bool(flags & _WRITE_PROTECTED),
            bool(flags & _WORM),
            tuple(partitions),
            sequence,
        )


class Superblocks:
    """The two state files of a cartridge, held by this process alone while open."""

    def __init__(self, directory: Path, state: State, fds: tuple[int, int]) -> None:
        self._directory = directory
        self._fds = fds
        self.state = state

    @classmethod
    def exist(cls, directory: Path) -> bool:
        """Return whether the directory holds a cartridge, sound or not."""
        return any((directory / name).exists() for name in NAMES)

    @classmethod
    def create(cls, directory: Path, state: State) -> None:
        """Write a first superblock. A cartridge exists from here on."""
        partial = directory / "state.new"
        for name in NAMES:
            with partial.open("wb") as file:
                file.write(state.pack())
                file.flush()
                os.fsync(file.fileno())
            partial.rename(directory / name)
        sync_directory(directory)

    @classmethod
    def open(cls, directory: Path) -> "Superblocks":
        """Take the cartridge for this process and read its state."""
        fds: list[int] = []
        try:
            # Either file may have been lost; it comes back with the next publication.
            for name in NAMES:
                fds.append(os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
            fcntl.flock(fds[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = [State.unpack(os.pread(fd, _SIZE + 1, 0)) for fd in fds]
            sound = [state for state in found if state]
            if not sound:
                raise CartridgeError(f"{directory}: both superblocks are damaged")
            newest = max(sound, key=lambda state: state.sequence)
            return cls(directory, newest, (fds[0], fds[1]))
        except BlockingIOError as error:
            for fd in fds:
                os.close(fd)
            raise CartridgeError(f"{directory}: in use by another process") from error
        except OSError as error:
            for fd in fds:
                os.close(fd)
            raise CartridgeError(f"{directory}: {error.strerror}") from error
        except CartridgeError:
            for fd in fds:
                os.close(fd)
            raise

    def publish(self, state: State) -> None:
        """Put a new state on stable storage, over the older of the two superblocks."""
        state = replace(state, sequence=self.state.sequence + 1)
        fd = self._fds[state.sequence % 2]
        os.pwrite(fd, state.pack(), 0)
        os.fdatasync(fd)
        self.state = state

    def close(self) -> None:
        """Let go of the cartridge."""
        for fd in self._fds:
            os.close(fd)


def sync_directory(directory: Path) -> None:
    """Put a directory's names on stable storage."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
