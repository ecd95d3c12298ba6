"""`serverfree demo`: a server-free backup and restore of a real volume, on this machine alone.

Three processes on loopback ports (a storage system with two disks, a backup storage with a tape, a
data mover that reaches both) and this one, the server. It puts an NTFS volume on the first disk,
has it copied to tape by EXTENDED COPY, has the tape restored to the second disk, which held random
bytes until then, and compares. What it counts as the server's are the bytes at the sockets of the
sessions that asked for the copies; filling, wiping and comparing the disks are the demo's own doing
and are counted apart.
"""

import argparse
import contextlib
import hashlib
import json
import lzma
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TransferSpeedColumn
from rich.table import Table

from serverfree.cli.processes import Served, Server, ServerError
from serverfree.initiator.disk import Disk
from serverfree.initiator.session import LogicalUnit, Session
from serverfree.initiator.tape import Tape
from serverfree.initiator.xcopy import CopyReport, xcopy

VOLUME = Path(__file__).parent / "data" / "volume.img.xz"
LIBRARY_IQN = "iqn.2026-11.com.example:library"
INTERRUPTED = 130
MiB = 1 << 20

# Told how many bytes of a step are done.
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class San:
    """The units of the demo's three servers."""

    source: Served
    restored: Served
    tape: Served
    mover: Served


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "demo",
        help="show a server-free backup and restore on this machine",
        description="Copy an NTFS volume from disk to tape and back by EXTENDED COPY, between "
        "servers started for it on loopback ports, and compare. Leaves nothing behind.",
    )
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 if what came back from tape is what was on the disk."""
    signal.signal(signal.SIGTERM, _terminated)
    console = Console(stderr=args.json)
    try:
        return _demo(console, args.json)
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started is stopped")
        return INTERRUPTED
    except ServerError as error:
        print(f"serverfree demo: {error}", file=sys.stderr)
        return 1


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """Unwind as for Ctrl-C, so that the servers are stopped and the folder is removed."""
    raise KeyboardInterrupt


def _demo(console: Console, as_json: bool) -> int:
    with (
        tempfile.TemporaryDirectory(prefix="serverfree-demo-") as folder,
        _san(Path(folder), _volume_size()) as san,
    ):
        console.print(f"storage system  {san.source.url}\n                {san.restored.url}")
        console.print(f"backup storage  {san.tape.url}")
        console.print(f"data mover      {san.mover.url}\n")
        with _progress(console) as progress:
            facts = _there_and_back(san, progress)
    matches = facts.volume == facts.restored
    if as_json:
        print(json.dumps(facts.json(), indent=2))
    else:
        _show(console, facts)
    return 0 if matches else 1


@dataclass(frozen=True, slots=True)
class Facts:
    """What came of it: both copies, and the SHA-256 of what went in and of what came back."""

    backup: CopyReport
    restore: CopyReport
    volume: str
    restored: str

    def json(self) -> dict[str, object]:
        """Return the facts in the form of `--json`."""
        return {
            "backup": _figures(self.backup),
            "restore": _figures(self.restore),
            "sha256": {"volume": self.volume, "restored": self.restored},
        }


def _there_and_back(san: San, progress: Progress) -> Facts:
    """Run the steps in their order, each with a progress bar."""
    size = _volume_size()

    def step(what: str) -> Advance:
        task = progress.add_task(what, total=size)
        return lambda done: progress.update(task, completed=done)

    volume = _fill(san.source, step("an NTFS volume onto the disk"))
    show = step("disk to tape by EXTENDED COPY")
    backup = xcopy(san.mover.url, san.source.url, san.tape.url, progress=lambda done, _: show(done))
    _wipe(san.restored, size, step("random bytes onto a second disk"))
    rewinding = _rewind(san.tape)
    show = step("tape to second disk by EXTENDED COPY")
    restore = xcopy(
        san.mover.url, san.tape.url, san.restored.url, progress=lambda done, _: show(done)
    )
    # Sending the tape back to its beginning is a part of what a restore asks of the server.
    restore = replace(
        restore,
        server_sent=restore.server_sent + rewinding[0],
        server_received=restore.server_received + rewinding[1],
    )
    restored = _hash(san.restored, step("the second disk read and compared"))
    return Facts(backup, restore, volume, restored)


@contextlib.contextmanager
def _san(folder: Path, size: int) -> Iterator[San]:
    """Start the three servers; they are stopped again whatever happens."""
    free = shutil.disk_usage(folder).free
    if free < 4 * size:
        raise OSError(
            f"{folder}: {free // MiB} MiB free, the demo needs {4 * size // MiB}; "
            "set TMPDIR to a folder with room"
        )
    disks = [
        *("--disk", f"volume={folder / 'volume.img'},size={size}"),
        *("--disk", f"restored={folder / 'restored.img'},size={size}"),
    ]
    tape = ["--iqn", LIBRARY_IQN, "--tape", f"tape={folder / 'cartridge'},capacity={2 * size}"]
    with Server("target", disks) as storage, Server("target", tape) as library:
        reach = [word for one in (storage, library) for word in ("--reach", one.portal)]
        with Server("datamover", reach) as datamover:
            [mover] = datamover.units.values()
            yield San(storage["volume"], storage["restored"], library["tape"], mover)


@cache
def _volume_size() -> int:
    """Return how large the volume is once it is unpacked."""
    with lzma.open(VOLUME) as packed:
        return packed.seek(0, os.SEEK_END)


@contextlib.contextmanager
def _unit(served: Served) -> Iterator[LogicalUnit]:
    """Log in to a unit for as long as it takes."""
    with Session(served.host, served.port, served.target_name) as session:
        yield session.unit(served.lun)


def _fill(served: Served, advance: Advance) -> str:
    """Unpack the volume onto a disk and return its SHA-256."""
    digest = hashlib.sha256()

    def unpacked(packed: lzma.LZMAFile) -> Iterator[memoryview]:
        done = 0
        while chunk := packed.read(MiB):
            digest.update(chunk)
            done += len(chunk)
            yield memoryview(chunk)
            advance(done)

    with _unit(served) as unit, lzma.open(VOLUME) as packed:
        disk = Disk(unit)
        disk.write_chunks(0, unpacked(packed))
        disk.flush()
    return digest.hexdigest()


def _wipe(served: Served, size: int, advance: Advance) -> None:
    """Fill a disk with random bytes: whatever it holds later has come from the tape."""

    def noise() -> Iterator[memoryview]:
        for done in range(0, size, MiB):
            yield memoryview(os.urandom(min(MiB, size - done)))
            advance(done + MiB)

    with _unit(served) as unit:
        disk = Disk(unit)
        disk.write_chunks(0, noise())
        disk.flush()


def _rewind(served: Served) -> tuple[int, int]:
    """Put the tape at its beginning; return the bytes sent and received for it."""
    with _unit(served) as unit:
        Tape(unit).rewind()
    return unit.session.bytes_sent, unit.session.bytes_received


def _hash(served: Served, advance: Advance) -> str:
    """Return the SHA-256 of what a disk holds, read over iSCSI."""
    digest = hashlib.sha256()
    done = 0
    with _unit(served) as unit:
        disk = Disk(unit)
        for chunk in disk.chunks(0, disk.capacity().blocks):
            digest.update(chunk)
            done += len(chunk)
            advance(done)
    return digest.hexdigest()


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:36}"),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TransferSpeedColumn(),
        console=console,
    )


def _figures(copy: CopyReport) -> dict[str, float]:
    return {
        "moved_bytes": copy.moved_bytes,
        "server_bytes": copy.server_bytes,
        "ratio": copy.server_bytes / copy.moved_bytes,
        "commands": copy.commands,
        "seconds": round(copy.seconds, 3),
        "megabytes_per_second": round(copy.moved_bytes / copy.seconds / 1e6, 1),
    }


def _show(console: Console, facts: Facts) -> None:
    table = Table(title="\nbytes that went by the data mover, and through the server")
    for column in ("", "data mover", "server", "ratio", "time", "MB/s"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, copy in (("backup", facts.backup), ("restore", facts.restore)):
        table.add_row(
            name,
            f"{copy.moved_bytes:,}",
            f"{copy.server_bytes:,}",
            f"{copy.server_bytes / copy.moved_bytes:.4%}",
            f"{copy.seconds:.1f} s",
            f"{copy.moved_bytes / copy.seconds / 1e6:,.0f}",
        )
    console.print(table)
    console.print("SHA-256 of the volume and of what came back:")
    console.print(f"  {facts.volume}\n  {facts.restored}")
    if facts.volume == facts.restored:
        console.print("the restored disk is the volume, byte for byte", style="bold green")
    else:
        console.print("THE RESTORED DISK DIFFERS FROM THE VOLUME", style="bold red")
