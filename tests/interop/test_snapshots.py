"""Snapshots while other people's programs write and read: real processes, real time."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serverfree.cli.processes import SERVERFREE, Server
from serverfree.initiator.urls import open_session
from serverfree.scsi.sense import Asc
from support import peers
from support.servers import datamover, target

pytestmark = [pytest.mark.peer, pytest.mark.served]

MiB = 1 << 20
SIZE = 16 * MiB
TOKEN = "open-sesame"
ENVIRONMENT = {**os.environ, "SERVERFREE_TOKEN": TOKEN}


@pytest.fixture
def array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("SERVERFREE_TOKEN", TOKEN)
    disk = f"data={tmp_path}/data.img,size=16MiB"
    spare = f"spare={tmp_path}/spare.img,size=16MiB"
    with target("--disk", disk, "--disk", spare, "--api", "127.0.0.1:0") as server:
        yield server


def snapshot(array: Server, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `serverfree snapshot` against the storage system."""
    action, *more = words
    return subprocess.run(
        [*SERVERFREE, "snapshot", action, "--array", array["management"].url, *more],
        capture_output=True,
        text=True,
        timeout=60,
        env=ENVIRONMENT,
    )


def facts(done: subprocess.CompletedProcess[str]):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def qemu_io(url: str, *commands: str) -> None:
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(
        ["qemu-io", "-f", "raw", *words, url], check=True, capture_output=True, timeout=60
    )


def test_the_gate_is_shut_while_qemu_writes_and_opens_when_it_has_stopped(array):
    peers.require("qemu-io", "qemu-img's iscsi driver")
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            qemu_io(array["data"].url, *["write -P 7 1M 4k", "sleep 200"] * 5)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        time.sleep(1)
        began = time.monotonic()
        late = snapshot(array, "create", "data", "--quiet", "1", "--timeout", "5")
        assert 5 <= time.monotonic() - began < 15
        assert late.returncode == 1
        assert re.fullmatch(r"serverfree snapshot: .* no 1 s without a write .*\n", late.stderr)
        assert facts(snapshot(array, "list", "--json")) == []
    finally:
        done.set()
        writer.join()
    made = facts(snapshot(array, "create", "data", "--quiet", "1", "--timeout", "5", "--json"))
    assert (made["disk"], made["consistency"], made["size"]) == ("data", "crash", SIZE)


def test_a_snapshot_stays_what_it_was_while_the_disk_is_overwritten(array, tmp_path):
    peers.require("qemu-io", "qemu-img", "iscsi-inq", "iscsi-ls", "qemu-img's iscsi driver")
    disk, copy = array["data"].url, tmp_path / "copy.img"
    qemu_io(disk, "write -P 17 0 8M", "write -P 34 8M 1M", "flush")
    before = (tmp_path / "data.img").read_bytes()
    made = facts(snapshot(array, "create", "data", "--quiet", "0", "--name", "monday", "--json"))
    done = threading.Event()

    def overwrite() -> None:
        pattern = 0
        while not done.is_set():
            pattern = pattern % 200 + 1
            qemu_io(disk, f"write -P {pattern} 0 16M")

    writer = threading.Thread(target=overwrite)
    writer.start()
    try:
        for _ in range(3):
            subprocess.run(
                ["qemu-img", "convert", "-f", "raw", "-O", "raw", made["url"], copy],
                check=True,
                capture_output=True,
                timeout=60,
            )
            assert copy.read_bytes() == before
    finally:
        done.set()
        writer.join()
    assert (tmp_path / "data.img").read_bytes() != before
    told = subprocess.run(["iscsi-inq", made["url"]], capture_output=True, text=True, check=True)
    assert "SNAPSHOT" in told.stdout
    told = subprocess.run(
        ["iscsi-inq", "-e", "1", "-c", "128", made["url"]],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert made["serial"] in told.stdout
    portal = f"iscsi://127.0.0.1:{array['data'].port}"
    listed = subprocess.run(["iscsi-ls", "-s", portal], capture_output=True, text=True, check=True)
    assert "Lun:255 " in listed.stdout  # the number that a URL has
    assert snapshot(array, "delete", "monday", "--force").returncode == 0


def test_a_mover_copies_from_a_snapshot_that_came_after_it_had_looked_around(array, tmp_path):
    peers.require("qemu-io", "qemu-img's iscsi driver")
    disk, spare = array["data"].url, array["spare"].url
    qemu_io(disk, "write -P 17 0 16M")
    with datamover(array) as mover:
        there = mover["copy-manager"].url
        xcopy = [*SERVERFREE, "xcopy", "--mover", there]
        # The mover knows its fabric now ...
        subprocess.run([*xcopy, disk, spare, "--count", "8"], check=True, timeout=60)
        # ... and this was not part of it.
        made = facts(snapshot(array, "create", "data", "--quiet", "0", "--json"))
        qemu_io(disk, "write -P 34 0 16M")
        subprocess.run([*xcopy, made["url"], spare], check=True, timeout=60)
        assert (tmp_path / "spare.img").read_bytes() == bytes((17,)) * SIZE
        # Who copies over the network has read it a moment ago: it is in use until that is past.
        kept = snapshot(array, "list", "data", "--json")
        assert [one["name"] for one in json.loads(kept.stdout)] == [made["name"]]
        began = time.monotonic()
        assert snapshot(array, "delete", made["name"]).returncode == 0
        assert time.monotonic() - began < 12


def test_a_live_session_is_told_of_the_new_lun(array):
    session, lun = open_session(array["data"].url)
    with session:
        unit = session.unit(lun)
        while unit.submit(bytes(6)).wait().sense is not None:
            pass
        facts(snapshot(array, "create", "data", "--quiet", "0", "--json"))
        sense = unit.submit(bytes(6)).wait().sense
        assert sense is not None
        assert sense.asc is Asc.REPORTED_LUNS_DATA_HAS_CHANGED
        assert session.report_luns() == [0, 1, 255]


def test_snapshots_survive_kill_9_and_are_printed_at_the_next_start(array, tmp_path):
    peers.require("qemu-io", "qemu-img", "qemu-img's iscsi driver")
    qemu_io(array["data"].url, "write -P 17 0 16M", "flush")
    made = facts(snapshot(array, "create", "data", "--quiet", "0", "--name", "kept", "--json"))
    qemu_io(array["data"].url, "write -P 34 0 9M", "flush")
    array.kill()
    array.start()
    assert (array["kept"].url, array["kept"].kind) == (made["url"], "snapshot")
    copy = tmp_path / "copy.img"
    subprocess.run(
        ["qemu-img", "convert", "-f", "raw", "-O", "raw", made["url"], copy], check=True, timeout=60
    )
    assert copy.read_bytes() == bytes((17,)) * SIZE
    after = facts(snapshot(array, "list", "--json"))
    assert [one["designator"] for one in after] == [made["designator"]]


def test_an_interrupt_ends_the_wait_at_the_storage_too(array):
    peers.require("qemu-io", "qemu-img's iscsi driver")
    qemu_io(array["data"].url, "write -P 17 0 4k")
    url = array["management"].url
    words = ["create", "--array", url, "data", "--quiet", "600", "--timeout", "600"]
    client = subprocess.Popen(
        [*SERVERFREE, "snapshot", *words], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    time.sleep(2)
    client.send_signal(signal.SIGINT)
    _, errors = client.communicate(timeout=20)
    assert client.returncode == 1
    assert errors == "serverfree snapshot: interrupted\n"
    began = time.monotonic()
    assert array.stop() == 0  # nobody is waited for
    assert time.monotonic() - began < 10
    assert "Traceback" not in array.log()


def test_without_a_token_the_target_does_not_start(tmp_path):
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "SERVERFREE_TOKEN"}
    disk = f"data={tmp_path}/data.img,size=1MiB"
    done = subprocess.run(
        [*SERVERFREE, "target", "--portal", "127.0.0.1:0", "--disk", disk, "--api", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=30,
        env=environment,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"serverfree target: .*set SERVERFREE_TOKEN.*\n", done.stderr)
    assert not (tmp_path / "data.img").exists()


def test_the_commands_of_whoever_asks_run_around_it_and_give_the_label(array, tmp_path):
    log, count = tmp_path / "log", ["--quiet", "0", "--json"]
    hooks = ["--before", f"echo freeze >> {log}", "--after", f"echo thaw >> {log}"]
    made = facts(snapshot(array, "create", "data", *count, *hooks))
    assert made["consistency"] == "fs"
    assert log.read_text() == "freeze\nthaw\n"
    late = snapshot(array, "create", "data", *count, "--before", "sleep 9", "--hook-timeout", "0.2")
    assert late.returncode == 1
    assert "longer than 0.2 s" in late.stderr
    promise = snapshot(array, "create", "data", *count, "--consistency", "app")
    assert promise.returncode == 2
    assert [one["name"] for one in facts(snapshot(array, "list", "--json"))] == [made["name"]]


def test_changes_between_two_snapshots_are_told(array):
    peers.require("qemu-io", "qemu-img's iscsi driver")
    first = facts(snapshot(array, "create", "data", "--quiet", "0", "--json"))
    qemu_io(array["data"].url, "write -P 1 3M 4k", "write -P 1 5M 64k")
    second = facts(snapshot(array, "create", "data", "--quiet", "0", "--json"))
    since = ("--since", str(first["generation"]))
    told = facts(snapshot(array, "changes", second["name"], *since, "--json"))
    assert told["extents"] == [[3 * MiB, 65536], [5 * MiB, 65536]]
    assert (told["complete"], told["bytes"]) == (True, 131072)
    assert snapshot(array, "changes", second["name"], *since).stdout == (
        "3145728\t65536\n5242880\t65536\n"
    )


def test_an_address_of_the_api_that_is_taken_is_one_line_and_nothing_is_served(array, tmp_path):
    taken = array["management"].url.removeprefix("http://")
    disk = f"other={tmp_path}/other.img,size=1MiB"
    done = subprocess.run(
        [*SERVERFREE, "target", "--portal", "127.0.0.1:0", "--disk", disk, "--api", taken],
        capture_output=True,
        text=True,
        timeout=30,
        env=ENVIRONMENT,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"serverfree target: .*cannot listen at {taken}.*\n", done.stderr)
