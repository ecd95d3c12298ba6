"""`xcopy --list` against servers of ours: what a description asks for is on the media then."""

import contextlib
import json
import os
import subprocess
import sys

import pytest

from serverfree.cli.main import main
from support import servers

pytestmark = pytest.mark.served

MIB = 1 << 20
BLOCK = 64 << 10


@pytest.fixture(scope="module")
def san(tmp_path_factory):
    folder = tmp_path_factory.mktemp("list")
    servers.random_file(folder / "disk.img", MIB)
    arguments = (
        *("--disk", f"disk={folder / 'disk.img'}"),
        *("--tape", f"tape={folder / 'cartridge'},capacity=64MiB"),
    )
    with servers.target(*arguments) as storage, servers.datamover(storage) as mover:
        yield folder, storage, next(iter(mover.units.values())).url


@pytest.fixture
def call(capfd):
    def run(*words):
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:  # argparse
            code = end.code
        return code, *capfd.readouterr()

    return run


def description(storage):
    """A header, 1000 blocks of the disk, a filemark: in tape blocks of 64 KiB, the last padded."""
    return f"""
        [[cscd]]
        name = "disk"
        url = "{storage["disk"].url}"
        [[cscd]]
        name = "tape"
        url = "{storage["tape"].url}"
        pad = true
        [[segment]]
        type = "inline to stream"
        destination = "tape"
        stream_transfer_length = {BLOCK}
        data = {{ text = "what this is" }}
        cat = true
        [[segment]]
        type = "block to stream"
        source = "disk"
        destination = "tape"
        stream_transfer_length = {BLOCK}
        number_of_blocks = 1000
        lba = 5
        [[segment]]
        type = "write filemarks"
        destination = "tape"
    """


def test_a_list_is_sent_as_described(san, call, tmp_path):
    folder, storage, mover = san
    path = tmp_path / "copy.toml"
    path.write_text(description(storage))
    code, out, err = call("xcopy", "--mover", mover, "--list", path, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    expected = b"what this is" + (folder / "disk.img").read_bytes()[5 * 512 : 1005 * 512]
    padded = expected + bytes(-len(expected) % BLOCK)
    assert (report["moved_bytes"], report["segments"]) == (len(padded), 3)
    assert report["server_bytes"] < 16 << 10
    assert call("tape", storage["tape"].url, "rewind")[0] == 0
    out_file = tmp_path / "tape.bin"
    assert call("tape", storage["tape"].url, "cat", out_file)[0] == 0
    assert out_file.read_bytes() == padded


def test_a_terminal_sees_how_far_the_copy_is(san, tmp_path):
    """The bar goes to standard error, is gone when the copy has ended, and standard output is not
    mixed with it."""
    _, storage, mover = san
    path = tmp_path / "copy.toml"
    path.write_text(description(storage))
    ours, theirs = os.openpty()
    words = [sys.executable, "-m", "serverfree.cli.main", "xcopy", "--mover", mover, "--list", path]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=theirs, env=os.environ | {"TERM": "xterm"}
    ) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # the other end of a terminal that is closed: EIO
            while more := os.read(ours, 4096):
                seen += more
        os.close(ours)
        assert process.stdout is not None
        out = process.stdout.read()
    assert process.returncode == 0
    assert b"copying" in seen
    assert seen.rstrip().endswith(b"\x1b[2K"), "the line of the bar is cleared"
    assert b"moved by the copy manager  524288 bytes" in out
    assert b"copying" not in out


@pytest.mark.parametrize("immediate", ["true", "false"])
def test_a_list_with_a_long_identifier_holds_data_for_us(san, call, tmp_path, immediate):
    folder, storage, mover = san
    path, held = tmp_path / "copy.toml", tmp_path / "held.bin"
    path.write_text(f"""
        lid4 = true
        immediate = {immediate}
        list_identifier = 65538
        [[cscd]]
        url = "{storage["disk"].url}"
        [[segment]]
        type = "block to block hold"
        source = 0
        destination = 0
        number_of_blocks = 2
        source_lba = 3
        destination_lba = 9
    """)
    words = ("--mover", mover, "--list", path, "--held", held, "--json")
    code, out, err = call("xcopy", *words)
    assert (code, err) == (0, "")
    content = (folder / "disk.img").read_bytes()
    assert json.loads(out)["moved_bytes"] == 1024
    assert held.read_bytes() == content[3 * 512 : 5 * 512] == content[9 * 512 : 11 * 512]


def test_a_dry_run_of_a_list_asks_the_units_only(san, call, tmp_path):
    _, storage, _ = san
    path = tmp_path / "copy.toml"
    path.write_text(description(storage))
    code, out, err = call("xcopy", "--list", path, "--dry-run")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("EXTENDED COPY(LID1)  83 00 00 00 00 00 00 00 00 00 00 00 00 94")
    assert "  segment 1: 00h block to stream, 0 -> 1, stream transfer length 65536, " in out
    assert lines[-1].endswith("77 68 61 74 20 74 68 69 73 20 69 73")


def test_a_list_that_the_copy_manager_refuses_fails_with_its_words(san, call, tmp_path):
    _, _, mover = san
    path = tmp_path / "copy.toml"
    path.write_text('[[segment]]\nraw = "fd 00 0004 0000 0000"\n')
    code, _, err = call("xcopy", "--mover", mover, "--list", path)
    assert code == 1
    assert "ILLEGAL_REQUEST 26/09" in err
    assert "byte 16 of the parameter list" in err


@pytest.mark.parametrize(
    "words",
    [
        ["--list", "x"],
        ["--dry-run"],
        [
            "--mover",
            "iscsi://127.0.0.1/iqn.a.b:c/0",
            "--list",
            "x",
            "iscsi://127.0.0.1/iqn.a.b:c/0",
        ],
        ["--mover", "iscsi://127.0.0.1/iqn.a.b:c/0", "--list", "x", "--count", "1"],
        ["--mover", "iscsi://127.0.0.1/iqn.a.b:c/0", "iscsi://127.0.0.1/iqn.a.b:c/0"],
    ],
)
def test_wrong_usage(call, words):
    assert call("xcopy", *words)[0] == 2
