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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import copies
from bench.case import Case, MiB
from bench.cpu import cpu_seconds, pin

from support import servers
from support.peers import PACKAGES, find
from support.process import footprint

RESULTS = Path("build/bench.json")
AVERAGE = re.compile(r"iops average (\d+) ")


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


def show(cases: list[Case], memory: dict[str, int]) -> None:
    """Print the ratios, and keep every figure of the run in a file."""
    table = Table(title="serverfree against tgt and qemu-img, medians of one run")
    for column in ("reads and copies", "ours", "rival", "", "ratio", "CPU us"):
        table.add_column(column, justify="right" if column in ("ours", "ratio") else "left")
    for case in cases:
        unit = "/s" if case.unit == "extents/s" else case.unit
        ours, theirs = statistics.median(case.ours), statistics.median(case.theirs)
        table.add_row(
            case.name,
            f"{ours:,.0f}",
            f"{theirs:,.0f} ({case.rival})",
            unit,
            f"{case.ratio:.2f}",
            case.cpu,
        )
    Console().print(table)
    print("CPU us: of the server for a request, ours / theirs; of the mover for 256 KiB, an extent")
    for name, size in memory.items():
        print(f"memory of the {name}: {size / MiB:.0f} MiB")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps(
            {
                "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
                "memory_bytes": memory,
                "cases": [asdict(case) | {"ratio": round(case.ratio, 3)} for case in cases],
            },
            indent=2,
        )
    )
    print(f"every run: {RESULTS}")


def copy_runs(args: argparse.Namespace) -> list[tuple[Any, int, int]]:
    """Return what to measure of copies, how often and over how many bytes."""
    if args.quick:
        return [(copies.measure, 1, 128 * MiB), (copies.measure_extents, 1, 128 * MiB)]
    return [
        (copies.measure, args.rounds, 256 * MiB),
        (copies.measure, max(1, args.rounds // 2), 2048 * MiB),
        (copies.measure_extents, args.rounds, 256 * MiB),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--only", choices=("reads", "copies"), help="half of it")
    parser.add_argument("--seconds", type=int, default=4, help="of each read run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--size", type=int, default=512, metavar="MiB", help="of the disk that is read"
    )
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.rounds, args.size = 2, 1, 128
    for program in ("iscsi-perf", "tgtd", "qemu-img", "qemu-img's iscsi driver"):
        if find(program) is None:
            print(f"bench needs {program} (Debian: {PACKAGES[program]})", file=sys.stderr)
            return 1
    cases: list[Case] = []
    memory = {}
    if args.only != "copies":
        with tempfile.TemporaryDirectory(prefix="serverfree-bench-") as folder:
            cases, memory["idle target, resident"] = measure_reads(
                Path(folder), args.seconds, args.rounds, args.size * MiB
            )
    if args.only != "reads":
        watched = copies.Memory()
        for measure, rounds, size in copy_runs(args):
            with tempfile.TemporaryDirectory(prefix="serverfree-bench-") as folder:
                cases += measure(Path(folder), rounds, size, watched)
        memory["data mover, at most"] = watched.most
    show(cases, memory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
