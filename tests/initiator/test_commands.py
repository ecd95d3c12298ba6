"""The commands as people call them, against servers of ours: what they print, and their codes."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace

import pytest

from serverfree.cli.main import VERBS, main
from serverfree.initiator.commands.common import show
from serverfree.iscsi.errors import ProtocolError
from serverfree.iscsi.names import DiscoveredTarget
from support import servers

MIB = 1 << 20
KIB = 1 << 10


@pytest.fixture(scope="module")
def san(tmp_path_factory):
    """A target with two disks and a tape, and a data mover that reaches it."""
    folder = tmp_path_factory.mktemp("san")
    servers.random_file(folder / "one.img", 24 * MIB)
    arguments = (
        *("--disk", f"one={folder / 'one.img'}"),
        *("--disk", f"two={folder / 'two.img'},size=24MiB"),
        *("--tape", f"tape={folder / 'cartridge'},capacity=256MiB"),
    )
    with servers.target(*arguments) as storage, servers.datamover(storage) as mover:
        yield San(folder, storage, mover)


class San:
    def __init__(self, folder, storage, mover):
        self.storage = storage
        self.folder, self.mover = folder, next(iter(mover.units.values())).url
        self.mover_pid = mover.pid
        self.portal = "{}:{}".format(*storage.address)
        self.one, self.two, self.tape = (storage[name].url for name in ("one", "two", "tape"))


@pytest.fixture
def call(capfdbinary):
    """Run a command in this process; return its code, output and error text."""

    def run(*words):
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:  # argparse
            code = end.code
        out, err = capfdbinary.readouterr()
        return code, out, err.decode()

    return run


def facts(result):
    code, out, err = result
    assert (code, err) == (0, "")
    return json.loads(out)


def test_discover(san, call):
    [target] = facts(call("discover", san.portal, "--json"))
    assert target["name"] == san.one.split("/")[3]
    assert san.portal in target["portals"]
    _, out, _ = call("discover", san.portal)
    assert out.decode().split("\t")[0] == target["name"]


def test_luns(san, call):
    units = facts(call("luns", san.one, "--json"))
    assert [(unit["url"], unit["type"], unit["size"]) for unit in units] == [
        (san.one, "disk", 24 * MIB),
        (san.two, "disk", 24 * MIB),
        (san.tape, "tape", None),
    ]
    assert call("luns", san.one.rpartition("/")[0])[1].count(b"\n") == 3


def test_inquiry(san, call):
    inquiry = facts(call("inquiry", san.tape, "--json"))
    assert (inquiry["device_type"], inquiry["vendor"]) == (1, "SRVFREE")
    pages = facts(call("inquiry", san.one, "--vpd", "0", "--json"))["pages"]
    assert {"00h", "80h", "83h", "B0h"} <= set(pages)
    names = facts(call("inquiry", san.one, "--vpd", "0x83", "--json"))
    assert [len(name) for name in names["logical unit naa"]] == [len("naa.") + 16]
    _, out, _ = call("inquiry", san.one, "--vpd", "83h", "--hex")
    assert out.startswith(b"000000  00 83 00 1c 01 03 00 08 3")
    code, _, err = call("inquiry", san.one, "--vpd", "0xfe")
    assert code == 1
    assert "24/00" in err


def test_capacity(san, call):
    capacity = facts(call("capacity", san.one, "--json"))
    assert (capacity["blocks"], capacity["block_length"]) == (24 * MIB // 512, 512)
    code, _, err = call("capacity", san.tape)
    assert code == 1
    assert "tape" in err


def test_read_and_write(san, call, tmp_path):
    wanted = (san.folder / "one.img").read_bytes()[5 * 512 : 4005 * 512]
    assert call("read", san.one, "--lba", 5, "--blocks", 4000)[1] == wanted
    file = tmp_path / "blocks"
    assert call("read", san.one, "--lba", 5, "--blocks", 4000, file)[0] == 0
    assert file.read_bytes() == wanted
    assert call("write", san.two, "--lba", 7, "--blocks", 4000, file)[0] == 0
    disk = (san.folder / "two.img").read_bytes()
    assert disk[7 * 512 : 4007 * 512] == wanted
    assert not any(disk[: 7 * 512])
    code, _, err = call("write", san.two, "--lba", 0, "--blocks", 4001, file)
    assert code == 1
    assert "512 bytes short" in err
    code, _, err = call("read", san.one, "--lba", 24 * MIB // 512, "--blocks", 1)
    assert code == 1
    assert san.one in err
    assert "21/00" in err


def test_raw(san, call):
    code, out, _ = call("raw", san.one, "12 00 00 00 24 00", "--in", 36, "--binary")
    assert (code, out[8:15]) == (0, b"SRVFREE")
    # The first command of a session meets the unit attention: raw hides nothing.
    code, out, _ = call("raw", san.one, "00:00:00:00:00:00", "--json")
    assert code == 1
    told = json.loads(out)
    assert (told["status"], told["sense"]["key"]) == ("CHECK_CONDITION", "UNIT_ATTENTION")


def test_tape(san, call, tmp_path):
    file = servers.random_file(tmp_path / "data", 1_000_000)
    tape = ("tape", san.tape)
    assert call(*tape, "rewind")[0] == 0
    assert call(*tape, "write", "--tape-block", "100KiB", file)[0] == 0
    assert call(*tape, "weof")[0] == 0
    status = facts(call(*tape, "status", "--json"))
    assert (status["position_block"], status["position_file"]) == (12, 2)
    code, _, err = call(*tape, "bsf", 3)
    assert (code, "beginning of tape" in err) == (1, True)
    assert call(*tape, "cat")[1] == file.read_bytes()
    assert call(*tape, "locate", 9)[0] == 0
    assert len(call(*tape, "cat")[1]) == 1_000_000 - 9 * 100 * KIB
    assert call(*tape, "fsr", 1) == (1, b"", "serverfree tape: stopped at filemark\n")
    code, _, err = call(*tape, "fsr", 1)
    assert (code, "end of data" in err) == (1, True)
    assert call(*tape, "bsr", 1) == (1, b"", "serverfree tape: stopped at filemark\n")
    for operation in (["eod"], ["rewind"], ["erase"], ["unload"]):
        assert call(*tape, *operation)[0] == 0, operation
    status = facts(call(*tape, "status", "--json"))
    assert not status["ready"]
    assert "3A/00" in status["not_ready"]
    assert call(*tape, "load")[0] == 0
    code, _, err = call("tape", san.one, "rewind")
    assert code == 1
    assert "is a disk" in err


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_disk_to_tape_and_back_past_this_machine(san, call):
    call("tape", san.tape, "rewind")
    backup = facts(call("xcopy", "--mover", san.mover, san.one, san.tape, "--json"))
    assert backup["moved_bytes"] == 24 * MIB
    assert 0 < backup["server_bytes"] < 24 * KIB
    call("tape", san.tape, "rewind")
    restore = facts(call("xcopy", "--mover", san.mover, san.tape, san.two, "--json"))
    assert restore["moved_bytes"] == 24 * MIB
    assert digest(san.folder / "one.img") == digest(san.folder / "two.img")
    # The head stands behind the blocks, before the filemark: no file begins there.
    code, _, err = call("xcopy", "--mover", san.mover, san.tape, san.two)
    assert code == 1
    assert "rewind or locate" in err


def test_disk_to_disk_in_part(san, call):
    before = (san.folder / "two.img").read_bytes()
    words = ("--skip", 100, "--seek", 200, "--count", 300)
    code, out, _ = call("xcopy", "--mover", san.mover, san.one, san.two, *words)
    assert code == 0
    assert b"153600 bytes" in out
    source, after = (san.folder / "one.img").read_bytes(), (san.folder / "two.img").read_bytes()
    assert after[200 * 512 : 500 * 512] == source[100 * 512 : 400 * 512]
    assert after[: 200 * 512] == before[: 200 * 512]
    assert after[500 * 512 :] == before[500 * 512 :]


def test_a_failed_copy_says_where_and_why(san, call):
    call("tape", san.tape, "rewind")
    call("tape", san.tape, "weof")
    call("tape", san.tape, "rewind")
    words = ("--mover", san.mover, san.tape, san.two, "--count", 100)
    code, _, err = call("xcopy", *words)
    assert code == 1
    assert err.count("\n") == 1
    for part in (san.mover, "COPY_ABORTED 0D/01", "segment 0", "source answered", "filemark"):
        assert part in err


def test_a_dry_run_needs_no_copy_manager_and_copies_nothing(san, call):
    before = digest(san.folder / "two.img")
    nowhere = "iscsi://127.0.0.1:1/iqn.2026-11.com.example:nobody/0"
    plan = facts(call("xcopy", "--mover", nowhere, san.one, san.two, "--dry-run", "--json"))
    assert plan["bytes"] == 24 * MIB
    [command] = plan["commands"]
    raw = bytes.fromhex(command["parameter_list"])
    assert bytes.fromhex(command["cdb"])[10:14] == len(raw).to_bytes(4, "big")
    assert raw[16] == raw[48] == 0xE4
    assert raw[80] == 0x02
    assert "block to block" in command["meaning"][3]
    assert digest(san.folder / "two.img") == before
    assert call("xcopy", "--mover", nowhere, san.one, san.two)[0] == 1


def test_units_of_one_name_are_not_taken_for_each_other(san, call, tmp_path):
    """Two systems with the name that both have by default, and with disks of one name."""
    before = digest(san.folder / "one.img")
    disk = servers.random_file(tmp_path / "one.img", MIB)
    with (
        servers.target("--disk", f"one={disk}") as twin,
        servers.target(
            *("--iqn", "iqn.2026-11.com.example:other", "--disk", f"a={tmp_path}/a.img,size=24MiB")
        ) as other,
        servers.datamover(twin, san.storage, other) as mover,
    ):
        manager = next(iter(mover.units.values())).url
        code, _, err = call("xcopy", "--mover", manager, twin["one"].url, san.one)
        assert (code, err.count("\n")) == (1, 1)
        assert "have one designator" in err
        code, _, err = call("xcopy", "--mover", manager, other["a"].url, san.one)
        assert (code, err.count("\n")) == (1, 1)
        assert "no --reach of the copy manager leads to that unit, or to two" in err
        assert "two targets are named iqn.2026-11.com.example:storage, at" in mover.log()
        assert digest(san.folder / "one.img") == before
        # What only one of them has is found.
        assert call("xcopy", "--mover", manager, san.two, other["a"].url)[0] == 0


def test_copy_results(san, call):
    parameters = facts(call("copy-results", "--mover", san.mover, "parameters", "--json"))
    codes = {text.split()[0] for text in parameters["descriptor_types"]}
    assert {"00h", "01h", "02h", "E4h"} <= codes
    code, _, err = call("copy-results", "--mover", san.mover, "status", "--list-id", 9)
    assert code == 1
    assert "no copy with list identifier 9" in err


def test_an_interrupted_copy_is_aborted(san, call):
    """SIGINT in the middle: the copy manager stops, and says so at once to the next command."""
    command = [sys.executable, "-P", "-m", "serverfree.cli.main", "tape", san.tape]
    subprocess.run([*command, "rewind"], check=True)
    copy = [*command[:4], "xcopy", "--mover", san.mover, san.one, san.tape, "--tape-block", "512"]
    log = san.folder / "cartridge" / "part0.log"
    before = log.stat().st_mtime_ns
    process = subprocess.Popen(copy, stderr=subprocess.PIPE, preexec_fn=_hear_interrupts)
    deadline = time.monotonic() + 20
    while log.stat().st_mtime_ns == before or log.stat().st_size < MIB:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err.decode().splitlines() == [
        "serverfree xcopy: interrupted: ending the copy",
        "serverfree xcopy: interrupted: the copy manager has ended the copy",
    ]
    blocks = facts(call("tape", san.tape, "status", "--json"))["position_block"]
    assert 0 < blocks < 24 * MIB // 512
    assert facts(call("tape", san.tape, "status", "--json"))["position_block"] == blocks


def test_a_copy_manager_that_hangs_is_left_within_seconds_of_an_interrupt(san, call):
    command = [sys.executable, "-P", "-m", "serverfree.cli.main"]
    copy = [*command, "xcopy", "--mover", san.mover, san.one, san.tape, "--tape-block", "512"]
    process = subprocess.Popen(copy, stderr=subprocess.PIPE, preexec_fn=_hear_interrupts)
    log = san.folder / "cartridge" / "part0.log"
    before, deadline = log.stat().st_size, time.monotonic() + 20
    while log.stat().st_size < before + MIB:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(san.mover_pid, signal.SIGSTOP)
    try:
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, err = process.communicate(timeout=30)
        assert time.monotonic() - began < 8
    finally:
        os.kill(san.mover_pid, signal.SIGCONT)
    assert process.returncode == 1
    said = err.decode().splitlines()
    assert said[0] == "serverfree xcopy: interrupted: ending the copy"
    assert "the copy manager does not answer" in said[1]
    assert len(said) == 2
    # Once it is awake it finds nobody there to copy for.
    seen, now = None, facts(call("tape", san.tape, "status", "--json"))["position_block"]
    while seen != now:
        assert time.monotonic() < deadline + 20
        time.sleep(0.5)
        seen, now = now, facts(call("tape", san.tape, "status", "--json"))["position_block"]
    assert now < 2 * 24 * MIB // 512


def _hear_interrupts():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["capacity"],
        ["capacity", "not-a-url"],
        ["capacity", "iscsi://h/iqn.2026-11.com.example:x"],
        ["read", "iscsi://h/iqn.2026-11.com.example:x/0"],
        ["raw", "iscsi://h/iqn.2026-11.com.example:x/0", "zz"],
        ["tape", "iscsi://h/iqn.2026-11.com.example:x/0", "dance"],
        ["xcopy", "a", "b"],
        ["discover", "h:p"],
    ],
)
def test_wrong_usage_is_code_2(call, words):
    code, out, err = call(*words)
    assert (code, out) == (2, b"")
    assert "usage:" in err


def test_nobody_there_is_code_1_and_one_line(call):
    code, out, err = call("luns", "iscsi://127.0.0.1:1/iqn.2026-11.com.example:x")
    assert (code, out) == (1, b"")
    assert err == "serverfree luns: 127.0.0.1:1: cannot connect: Connection refused\n"


def test_what_a_terminal_would_obey_is_escaped(call, monkeypatch, capfdbinary):
    """What a peer says of itself is text of a stranger's."""
    show(Namespace(json=False), {"vendor": "V\x1b[31m\0", "names": ["a\x07", "b"]})
    assert capfdbinary.readouterr().out == b"vendor  V\\x1b[31m\\x00\nnames   a\\x07, b\n"
    name = "iqn.2026-11.com.example:\x1b[2J"
    module = "serverfree.initiator.commands.discover.discover"
    monkeypatch.setattr(module, lambda *_, **__: [DiscoveredTarget(name, ())])
    assert call("discover", "h")[1] == b"iqn.2026-11.com.example:\\x1b[2J\n"

    def fail(*_, **__):
        raise ProtocolError(f"{name} is not there")

    monkeypatch.setattr(module, fail)
    said = "serverfree discover: iqn.2026-11.com.example:\\x1b[2J is not there\n"
    assert call("discover", "h")[2] == said


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(call, verb):
    code, out, _ = call(verb, "--help")
    assert code == 0
    assert out.decode().startswith(f"usage: serverfree {verb}")


def test_help_is_quick_and_lists_every_verb():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "serverfree.cli.main", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert all(f"    {verb} " in done.stdout or f"    {verb}\n" in done.stdout for verb in VERBS)
    # Nothing that takes long to import is touched before a verb is asked for.
    for heavy in ("construct", "rich", "serverfree.target", "serverfree.datamover"):
        assert f"| {heavy}\n" not in done.stderr.replace("  ", "")
