"""libiscsi's whole suite on disks chosen so that each of its tests can run.

README's conformance table says which are skipped, and why; a test here holds it to that.
"""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from support import peers, servers

pytestmark = [pytest.mark.peer, pytest.mark.timeout(420)]

TESTS_LINE = re.compile(r"^\s*tests\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", re.MULTILINE)
SKIPPED = re.compile(r"\[SKIPPED\] *(.*)")
SECOND = "iqn.2026-11.com.example:second"

# What the table in README.md lists. Each is for a disk of another kind, where the test runs.
REMOVABLE = {
    "LBPPB < 2. Skipping test",
    "Multipath unavailable. Skipping test",
    "WRITESAME16 does not support 0-blocks.",
    "WRITESAME10 does not support 0-blocks.",
    "Logical unit is not write-protected. Skipping test.",
}
WITHOUT_SANITIZE = {"--allow-sanitize flag is not set. Skipping test."}


def run_suite(urls: Iterable[str], *options: str) -> tuple[int, int, set[str], str]:
    """Run tests on a disk whose content may be lost: ran, failed, reasons to skip, output."""
    peers.require("iscsi-test-cu")
    command = ["iscsi-test-cu", "--dataloss", "--verbose", *options, *urls]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    summary = TESTS_LINE.search(done.stdout)
    assert summary is not None, done.stdout[-4000:] + done.stderr
    _, ran, _, failed, _ = (int(number) for number in summary.groups())
    reasons = {reason.strip() for reason in SKIPPED.findall(done.stdout + done.stderr)}
    assert not [reason for reason in reasons if "implemented" in reason.lower()], reasons
    return ran, failed, reasons, done.stdout


@pytest.mark.parametrize(
    ("options", "skipped"),
    [
        # Long operations slow enough for the suite to look at them under way.
        ("size=24MiB,thin,removable,rate=3MiB", REMOVABLE),
        # Its asynchronous tests want more blocks. Once is enough for its long sanitize tests.
        ("size=64MiB,thin,removable,block=4096", REMOVABLE | WITHOUT_SANITIZE),
    ],
    ids=["512", "4096"],
)
def test_the_whole_suite_on_a_removable_disk(
    tmp_path: Path, options: str, skipped: set[str]
) -> None:
    sanitize = () if skipped >= WITHOUT_SANITIZE else ("--allow-sanitize",)
    with servers.target("--disk", f"d={tmp_path / 'd'},{options}") as server:
        ran, failed, reasons, output = run_suite([server["d"].url], "--test", "ALL", *sanitize)
    assert ran == 230, output[-4000:]
    assert failed == 0, output
    assert reasons <= skipped


@pytest.mark.parametrize(
    ("family", "at_least"),
    [("MultipathIO", 4), ("ProutPreempt", 1), ("ProutReserve", 13), ("Reserve6", 6)],
)
def test_two_initiators_over_two_paths(tmp_path: Path, family: str, at_least: int) -> None:
    with servers.target("--disk", f"d={tmp_path / 'd'},size=64MiB,thin") as server:
        url = server["d"].url
        pattern = ("--test", f"ALL.{family}")
        ran, failed, _, output = run_suite([url, url], "--initiator-name-2", SECOND, *pattern)
    assert ran >= at_least, output[-4000:]
    assert failed == 0, output


@pytest.mark.parametrize("family", ["CompareAndWrite", "WriteSame10", "WriteSame16", "Unmap"])
def test_blocks_smaller_than_those_of_the_medium(tmp_path: Path, family: str) -> None:
    disk = f"d={tmp_path / 'd'},size=64MiB,thin,physical=4096"
    with servers.target("--disk", disk) as server:
        ran, failed, reasons, output = run_suite([server["d"].url], "--test", f"ALL.{family}")
    assert ran >= 3, output[-4000:]
    assert failed == 0, output
    assert not [reason for reason in reasons if "LBPPB" in reason]


def test_a_disk_that_may_only_be_read(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(bytes(64 << 20))
    with servers.target("--disk", f"d={tmp_path / 'd'},readonly,thin") as server:
        ran, failed, _, output = run_suite([server["d"].url], "--test", "ALL.ReadOnly")
    assert ran >= 1, output[-4000:]
    assert failed == 0, output
