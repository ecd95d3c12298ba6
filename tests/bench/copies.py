"""Copies through the data mover, against qemu-img between two tgt LUNs and against a raw relay.

Random data, both ends flushed, every round runs all rivals in an order that turns: drift favours
no one. The memory of the mover is watched while it copies.
"""

import contextlib
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.case import Case, MiB
from bench.cpu import cpu_seconds
from bench.raw_relay import RawRelay

from serverfree.cli.processes import SERVERFREE, Server
from serverfree.initiator.copy import CopyManager
from serverfree.initiator.copy_plan import Endpoint, choose_designator
from serverfree.initiator.disk import Disk
from serverfree.initiator.unit import Unit
from serverfree.initiator.urls import open_session
from serverfree.initiator.xcopy import xcopy
from serverfree.scsi.copy_list import CopyList, ListIdUsage
from serverfree.scsi.copy_segments import BlockToBlock
from serverfree.scsi.inquiry import DeviceType
from support import servers
from support.process import footprint

TAPE_BLOCK = 256 << 10
LIBRARY_IQN = "iqn.2026-11.com.example:library"
SECTOR = 512
EXTENTS = 10_000
WITHIN = "disk to disk, one process"  # both disks and the copy manager
SMALL, LARGE = 4 << 10, 1 << 20  # bytes of an extent


@dataclass
class Memory:
    """The most that a process held, RssAnon in bytes."""

    most: int = 0

    @contextlib.contextmanager
    def watch(self, pid: int) -> Iterator[None]:
        """Look twenty times a second."""
        ended = threading.Event()

        def sample() -> None:
            while not ended.wait(0.05):
                self.most = max(self.most, footprint(pid).memory)

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@dataclass(frozen=True, slots=True)
class San:
    """What is copied between: our servers, tgt, and files of the same size for the relay."""

    size: int
    storage: Server
    backup: Server
    mover: Server
    tgt: servers.Tgt
    relay: RawRelay

    @property
    def manager(self) -> str:
        return next(iter(self.mover.units.values())).url

    def url(self, name: str) -> str:
        return (self.backup if name == "tape" else self.storage)[name].url

    def rewind(self) -> None:
        """Put the tape at its beginning: every run begins there."""
        command = [*SERVERFREE, "tape", self.url("tape"), "rewind"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)

    def copy(self, source: str, destination: str, manager: str = "") -> None:
        """Have the mover copy a whole disk, or the copy manager of another unit."""
        blocks = self.size // SECTOR
        xcopy(
            manager or self.manager, self.url(source), self.url(destination),
            count=blocks, tape_block=TAPE_BLOCK,
        )  # fmt: skip
        if destination != "tape":  # whose filemark has flushed it
            self.flush(destination)

    def flush(self, disk: str) -> None:
        """Have everything that was written to a disk put on its medium."""
        session, lun = open_session(self.url(disk))
        with session:
            Disk(session.unit(lun)).flush()

    def convert(self) -> None:
        """Have qemu-img copy tgt's first LUN to its second, and flush."""
        command = ["qemu-img", "convert", "-n", "-t", "writeback", "-f", "raw", "-O", "raw"]
        subprocess.run(
            [*command, self.tgt.url(0), self.tgt.url(1)], check=True, timeout=600,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def copy_extents(self, extents: list[tuple[int, int]]) -> None:
        """Copy (offset, size) pairs of one disk to the same places of the other, in one command."""
        ends = [_endpoint(self.url(name)) for name in ("source", "destination")]
        segments = [
            BlockToBlock(0, 1, size // SECTOR, offset // SECTOR, offset // SECTOR)
            for offset, size in extents
        ]
        copy = CopyList(
            [end.cscd(pad=False) for end in ends], segments, b"", 1, ListIdUsage.DISCARD
        )
        session, lun = open_session(self.manager)
        with session:
            CopyManager(session.unit(lun)).copy(copy)
        self.flush("destination")


def _endpoint(url: str) -> Endpoint:
    session, lun = open_session(url)
    with session:
        designators = Unit(session.unit(lun)).identification().designators
    return Endpoint(choose_designator(designators), DeviceType.DISK, 0, SECTOR)


@contextlib.contextmanager
def serve(folder: Path, size: int) -> Iterator[San]:
    """Start everything over disks of `size` random bytes."""
    source = servers.random_file(folder / "source.img", size)
    empty = [servers.empty_file(folder / f"{name}.img", size) for name in ("ours", "tgt", "raw")]
    disks = ("--disk", f"source={source}", "--disk", f"destination={empty[0]}")
    tape = ("--iqn", LIBRARY_IQN, "--tape", f"tape={folder / 'tape'},capacity={4 * size}")
    with (
        servers.target(*disks) as storage,
        servers.target(*tape) as backup,
        servers.datamover(storage, backup) as mover,
        servers.Tgt(source, empty[1]) as tgt,
        RawRelay(source, empty[2]) as relay,
    ):
        yield San(size, storage, backup, mover, tgt, relay)


def timed(run: Callable[[], object]) -> float:
    """Return the seconds of a run, with nothing of earlier runs left to write."""
    os.sync()
    start = time.monotonic()
    run()
    return time.monotonic() - start


def measure(folder: Path, rounds: int, size: int, memory: Memory) -> list[Case]:
    """Return a case for each pair of rivals, over disks of `size` bytes."""
    label = f"{size // MiB} MiB" if size < 1 << 30 else f"{size >> 30} GiB"
    with serve(folder, size) as san, memory.watch(san.mover.pid):
        ours: dict[str, Callable[[], object]] = {
            "disk to tape": lambda: san.copy("source", "tape"),
            "tape to disk": lambda: san.copy("tape", "destination"),
            "disk to disk": lambda: san.copy("source", "destination"),
            WITHIN: lambda: san.copy("source", "destination", san.url("destination")),
        }
        runs = {**ours, "qemu-img": san.convert, "relay": san.relay.copy}
        rates: dict[str, list[float]] = {name: [] for name in runs}
        cpu: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(rounds):
            # A tape is read as it was written: that pair keeps its order.
            names = list(runs) if number % 2 == 0 else [*list(runs)[2:], *list(runs)[:2]]
            for name in names:
                if "tape" in name:
                    san.rewind()
                pid = san.storage.pid if name == WITHIN else san.mover.pid
                before = cpu_seconds(pid)
                rates[name].append(size / timed(runs[name]) / 1e6)
                taken = cpu_seconds(pid) - before
                cpu[name].append(taken / (size / TAPE_BLOCK) * 1e6)
    return [
        Case(f"{name} {label}", "MB/s", rival, rates[name], rates[rival], cpu[name])
        for name in ours
        for rival in ("qemu-img", "relay")
    ]


def measure_extents(folder: Path, rounds: int, size: int, memory: Memory) -> list[Case]:
    """Many extents in one command: scattered small ones, and a whole disk in pieces of all sizes.

    The measure beside them is the bar: 20,000 extents a second, and one extent of the same size.
    """
    scattered = scattered_extents(size)
    pieces = pieces_of_a_disk(size)
    small = Case(f"{EXTENTS // 1000}k extents of 4 KiB", "extents/s", "bar")
    mixed = Case(f"{len(pieces)} extents to 1 MiB", "MB/s", "one extent")
    with serve(folder, size) as san, memory.watch(san.mover.pid):
        for _ in range(rounds):
            before = cpu_seconds(san.mover.pid)
            small.ours.append(EXTENTS / timed(lambda: san.copy_extents(scattered)))
            small.our_cpu.append((cpu_seconds(san.mover.pid) - before) / EXTENTS * 1e6)
            small.theirs.append(20_000)
            mixed.ours.append(size / timed(lambda: san.copy_extents(pieces)) / 1e6)
            mixed.theirs.append(size / timed(lambda: san.copy("source", "destination")) / 1e6)
    return [small, mixed]


def scattered_extents(size: int) -> list[tuple[int, int]]:
    """Return extents of 4 KiB with gaps between them, in no order."""
    places = random.Random(1).sample(range(size // SMALL // 2), EXTENTS)
    return [(2 * place * SMALL, SMALL) for place in places]


def pieces_of_a_disk(size: int) -> list[tuple[int, int]]:
    """Return extents of 4 KiB to 1 MiB that make up the whole disk, in no order."""
    chance = random.Random(2)
    pieces = []
    at = 0
    while at < size:
        length = min(SMALL << chance.randrange(9), size - at)
        pieces.append((at, length))
        at += length
    chance.shuffle(pieces)
    return pieces
