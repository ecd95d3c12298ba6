"""The demo as a newcomer runs it: a process of its own, judged by its exit code and its figures."""

import argparse
import json
import lzma
import os
import shutil
import signal
import subprocess
import time
from importlib import resources
from pathlib import Path

import pytest

from serverfree.backup.ntfs.errors import NtfsError
from serverfree.backup.restore.report import RestoreReport
from serverfree.cli import demo, demo_san
from serverfree.cli.processes import SERVERFREE
from support import peers

DEMO = [*SERVERFREE, "demo"]
MiB = 1 << 20


def descendants(pid: int) -> set[int]:
    """Return the process ids whose ancestor is `pid`."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(status.parent.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


@pytest.mark.served
@pytest.mark.timeout(120)
def test_the_demo_moves_a_volume_there_and_back_past_the_server(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [*DEMO, "--json"], env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout)
    assert facts["sha256"]["volume"] == facts["sha256"]["restored"]
    for job in ("backup", "restore"):
        assert facts[job]["moved_bytes"] >= 128 * MiB
        assert facts[job]["server_bytes"] < facts[job]["moved_bytes"] / 1000
    assert facts["backup_of_files"]["moved_bytes"] >= 128 * MiB
    assert facts["backup_of_files"]["server_share"] < 0.02
    assert facts["backup_of_files"]["snapshot_waited"] >= 3
    assert facts["members"] > 100
    assert list(tmp_path.iterdir()) == []


@pytest.mark.served
@pytest.mark.timeout(120)
def test_the_demo_fails_if_what_comes_back_is_not_what_went(monkeypatch, capsys):
    """The restores are left out: the second disk still holds its random bytes."""
    monkeypatch.setattr(demo, "restore", lambda request, watcher: RestoreReport())
    monkeypatch.setattr(demo_san, "contents", contents_or_nothing(demo_san.contents))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert demo.run(argparse.Namespace(json=True)) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    facts = json.loads(capsys.readouterr().out)
    assert facts["sha256"]["volume"] != facts["sha256"]["restored"]
    assert not facts["file_is_back"]


def contents_or_nothing(real):
    """Look at a disk that may hold no volume at all."""

    def look(served, advance):
        try:
            return real(served, advance)
        except NtfsError:
            return {}

    return look


@pytest.mark.served
@pytest.mark.parametrize(("how", "delay"), [(signal.SIGINT, 0.7), (signal.SIGTERM, 4.0)])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path, how, delay):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        DEMO, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        time.sleep(delay)
        children = descendants(process.pid)
        process.send_signal(how)
        assert process.wait(30) != 0
    assert alive(children) == set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.peer
def test_the_volume_is_ntfs_and_holds_what_it_is_said_to_hold(tmp_path):
    peers.require("ntfsls", "ntfscat")
    image = tmp_path / "volume.img"
    packed = resources.files("serverfree.cli") / "data" / "volume.img.xz"
    with packed.open("rb") as source, lzma.open(source) as volume, image.open("wb") as file:
        shutil.copyfileobj(volume, file)
    assert image.stat().st_size >= 256 * MiB

    def read(program: str, *arguments: str) -> bytes:
        done = subprocess.run([program, *arguments], capture_output=True, timeout=60, check=True)
        return done.stdout

    listing = read("ntfsls", "-R", str(image)).decode()
    for name in ("events.log", "letter 060.txt", "Übersicht 概要.txt", "station-3.csv"):
        assert name in listing
    licence = (Path(__file__).parent.parent.parent / "LICENSE").read_bytes()
    assert read("ntfscat", str(image), "/Documents/LICENSE.txt") == licence
    report = "/Documents/report.txt"
    zone = read("ntfscat", "--attribute-name", "Zone.Identifier", str(image), report)
    assert zone == b"[ZoneTransfer]\r\nZoneId=3\r\n"
