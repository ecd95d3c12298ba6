"""The tape drive against our own disk: same client, same target, same block, one at a time.

What is written is flushed at the end of each run (by a filemark, by SYNCHRONIZE CACHE). A tape is
written where nothing was; so is a new disk, while one that was written before has its blocks in
the file system and in the page cache already, which no tape larger than memory can have.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from bench.case import Case, MiB
from bench.cpu import cpu_seconds, pin

from serverfree.cli.processes import Server
from serverfree.initiator.disk import Disk
from serverfree.initiator.tape import Tape
from serverfree.initiator.urls import open_session
from support import servers

BLOCKS = (256 << 10, MiB)

Figures = list[tuple[float, float]]
"""MB/s, and microseconds of the server's CPU time for a block, of writing and of reading."""


def measure(folder: Path, rounds: int, size: int) -> list[Case]:
    """Return a case for every block length, direction and rival."""
    used = servers.random_file(folder / "used.img", size)
    new = folder / "new.img"
    new.touch()
    os.truncate(new, size)
    rivals = {"disk": "our disk", "new": "our disk, new"}
    cases = {
        (block, rival, way): Case(f"tape, {way} of {block >> 10} KiB", "MB/s", name)
        for block in BLOCKS
        for rival, name in rivals.items()
        for way in ("write", "read")
        if way == "write" or rival == "disk"
    }
    arguments = ("--disk", f"disk={used}", "--disk", f"new={new}")
    tape = ("--tape", f"tape={folder / 'tape'},capacity={8 * size}")
    with servers.target(*arguments, *tape) as server:
        pin(server.pid, 0)
        for number in range(rounds):
            for block in BLOCKS:
                found: dict[str, Figures] = {}
                order = ["tape", *rivals]
                for name in order if number % 2 == 0 else reversed(order):
                    if name == "new":
                        os.truncate(new, 0)  # the server reads nothing of it meanwhile
                        os.truncate(new, size)
                    run = _on_tape if name == "tape" else _on_disk
                    found[name] = run(server, name, block, size)
                for (length, rival, way), case in cases.items():
                    if length == block:
                        at = 0 if way == "write" else 1
                        case.ours.append(found["tape"][at][0])
                        case.our_cpu.append(found["tape"][at][1])
                        case.theirs.append(found[rival][at][0])
                        case.their_cpu.append(found[rival][at][1])
    return list(cases.values())


def _timed(server: Server, block: int, size: int, run: Callable[[], None]) -> tuple[float, float]:
    cpu, began = cpu_seconds(server.pid), time.monotonic()
    run()
    seconds = time.monotonic() - began
    return size / seconds / 1e6, (cpu_seconds(server.pid) - cpu) * 1e6 / (size // block)


def _on_tape(server: Server, name: str, block: int, size: int) -> Figures:
    session, lun = open_session(server[name].url)
    with session:
        tape = Tape(session.unit(lun))
        tape.ready()
        tape.rewind()
        tape.erase()
        data = os.urandom(block)
        buffer = memoryview(bytearray(block))

        def write() -> None:
            for _ in range(size // block):
                tape.write_block(data)
            tape.write_filemarks()

        def read() -> None:
            for _ in range(size // block):
                tape.read_block(buffer)

        wrote = _timed(server, block, size, write)
        tape.rewind()
        return [wrote, _timed(server, block, size, read)]


def _on_disk(server: Server, name: str, block: int, size: int) -> Figures:
    session, lun = open_session(server[name].url)
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
