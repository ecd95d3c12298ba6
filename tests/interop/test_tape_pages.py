"""The tape's log pages, attributes and vital product data as sg3_utils understands them.

Its decoders read the bytes from a file, so neither a kernel driver nor a guest is needed.
"""

import os
import subprocess

import pytest

from support import peers
from support.tape import REWIND, make_drive, read, write

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """A drive that wrote 2 MiB, read a quarter of it back, and knows a barcode."""
    drive = make_drive(tmp_path_factory.mktemp("t") / "tape", capacity=64 << 20)
    for _ in range(8):
        drive.good(write(1 << 18), os.urandom(1 << 18))
    drive.good(REWIND)
    drive.good(read(1 << 18))
    body = bytes.fromhex("08 06 01 00 20") + b"ABC123L5".ljust(32)
    body = len(body).to_bytes(4, "big") + body
    drive.good(bytes((0x8D,)) + bytes(9) + len(body).to_bytes(4, "big") + b"\0\0", body)
    yield drive
    drive.unit.close()


def decoded(program, data, tmp_path, *options):
    """What a program says of the bytes of a page."""
    peers.require(program)
    path = tmp_path / "page"
    path.write_bytes(data)
    done = subprocess.run(
        [str(peers.find(program)), "--raw", *(each.format(path) for each in options)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("page", "lines"),
    [
        (0x00, ["Sequential access device", "Volume statistics", "Tape alert", "Data compression"]),
        (0x02, ["Total bytes processed = 2097152", "Total uncorrected errors = 0"]),
        (0x03, ["Total bytes processed = 262144"]),
        (0x0C, ["Native capacity from BOP to EOD: 2 MB", "Cleaning action not required"]),
        (0x0D, ["Current temperature = <not available>"]),
        (0x11, ["MPRSNT=1 MSTD=1 MTHRD=1 MOUNTED=1", "polling delay:  100 milliseconds"]),
        (0x12, ["Flag01h: 0"]),
        (0x14, ["Lifetime media loads: 1", "Medium removal prevented: 0"]),
        (0x17, ["Page valid: 1", "Lifetime megabytes written: 2", "record data counter: 65"]),
        (0x2E, ["Hard error: 0", "WORM medium - overwrite attempted: 0"]),
        (0x30, ["Thread count: 1", "Total data sets written: 8"]),
        (0x31, ["Main partition remaining capacity (in MiB): 61"]),
        (0x32, ["Write compression ratio x100: 100", "Bytes transferred to server: 262144"]),
    ],
)
def test_log_pages(drive, tmp_path, page, lines):
    data = drive.good(bytes((0x4D, 0, 0x40 | page, 0, 0, 0, 0, 0xFF, 0xFF, 0)))
    text = decoded("sg_logs", data, tmp_path, "--in={}", "--pdt=1")
    assert [line for line in lines if line not in text] == []


@pytest.mark.parametrize(
    ("page", "line"),
    [
        (0xB0, "WORM=1"),
        (0xB1, "Manufacturer-assigned serial number"),
        (0xB2, "Flag09h: 1  0Ah: 1"),
        (0xB5, "method: 2, info_len: 4, LBP_W_C=1, LBP_R_C=1"),
        (0x86, "V_SUP=1"),
    ],
)
def test_vital_product_data(drive, tmp_path, page, line):
    data = drive.good(bytes((0x12, 1, page, 0, 0xFF, 0)))
    assert line in decoded("sg_vpd", data, tmp_path, "--inhex={}")


@pytest.mark.parametrize(
    ("action", "lines"),
    [
        (
            0,
            [
                "Remaining capacity in partition [MiB]: 61",
                "Load count: 1",
                "Barcode: ABC123L5",
                "Total MiB written in medium life: 2",
            ],
        ),
        (1, ["Volume change reference", "Barcode"]),
        (2, ["Number of logical volumes available: 1"]),
        (3, ["Number of partitions available: 1"]),
        (5, ["Application vendor", "Medium serial number"]),
    ],
)
def test_attributes(drive, tmp_path, action, lines):
    data = drive.good(bytes((0x8C, action)) + bytes(8) + (65_535).to_bytes(4, "big") + b"\0\0")
    text = decoded("sg_read_attr", data, tmp_path, "--in={}", f"--sa={action}")
    assert [line for line in lines if line not in text] == []
