"""Our target and data mover against tgt and qemu-img, in one run: ratios as a table and as JSON.

Same machine, same backing file, same client program, server and client each pinned to a core of
their own, runs alternating, medians. Figures of one machine mean little; ratios of one run mean
something. `make bench` runs this; `--quick` is for trying it out.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from serverfree.cli.processes import SERVERFREE
from serverfree.initiator.xcopy import xcopy
from support import servers
from support.peers import PACKAGES, find
from support.process import footprint

MiB = 1 << 20
RESULTS = Path("build/bench.json")
AVERAGE = re.compile(r"iops average (\d+) ")
TAPE_BLOCK = 256 << 10
LIBRARY_IQN = "iqn.2026-11.com.example:library"


@dataclass(slots=True)
class Case:
    """One row: what is measured, in which unit, and what each side reached in each run.

    The CPU lists hold the microseconds that the server's process took for one request.
    """

    name: str
    unit: str
    rival: str
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    our_cpu: list[float] = field(default_factory=list)
    their_cpu: list[float] = field(default_factory=list)

    @property
    def cpu(self) -> str:
        """Return both sides' median CPU time per request, for people."""
        if not self.our_cpu:
            return ""
        return f"{statistics.median(self.our_cpu):.0f} / {statistics.median(self.their_cpu):.0f}"

    @property
    def ratio(self) -> float:
        """Return our median over the rival's."""
        return statistics.median(self.ours) / statistics.median(self.theirs)


@dataclass(frozen=True, slots=True)
class Load:
    """An iscsi-perf run: requests in flight, 512-byte blocks in each, random or sequential."""

    name: str
    unit: str
    in_flight: int
    blocks: int
    random: bool


LOADS = (
    Load("4 KiB random, QD 1", "IOPS", 1, 8, True),
    Load("4 KiB random, QD 32", "IOPS", 32, 8, True),
    Load("256 KiB sequential, QD 8", "MB/s", 8, 512, False),
)


def pin(pid: int, core: int) -> None:
    """Keep a process, with the threads it has, on one core (where there are several)."""
    if (os.cpu_count() or 1) < 2:
        return
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has taken so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def iscsi_perf(load: Load, url: str, seconds: int) -> int:
    """Run libiscsi's load generator on core 1 and return its average of requests a second."""
    command = ["iscsi-perf", "-t", str(seconds), "-m", str(load.in_flight), "-b", str(load.blocks)]
    if load.random:
        command.append("-r")
    client = subprocess.Popen([*command, url], stdout=subprocess.PIPE, text=True)
    pin(client.pid, 1)
    output, _ = client.communicate(timeout=seconds + 60)
    averages = AVERAGE.findall(output)
    if client.returncode or not averages:
        raise RuntimeError(f"{' '.join(command)} failed:\n{output}")
    return int(averages[-1])


@dataclass(frozen=True, slots=True)
class Side:
    """A server under load, and where its results go."""

    pid: int
    url: str
    results: list[float]
    cpu: list[float]

    def measure(self, load: Load, seconds: int) -> None:
        before = cpu_seconds(self.pid)
        rate = iscsi_perf(load, self.url, seconds)
        self.cpu.append((cpu_seconds(self.pid) - before) / (rate * seconds) * 1e6)
        # Its own MB/s are rounded; the product is not.
        self.results.append(rate if load.unit == "IOPS" else rate * load.blocks * 512 / 1e6)


def measure_reads(folder: Path, seconds: int, rounds: int, size: int) -> tuple[list[Case], int]:
    """Return a case for every load, and the resident bytes of our idle target."""
    backing = servers.random_file(folder / "read.img", size)
    cases = [Case(load.name, load.unit, "tgt") for load in LOADS]
    with servers.target("--disk", f"disk={backing}") as ours, servers.Tgt(backing) as theirs:
        resident = footprint(ours.pid).resident
        pin(ours.pid, 0)
        pin(theirs.pid, 0)
        for number in range(rounds):
            for load, case in zip(LOADS, cases, strict=True):
                sides = [
                    Side(ours.pid, ours["disk"].url, case.ours, case.our_cpu),
                    Side(theirs.pid, theirs.url(), case.theirs, case.their_cpu),
                ]
                # Each side goes first in every second round: drift favours no one.
                for side in sides if number % 2 == 0 else reversed(sides):
                    side.measure(load, seconds)
    return cases, resident


def timed(size: int, run: Callable[[], object]) -> float:
    """Return MB/s of a run over `size` bytes, with nothing of earlier runs left to write."""
    os.sync()
    start = time.monotonic()
    run()
    return size / (time.monotonic() - start) / 1e6


def measure_copies(folder: Path, rounds: int, size: int) -> Case:
    """Disk to tape through the mover, against qemu-img between two LUNs; both end flushed."""
    case = Case("copy of a disk", "MB/s", "qemu-img")
    source = servers.random_file(folder / "source.img", size)
    empty = servers.empty_file(folder / "destination.img", size)
    tape = ("--iqn", LIBRARY_IQN, "--tape", f"tape={folder / 'tape'},capacity={4 * size}")
    with (
        servers.target("--disk", f"disk={source}") as storage,
        servers.target(*tape) as backup,
        servers.datamover(storage, backup) as mover,
        servers.Tgt(source, empty) as theirs,
    ):
        manager = next(iter(mover.units.values()))

        def offloaded() -> None:
            rewind(backup["tape"].url)
            xcopy(manager.url, storage["disk"].url, backup["tape"].url, tape_block=TAPE_BLOCK)

        def converted() -> None:
            command = ["qemu-img", "convert", "-n", "-t", "writeback", "-f", "raw", "-O", "raw"]
            subprocess.run([*command, theirs.url(0), theirs.url(1)], check=True, timeout=300)

        for number in range(rounds):
            runs = [(case.ours, offloaded), (case.theirs, converted)]
            for results, run in runs if number % 2 == 0 else reversed(runs):
                results.append(timed(size, run))
    return case


def rewind(url: str) -> None:
    """Put the tape at its beginning, so that every run overwrites the one before."""
    subprocess.run(
        [*SERVERFREE, "tape", url, "rewind"], check=True, stdout=subprocess.DEVNULL, timeout=60
    )


def show(cases: list[Case], resident: int) -> None:
    """Print the ratios, and keep every figure of the run in a file."""
    table = Table(title="serverfree against tgt and qemu-img, medians of one run")
    for column in ("reads and a copy", "ours", "rival", "", "ratio", "CPU us"):
        table.add_column(column, justify="right" if column in ("ours", "ratio") else "left")
    for case in cases:
        ours, theirs = statistics.median(case.ours), statistics.median(case.theirs)
        table.add_row(
            case.name,
            f"{ours:,.0f}",
            f"{theirs:,.0f} ({case.rival})",
            case.unit,
            f"{case.ratio:.2f}",
            case.cpu,
        )
    Console().print(table)
    print("CPU us: of the server for one request, ours / theirs")
    print(f"resident memory of the idle target: {resident / MiB:.0f} MiB")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps(
            {
                "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
                "idle_resident_bytes": resident,
                "cases": [asdict(case) | {"ratio": round(case.ratio, 3)} for case in cases],
            },
            indent=2,
        )
    )
    print(f"every run: {RESULTS}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--seconds", type=int, default=4, help="of each read run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=512, metavar="MiB", help="of the volumes")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.rounds, args.size = 2, 1, 128
    for program in ("iscsi-perf", "tgtd", "qemu-img", "qemu-img's iscsi driver"):
        if find(program) is None:
            print(f"bench needs {program} (Debian: {PACKAGES[program]})", file=sys.stderr)
            return 1
    with tempfile.TemporaryDirectory(prefix="serverfree-bench-") as folder:
        cases, resident = measure_reads(Path(folder), args.seconds, args.rounds, args.size * MiB)
        cases.append(measure_copies(Path(folder), args.rounds, args.size * MiB))
    show(cases, resident)
    return 0


if __name__ == "__main__":
    sys.exit(main())
