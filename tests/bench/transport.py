"""Reads and writes over iSCSI: ours, tgt and istgt under the same loads, and iperf3 as the limit.

The three serve the same file and are pinned to core 0, the client to core 1. In every round each
load runs against all of them, in an order that turns: drift favours no one.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.case import Case, MiB
from bench.cpu import cpu_seconds, pin

from support import servers
from support.login_peers import Istgt
from support.process import footprint

RIVALS = ("tgt", "istgt")
PROGRAMS = ("iscsi-perf", "tgtd", "istgt", "qemu-img", "qemu-img's iscsi driver", "iperf3")
SECTOR = 512
_READER = Path(__file__).parent / "reader.py"
_AVERAGE = re.compile(r"iops average (\d+) ")
_COMPLETED = re.compile(r"Run completed in ([\d.]+) seconds")
_PILOT = 512 * MiB  # written by a first run, at most
_counts: dict[tuple[str, str], int] = {}
# Writes far from each other that come to every 4 KiB of the disk in turn.
_STRIDE = 37 * MiB + 4096


def iscsi_perf(url: str, load: "Load", seconds: int) -> float:
    """Return the reads a second of libiscsi's load generator, of several of them added up."""
    command = ["iscsi-perf", "-t", str(seconds), "-m", str(load.in_flight)]
    command += ["-b", str(load.size // SECTOR), *(["-r"] if load.random else []), url]
    clients = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(load.sessions)
    ]
    for client in clients:
        pin(client.pid, 1)
    total = 0.0
    for client in clients:
        output, _ = client.communicate(timeout=seconds + 60)
        averages = _AVERAGE.findall(output)
        if client.returncode or not averages:
            raise RuntimeError(f"{' '.join(command)} failed:\n{output}")
        total += int(averages[-1])
    return total


def qemu_writes(url: str, load: "Load", seconds: int) -> float:
    """Return the writes a second of `qemu-img bench`.

    It does a count of them, which the last run of the same load has told for the time.
    """
    count = _counts.get((url, load.name), min(20_000, _PILOT // load.size))
    rate = _qemu_bench(url, load, count)
    _counts[url, load.name] = int(rate * seconds) + 1
    return rate


def _qemu_bench(url: str, load: "Load", count: int) -> float:
    step = _STRIDE if load.random else load.size
    command = ["qemu-img", "bench", "-w", "-f", "raw", "-t", "writeback", "-c", str(count)]
    command += ["-d", str(load.in_flight), "-s", str(load.size), "-S", str(step), url]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pin(client.pid, 1)
    output, _ = client.communicate(timeout=600)
    took = _COMPLETED.search(output)
    if client.returncode or took is None:
        raise RuntimeError(f"{' '.join(command)} failed:\n{output}")
    return count / float(took[1])


def digest_reads(url: str, load: "Load", seconds: int) -> float:
    """Return the reads a second of our own client with header and data digests."""
    command = [sys.executable, str(_READER), f"{url}?header_digest=crc32c&data_digest=crc32c"]
    client = subprocess.Popen([*command, str(seconds)], stdout=subprocess.PIPE, text=True)
    pin(client.pid, 1)
    output, _ = client.communicate(timeout=seconds + 60)
    if client.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{output}")
    return float(output)


@dataclass(frozen=True, slots=True)
class Load:
    """What a client does: requests in flight, bytes in each, scattered or in order."""

    name: str
    unit: str
    in_flight: int
    size: int
    client: Callable[[str, "Load", int], float] = iscsi_perf
    random: bool = False
    sessions: int = 1


_4K, _256K = 4 << 10, 256 << 10
LOADS = (
    Load("4 KiB random read, QD 1", "IOPS", 1, _4K, random=True),
    Load("4 KiB random read, QD 32", "IOPS", 32, _4K, random=True),
    Load("4 KiB random read, four sessions, QD 8", "IOPS", 8, _4K, random=True, sessions=4),
    Load("4 KiB random write, QD 1", "IOPS", 1, _4K, qemu_writes, random=True),
    Load("4 KiB random write, QD 32", "IOPS", 32, _4K, qemu_writes, random=True),
    Load("256 KiB read, QD 8", "MB/s", 8, _256K),
    Load("256 KiB read, digests", "MB/s", 8, _256K, digest_reads),
    Load("256 KiB write, QD 8", "MB/s", 8, _256K, qemu_writes),
    Load("1 MiB read, QD 8", "MB/s", 8, MiB),
    Load("1 MiB write, QD 8", "MB/s", 8, MiB, qemu_writes),
)
_WIRE = "256 KiB read, QD 8"  # is also held against iperf3


@dataclass(slots=True)
class Side:
    """A server and, by load, the rates it reached and the CPU microseconds of a request."""

    pid: int
    url: str
    rates: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, load: Load, seconds: int) -> None:
        """Run a load once."""
        pin(self.pid, 0)  # whatever threads it has begun since
        began, before = time.monotonic(), cpu_seconds(self.pid)
        rate = load.client(self.url, load, seconds)
        took, spent = time.monotonic() - began, cpu_seconds(self.pid) - before
        self.cpu.setdefault(load.name, []).append(spent / (rate * took) * 1e6)
        scale = 1 if load.unit == "IOPS" else load.size / 1e6
        self.rates.setdefault(load.name, []).append(rate * scale)


def measure(
    folder: Path, seconds: int, rounds: int, size: int
) -> tuple[list[Case], dict[str, int]]:
    """Return a case for every load and rival, and the resident bytes of every server, idle."""
    backing = servers.random_file(folder / "disk.img", size)
    wire: list[float] = []
    with ExitStack() as running:
        ours = running.enter_context(servers.target("--disk", f"disk={backing}"))
        tgt = running.enter_context(servers.Tgt(backing))
        tgt.allow_digests()
        istgt = running.enter_context(Istgt(backing, method="None"))
        sides = {
            "ours": Side(ours.pid, ours["disk"].url),
            "tgt": Side(tgt.pid, tgt.url()),
            "istgt": Side(istgt.pid, f"iscsi://127.0.0.1:{istgt.port}/{istgt.NAME}/0"),
        }
        memory = {f"idle {name}": footprint(side.pid).resident for name, side in sides.items()}
        order = list(sides.values())
        for _ in range(rounds):
            for load in LOADS:
                for side in order:
                    side.measure(load, seconds)
            wire.append(iperf3(seconds))
            order = [*order[1:], order[0]]
    ours_side = sides["ours"]
    cases = [
        _case(load.name, load.unit, rival, ours_side, sides[rival])
        for load in LOADS
        for rival in RIVALS
    ]
    limit = Case(_WIRE, "MB/s", "iperf3", ours_side.rates[_WIRE], wire)
    return [*cases, limit], memory


def _case(name: str, unit: str, rival: str, ours: Side, theirs: Side) -> Case:
    return Case(
        name, unit, rival, ours.rates[name], theirs.rates[name], ours.cpu[name], theirs.cpu[name]
    )


def iperf3(seconds: int) -> float:
    """Return the MB/s that the loopback carries between two pinned C programs."""
    port = str(servers.free_port())
    server = subprocess.Popen(
        ["iperf3", "-s", "-1", "-p", port, "-B", "127.0.0.1", "-A", "0", "--forceflush"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        for line in server.stdout:  # it says so once it listens
            if "listening" in line:
                break
        done = subprocess.run(
            ["iperf3", "-c", "127.0.0.1", "-p", port, "-t", str(seconds), "-J", "-A", "1"],
            capture_output=True, text=True, check=True, timeout=seconds + 60,
        )  # fmt: skip
    finally:
        server.kill()
        server.communicate()
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 8e6
