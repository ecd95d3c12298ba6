"""Our target and data mover against others, in one run: ratios as a table and as JSON.

Same machine, same backing file, same client program, server and client each pinned to a core of
their own, runs alternating, medians. Figures of one machine mean little; ratios of one run mean
something. `make bench` runs this; `--quick` is for trying it out, `--only` for a part of it.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import copies, ntfs, snapshots, tape, transport
from bench.case import Case, MiB

from support.peers import PACKAGES, find

RESULTS = Path("build/bench.json")


def show(cases: list[Case], memory: dict[str, int]) -> None:
    """Print the ratios, and keep every figure of the run in a file."""
    table = Table(title="serverfree against others, medians of one run")
    for column in ("", "ours", "rival", "", "ratio", "rounds", "CPU us"):
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
            case.spread,
            case.cpu,
        )
    Console().print(table)
    print("rounds: the lowest and the highest ratio of a single round")
    print("CPU us: of the server for a request, ours / theirs; of the mover for 256 KiB, an extent")
    print("or, of the NTFS readers, for a file record")
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


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured: seconds of a run, rounds, and whether small media will do."""

    seconds: int
    rounds: int
    quick: bool


Found = tuple[list[Case], dict[str, int]]


def measure_transport(extent: Extent, folder: Path) -> Found:
    """Reads and writes over iSCSI."""
    size = 128 * MiB if extent.quick else 512 * MiB
    return transport.measure(folder, extent.seconds, extent.rounds, size)


def measure_copies(extent: Extent, folder: Path) -> Found:
    """Copies through the data mover."""
    runs = [
        (copies.measure, extent.rounds, 256 * MiB),
        (copies.measure, max(1, extent.rounds // 2), 2048 * MiB),
        (copies.measure_extents, extent.rounds, 256 * MiB),
    ]
    if extent.quick:
        runs = [(copies.measure, 1, 128 * MiB), (copies.measure_extents, 1, 128 * MiB)]
    watched = copies.Memory()
    cases: list[Case] = []
    for measure, rounds, size in runs:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            cases += measure(Path(place), rounds, size, watched)
    return cases, {"data mover, at most": watched.most}


def measure_tape(extent: Extent, folder: Path) -> Found:
    """The tape drive beside the disk, then a cartridge of a million blocks."""
    cases = tape.measure(folder / "rates", extent.rounds, 128 * MiB if extent.quick else 512 * MiB)
    return cases + tape.measure_motion(folder / "many", extent.rounds, 1000), {}


def measure_snapshots(extent: Extent, folder: Path) -> Found:
    """What snapshots cost the disk beneath them."""
    return snapshots.measure(folder, extent.rounds, 128 * MiB if extent.quick else 512 * MiB), {}


def measure_ntfs(extent: Extent, folder: Path) -> Found:
    """The NTFS reader beside The Sleuth Kit."""
    return [ntfs.case(folder, extent.rounds, quick=extent.quick)], {}


PARTS: dict[str, Callable[[Extent, Path], Found]] = {
    "transport": measure_transport,
    "copies": measure_copies,
    "tape": measure_tape,
    "snapshots": measure_snapshots,
    "ntfs": measure_ntfs,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part of it (repeatable)")
    parser.add_argument("--seconds", type=int, default=3, help="of each run over iSCSI")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    extent = Extent(2, 1, True) if args.quick else Extent(args.seconds, args.rounds, False)
    for program in transport.PROGRAMS:
        if find(program) is None:
            print(f"bench needs {program} (Debian: {PACKAGES[program]})", file=sys.stderr)
            return 1
    cases: list[Case] = []
    memory: dict[str, int] = {}
    for name in args.only or PARTS:
        with tempfile.TemporaryDirectory(prefix="serverfree-bench-") as folder:
            found, sizes = PARTS[name](extent, Path(folder))
        cases += found
        memory |= sizes
    show(cases, memory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
