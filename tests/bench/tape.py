"""The tape drive against our own disk: same client, same target, same block, one at a time.

What is written is flushed at the end of each run (by a filemark, by SYNCHRONIZE CACHE).
"""

import os
import time
from pathlib import Path

from bench.case import Case, MiB
from bench.cpu import pin

from serverfree.cli.processes import Server
from serverfree.initiator.disk import Disk
from serverfree.initiator.tape import Tape
from serverfree.initiator.urls import open_session
from support import servers

BLOCKS = (256 << 10, MiB)


def measure(folder: Path, rounds: int, size: int) -> list[Case]:
    """Return a case for every block length and direction."""
    cases = {
        (block, way): Case(f"tape, {way} of {block >> 10} KiB", "MB/s", "our disk")
        for block in BLOCKS
        for way in ("write", "read")
    }
    disk = servers.random_file(folder / "disk.img", size)
    arguments = ("--disk", f"disk={disk}", "--tape", f"tape={folder / 'tape'},capacity={8 * size}")
    with servers.target(*arguments) as server:
        pin(server.pid, 0)
        for number in range(rounds):
            for block in BLOCKS:
                ways = [_on_tape, _on_disk]
                for way in ways if number % 2 == 0 else reversed(ways):
                    wrote, read = way(server, block, size)
                    for name, rate in (("write", wrote), ("read", read)):
                        case = cases[block, name]
                        (case.ours if way is _on_tape else case.theirs).append(rate)
    return list(cases.values())


def _on_tape(server: Server, block: int, size: int) -> tuple[float, float]:
    session, lun = open_session(server["tape"].url)
    with session:
        tape = Tape(session.unit(lun))
        tape.ready()
        tape.rewind()
        data = os.urandom(block)
        began = time.monotonic()
        for _ in range(size // block):
            tape.write_block(data)
        tape.write_filemarks()
        wrote = time.monotonic() - began
        tape.rewind()
        buffer = memoryview(bytearray(block))
        began = time.monotonic()
        for _ in range(size // block):
            tape.read_block(buffer)
        read = time.monotonic() - began
    return size / wrote / 1e6, size / read / 1e6


def _on_disk(server: Server, block: int, size: int) -> tuple[float, float]:
    session, lun = open_session(server["disk"].url)
    with session:
        disk = Disk(session.unit(lun))
        data = os.urandom(block)
        step = block // disk.capacity().block_length
        began = time.monotonic()
        for number in range(size // block):
            disk.write(number * step, data)
        disk.flush()
        wrote = time.monotonic() - began
        buffer = memoryview(bytearray(block))
        began = time.monotonic()
        for number in range(size // block):
            disk.read_into(number * step, buffer)
        read = time.monotonic() - began
    return size / wrote / 1e6, size / read / 1e6
