"""The demo's surroundings: three servers, a host at work on the disk, looks at what is where."""

import contextlib
import hashlib
import lzma
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from serverfree.backup.device import DiskDevice
from serverfree.backup.ntfs.volume import Volume
from serverfree.cli.processes import Served, Server
from serverfree.initiator.disk import Disk
from serverfree.initiator.session import LogicalUnit, Session
from serverfree.initiator.tape import Stop, Tape

VOLUME = Path(__file__).parent / "data" / "volume.img.xz"
LIBRARY_IQN = "iqn.2026-11.com.example:library"
MiB = 1 << 20
_WRITE_EVERY = 0.25  # seconds, of a host at work
_ENOUGH = 64 * MiB  # of noise from the front on: no volume outlives it
_TAPE_BUFFER = 8 * MiB

# Told how many bytes of a step are done.
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class San:
    """The units of the demo's three servers, and the storage system's management API."""

    source: Served
    restored: Served
    tape: Served
    mover: Served
    array: str


@contextlib.contextmanager
def san(folder: Path) -> Iterator[San]:
    """Start the three servers; they are stopped again whatever happens."""
    size = volume_size()
    free = shutil.disk_usage(folder).free
    if free < 6 * size:
        raise OSError(
            f"{folder}: {free // MiB} MiB free, the demo needs {6 * size // MiB}; "
            "set TMPDIR to a folder with room"
        )
    os.environ["SERVERFREE_TOKEN"] = secrets.token_urlsafe()  # known to both ends of the API
    storage_arguments = [
        *("--disk", f"volume={folder / 'volume.img'},size={size},thin"),
        *("--disk", f"restored={folder / 'restored.img'},size={size},thin"),
        *("--api", "127.0.0.1:0"),
    ]
    tape = ["--iqn", LIBRARY_IQN, "--tape", f"tape={folder / 'cartridge'},capacity={4 * size}"]
    with Server("target", storage_arguments) as storage, Server("target", tape) as library:
        reach = [word for one in (storage, library) for word in ("--reach", one.portal)]
        with Server("datamover", reach) as datamover:
            [mover] = datamover.units.values()
            yield San(
                storage["volume"],
                storage["restored"],
                library["tape"],
                mover,
                storage["management"].url,
            )


@contextlib.contextmanager
def unit(served: Served) -> Iterator[LogicalUnit]:
    """Log in to a unit for as long as it takes."""
    with Session(served.host, served.port, served.target_name) as session:
        yield session.unit(served.lun)


class Host:
    """Somebody else who uses a disk while it is backed up."""

    def __init__(self, disk: Served) -> None:
        self._served = disk
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def at_work(self, seconds: float) -> Iterator[None]:
        """Write a sector again and again for so long; what it holds stays the same."""
        with self._doing(lambda disk: self._work(disk, seconds)):
            yield

    @contextlib.contextmanager
    def losing_everything(self) -> Iterator[Callable[[], None]]:
        """Yield what has noise written over the volume, from then on."""
        begin = threading.Event()

        def wait(disk: Disk) -> None:
            while not begin.wait(0.01):
                if self._ended.is_set():
                    return
            destroy(disk)

        with self._doing(wait):
            yield begin.set

    @contextlib.contextmanager
    def _doing(self, what: Callable[[Disk], None]) -> Iterator[None]:
        def run() -> None:
            with unit(self._served) as logical_unit:
                what(Disk(logical_unit))

        self._ended.clear()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _work(self, disk: Disk, seconds: float) -> None:
        sector = disk.read(0, 1)
        for _ in range(round(seconds / _WRITE_EVERY)):
            disk.write(0, sector)
            if self._ended.wait(_WRITE_EVERY):
                return


def destroy(disk: Disk) -> None:
    """Write noise over the front of a disk."""
    blocks = _ENOUGH // MiB
    for number in range(blocks):
        disk.write(number * (MiB // disk.capacity().block_length), os.urandom(MiB))


@cache
def volume_size() -> int:
    """Return how large the volume is once it is unpacked."""
    with lzma.open(VOLUME) as packed:
        return packed.seek(0, os.SEEK_END)


def fill(served: Served, advance: Advance) -> None:
    """Unpack the volume onto a disk."""

    def unpacked(packed: lzma.LZMAFile) -> Iterator[memoryview]:
        done = 0
        while chunk := packed.read(MiB):
            done += len(chunk)
            yield memoryview(chunk)
            advance(done)

    with unit(served) as logical_unit, lzma.open(VOLUME) as packed:
        disk = Disk(logical_unit)
        disk.write_chunks(0, unpacked(packed))
        disk.flush()


def wipe(served: Served, advance: Advance) -> None:
    """Fill a disk with random bytes: whatever it holds later has come from the tape."""
    size = volume_size()

    def noise() -> Iterator[memoryview]:
        for done in range(0, size, MiB):
            yield memoryview(os.urandom(min(MiB, size - done)))
            advance(done + MiB)

    with unit(served) as logical_unit:
        disk = Disk(logical_unit)
        disk.write_chunks(0, noise())
        disk.flush()


def contents(served: Served, advance: Advance) -> dict[str, str]:
    """Return the SHA-256 of every stream of the NTFS volume on a disk, by `path` or `path:stream`.

    Directories without streams are there as well. Raises NtfsError if it holds no volume.
    """
    found: dict[str, str] = {}
    with unit(served) as logical_unit:
        device = DiskDevice(Disk(logical_unit))
        volume = Volume.open(device)
        for file in volume.files():
            for path in file.paths:
                if file.is_directory:
                    found[path] = "directory"
                for stream in file.streams:
                    digest = hashlib.sha256()
                    for piece in volume.read_stream(file, stream):
                        digest.update(piece)
                    found[f"{path}:{stream.name}" if stream.name else path] = digest.hexdigest()
            advance(device.read)
    return found


def read_tape_file(served: Served, number: int, place: Path, advance: Advance) -> None:
    """Copy a file of the tape into a file of this machine, as `dd` would."""
    buffer = memoryview(bytearray(_TAPE_BUFFER))
    with unit(served) as logical_unit, place.open("wb") as file:
        tape = Tape(logical_unit)
        tape.ready()
        tape.locate_file(number)
        while not isinstance(block := tape.read_block(buffer), Stop):
            file.write(block)
            advance(file.tell())
