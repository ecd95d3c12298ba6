"""ROD tokens, VPD page 8Fh and sense data as ddptctl and sg3_utils understand them.

They read the bytes from files, so neither a kernel driver nor a guest is needed.
"""

import subprocess

import pytest

from serverfree.scsi.sense import Asc
from support import peers
from support.rods import PERSISTENT, San

pytestmark = pytest.mark.peer


@pytest.fixture
def san(tmp_path):
    made = San(tmp_path)
    yield made
    made.close()


def said(program, *arguments):
    """What a program prints."""
    peers.require(program)
    done = subprocess.run(
        [str(peers.find(program)), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [" ".join(line.split()) for line in done.stdout.splitlines()]


def test_ddptctl_reads_a_token(san, tmp_path) -> None:
    disk = san.disk("a", block_size=4096)
    path = tmp_path / "token"
    path.write_bytes(disk.populate((3, 4), (40, 2), rod_type=PERSISTENT))
    identifier = path.read_bytes()[8:16].hex()
    lines = said("ddptctl", "--info", f"--rtf={path}", "--verbose")
    for line in (
        "ROD type: point in time copy - persistent [0x800002]",
        f"Copy manager ROD Token identifier: 0x{identifier}",
        "designator type: NAA, code set: Binary",
        f"0x{disk.unit.designator.identifier.hex()}",
        "Number of bytes represented: 24576 [0x6000]",
        "block size: 4096 [0x1000] bytes",
        "designator type: SCSI name string, code set: UTF-8",
        "iqn.2026-11.com.example:t",
    ):
        assert line in lines


def test_sg_vpd_reads_the_page(san, tmp_path) -> None:
    path = tmp_path / "page"
    for keeps in (True, False):
        disk = san.disk(f"keeps {keeps}", keeps=keeps)
        path.write_bytes(disk.host.good(bytes.fromhex("12 01 8f ffff 00")))
        lines = said("sg_vpd", "--page=tpc", "--raw", f"--inhex={path}")
        for line in (
            "Maximum range descriptors: 1024",
            "Maximum inactivity timeout: 86400 seconds",
            "Default inactivity timeout: 60 seconds",
            "Populate token",
            "Write using token",
            "Receive ROD token information",
            "Report all ROD tokens",
            "ROD <- block range(n) [0xbe]",
            "ROD <- block range(1) [0xbf]",
            "CSCD: ROD [0xfe]",
            "copy src or dst in ROD token [0xf800]",
            "Remote tokens: 0",
            "Minimum token lifetime: 60 seconds",
            "Maximum token lifetime: 86400 seconds",
        ):
            assert line in lines
        at = lines.index("ROD type: point in time copy - persistent [0x800002]")
        does = "yes" if keeps else "no"
        assert lines[at + 1 : at + 4] == [
            f"Internal: {does}",
            "Token in: yes",
            f"Token out: {does}",
        ]


@pytest.mark.parametrize(
    "asc", [asc for asc in Asc if "TOKEN_OPERATION" in asc.name or "CREATE_ROD" in asc.name]
)
def test_sense_codes_are_those_of_their_names(asc) -> None:
    raw = bytes.fromhex("70 00 05 00000000 0a 00000000") + asc.to_bytes(2, "big") + bytes(4)
    text = " ".join(said("sg_decode_sense", *raw.hex(" ").split())).lower()
    name = asc.name.replace("_", " ").lower()
    assert name in text.replace(",", "")
