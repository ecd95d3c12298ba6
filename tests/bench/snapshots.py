"""What snapshots cost a disk: writes with and without one, reads, and the taking of one.

In this process, beneath any protocol, where the cost is not lost in that of a network. The rival
is the bare store; every round measures both sides in an order that turns.
"""

import os
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.case import Case, MiB

from serverfree.target.backstore.base import BlockStore
from serverfree.target.backstore.file import open_file_store
from serverfree.target.backstore.snapshot_origin import SnapshotOrigin

BLOCK = 4096
COUNT = 4000  # of requests in a run
LARGE = 100 << 30


def rate(request: Callable[[int], object], size: int, seed: int, count: int) -> float:
    """Return random requests a second."""
    chance = random.Random(seed)
    places = [chance.randrange(size // BLOCK) * BLOCK for _ in range(count)]
    began = time.perf_counter()
    for place in places:
        request(place)
    return count / (time.perf_counter() - began)


def measure(folder: Path, rounds: int, size: int) -> list[Case]:
    """Return the cases, over a disk of `size` random bytes."""
    disk = folder / "disk"
    with disk.open("wb") as file:
        for _ in range(size // MiB):
            file.write(os.urandom(MiB))
    store = open_file_store(disk)
    data = os.urandom(BLOCK)
    origin = SnapshotOrigin(store, folder / "snapshots", clone=False)
    fine = SnapshotOrigin(store, folder / "fine", clone=False, chunk=BLOCK)
    cases: dict[str, Case] = {}

    def beside(name: str, number: int, over: SnapshotOrigin, *, reads: bool = False) -> None:
        """Measure one way against the bare store, which goes first in every second round."""
        case = cases.setdefault(name, Case(name, "IOPS", "bare store"))
        sides: list[tuple[BlockStore, list[float]]] = [(over, case.ours), (store, case.theirs)]
        for side, rates in sides if number % 2 == 0 else reversed(sides):
            request, what = (side.view, BLOCK) if reads else (side.write, data)
            count = 25 * COUNT if reads else COUNT
            rates.append(rate(partial(_call, request, what), size, number, count))

    for number in range(rounds):
        os.sync()
        beside("4 KiB write, no snapshot", number, origin)
        beside("4 KiB read, no snapshot", number, origin, reads=True)
        origin.create("coarse", 0)
        beside("4 KiB write, saves 64 KiB", number, origin)
        for at in range(0, size, MiB):
            origin.write(at, bytes(MiB))
        beside("4 KiB write, all is saved", number, origin)
        beside("4 KiB read, a snapshot", number, origin, reads=True)
        origin.delete("coarse")
        fine.create("fine", 0)
        beside("4 KiB write, saves 4 KiB", number, fine)
        fine.delete("fine")
    store.close()
    return [*cases.values(), *_creation(folder, rounds)]


def _call(request: Callable[[int, Any], object], what: Any, at: int) -> None:
    request(at, what)


def _creation(folder: Path, rounds: int) -> list[Case]:
    """How long it takes to take one of a large empty disk, beside a small one.

    And for how much of that its writers are held.
    """
    sides = {}
    for label, size in (("ours", LARGE), ("theirs", 64 * MiB)):
        store = open_file_store(folder / label, size, thin=True)
        origin = SnapshotOrigin(store, folder / f"{label}.snapshots", clone=False)
        times: list[float] = []
        held: list[float] = []
        for number in range(4 * rounds):
            origin.write(number * MiB, bytes(BLOCK))
            began = time.perf_counter()
            origin.create(str(number), 0)
            times.append(time.perf_counter() - began)
            held.append(_switch_time(origin))
            origin.delete(str(number))
        sides[label] = [statistics.median(times), statistics.median(held)]
        origin.close()
    return [
        Case("taking a snapshot, 100 GiB", "us", "64 MiB", *_in_us(sides, 0)),
        Case("writes held for it, 100 GiB", "us", "64 MiB", *_in_us(sides, 1)),
    ]


def _in_us(sides: dict[str, list[float]], index: int) -> tuple[list[float], list[float]]:
    return [sides["ours"][index] * 1e6], [sides["theirs"][index] * 1e6]


def _switch_time(origin: SnapshotOrigin) -> float:
    """Return the seconds for which the gate is held when a snapshot is taken."""
    gate = origin.quiet_gate
    held = gate.held
    seconds = []

    def timed(*args: object, **kwargs: object) -> "_Timed":
        return _Timed(held(*args, **kwargs), seconds)  # type: ignore[arg-type]

    gate.held = timed  # type: ignore[assignment, method-assign]
    try:
        origin.create("timed", 0)
    finally:
        gate.held = held  # type: ignore[method-assign]
    origin.delete("timed")
    return seconds[0]


class _Timed:
    """A context manager that notes how long its block takes."""

    def __init__(self, inner: object, seconds: list[float]) -> None:
        self._inner, self._seconds = inner, seconds

    def __enter__(self) -> None:
        self._inner.__enter__()  # type: ignore[attr-defined]
        self._began = time.perf_counter()

    def __exit__(self, *error: object) -> object:
        self._seconds.append(time.perf_counter() - self._began)
        return self._inner.__exit__(*error)  # type: ignore[attr-defined]
