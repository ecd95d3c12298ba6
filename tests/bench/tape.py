"""The tape drive against our own disk: same client, same target, same block, one at a time.

What is written is flushed at the end of each run (by a filemark, by SYNCHRONIZE CACHE). Media are
held to their like: a tape and a file where nothing was, a tape written over from its beginning
and a file that was written before (its blocks are in the file system and in the page cache).

Then one cartridge of a million blocks and marks, held to what a drive shall take at most: a second
to load it, a thousandth of one to find any of them. Both over iSCSI, answer included.
"""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from bench.case import Case, MiB
from bench.cpu import cpu_seconds, pin

from serverfree.cli.processes import Server
from serverfree.initiator.disk import Disk
from serverfree.initiator.tape import Tape
from serverfree.initiator.urls import open_session
from serverfree.target.backstore.cartridge import open_cartridge
from support import servers

BLOCKS = (256 << 10, MiB)
MEDIA = ("new", "used")

Run = tuple[float, float]
"""MB/s, and microseconds of the server's CPU time for a block."""


def measure(folder: Path, rounds: int, size: int) -> list[Case]:
    """Return a case for every block length, direction and kind of medium."""
    folder.mkdir()
    disks = {medium: folder / f"{medium}.img" for medium in MEDIA}
    servers.random_file(disks["used"], size)
    servers.empty_file(disks["new"], size)
    cases = {
        (block, way, medium): Case(
            f"{way} of {block >> 10} KiB" + (f", {medium} tape" if way == "write" else ""),
            "MB/s",
            f"our disk, {medium}" if way == "write" else "our disk",
        )
        for block in BLOCKS
        for way, medium in (("write", "new"), ("write", "used"), ("read", "used"))
    }
    arguments = [f"--disk={medium}={path}" for medium, path in disks.items()]
    tape = f"--tape=tape={folder / 'tape'},capacity={8 * size}"
    with servers.target(*arguments, tape) as server:
        pin(server.pid, 0)
        for number in range(rounds):
            for block in BLOCKS:
                for medium in MEDIA:
                    found: dict[str, list[Run]] = {}
                    for kind in ("tape", "disk") if number % 2 == 0 else ("disk", "tape"):
                        if kind == "tape":
                            found[kind] = _on_tape(server, medium, block, size)
                        else:
                            if medium == "new":  # the server reads nothing of it meanwhile
                                servers.empty_file(disks["new"], size)
                            found[kind] = _on_disk(server, medium, block, size)
                    for at, way in enumerate(("write", "read")):
                        case = cases.get((block, way, medium))
                        if case is not None:
                            case.ours.append(found["tape"][at][0])
                            case.our_cpu.append(found["tape"][at][1])
                            case.theirs.append(found["disk"][at][0])
                            case.their_cpu.append(found["disk"][at][1])
    return list(cases.values())


def _timed(server: Server, block: int, size: int, run: Callable[[], None]) -> Run:
    cpu, began = cpu_seconds(server.pid), time.monotonic()
    run()
    seconds = time.monotonic() - began
    return size / seconds / 1e6, (cpu_seconds(server.pid) - cpu) * 1e6 / (size // block)


def _on_tape(server: Server, medium: str, block: int, size: int) -> list[Run]:
    session, lun = open_session(server["tape"].url)
    with session:
        tape = Tape(session.unit(lun))
        tape.ready()
        tape.rewind()
        data = os.urandom(block)
        buffer = memoryview(bytearray(block))

        def write() -> None:
            for _ in range(size // block):
                tape.write_block(data)
            tape.write_filemarks()

        def read() -> None:
            for _ in range(size // block):
                tape.read_block(buffer)

        if medium == "new":
            tape.erase()
        wrote = _timed(server, block, size, write)
        tape.rewind()
        return [wrote, _timed(server, block, size, read)]


def _on_disk(server: Server, medium: str, block: int, size: int) -> list[Run]:
    session, lun = open_session(server[medium].url)
    with session:
        disk = Disk(session.unit(lun))
        data = os.urandom(block)
        step = block // disk.capacity().block_length
        buffer = memoryview(bytearray(block))

        def write() -> None:
            for number in range(size // block):
                disk.write(number * step, data)
            disk.flush()

        def read() -> None:
            for number in range(size // block):
                disk.read_into(number * step, buffer)

        return [_timed(server, block, size, write), _timed(server, block, size, read)]


def measure_motion(folder: Path, rounds: int, files: int) -> list[Case]:
    """Return the cases of loading a cartridge of so many files, and of finding a block on it.

    A file is 999 blocks of 512 bytes and a filemark.
    """
    directory = folder / "tape"
    cartridge = open_cartridge(directory, 2048 * MiB)
    (partition,) = cartridge.partitions
    for _ in range(files):
        partition.append([bytes(512)] * 999)
        partition.mark(1)
    objects = partition.eod
    cartridge.close()
    loads = Case(f"LOAD of a tape of {objects:,} blocks", "/s", "a second")
    locates = Case(f"LOCATE among {objects:,} blocks", "/s", "a millisecond")
    chance = random.Random(0)
    with servers.target(f"--tape=tape={directory}") as server:
        pin(server.pid, 0)
        session, lun = open_session(server["tape"].url)
        with session:
            tape = Tape(session.unit(lun))
            tape.ready()
            for _ in range(rounds):
                tape.unload()
                began = time.monotonic()
                tape.load()
                loads.ours.append(1 / (time.monotonic() - began))
                loads.theirs.append(1.0)
                tape.ready()
                targets = [chance.randrange(objects) for _ in range(1000)]
                cpu, began = cpu_seconds(server.pid), time.monotonic()
                for block in targets:
                    tape.locate(block)
                locates.ours.append(len(targets) / (time.monotonic() - began))
                locates.our_cpu.append((cpu_seconds(server.pid) - cpu) * 1e6 / len(targets))
                locates.theirs.append(1000.0)
                assert tape.position().block == targets[-1]
    return [loads, locates]
