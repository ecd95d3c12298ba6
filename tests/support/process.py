"""What a process holds, from /proc: memory of its own, threads, open files."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Footprint:
    """`memory` is RssAnon in bytes: pages of mapped files come and go and are not its own.

    `resident` is VmRSS, which counts those too.
    """

    memory: int
    resident: int
    threads: int
    files: int


def footprint(pid: int) -> Footprint:
    """Return what the process holds now."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return Footprint(
        memory=int(status["RssAnon"].split()[0]) * 1024,
        resident=int(status["VmRSS"].split()[0]) * 1024,
        threads=int(status["Threads"]),
        files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
    )


def settles(condition: Callable[[], bool], timeout: float = 20.0) -> bool:
    """Wait until the condition holds; return whether it came to hold in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
