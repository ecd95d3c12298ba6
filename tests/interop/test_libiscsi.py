"""libiscsi's programs against our target: listing, and its conformance suite."""

import re
import subprocess

import pytest

from support import peers

pytestmark = [pytest.mark.peer, pytest.mark.timeout(300)]

# libiscsi 1.19 wants the family in front; a pattern that matches nothing exits 0, so each test
# says how many tests it expects to run at least.
FAMILIES = {
    "ALL.Read*": 26,
    "ALL.Write*": 50,
    "ALL.ReadCapacity*": 5,
    "ALL.TestUnitReady": 1,
    "ALL.Inquiry": 7,
    "ALL.iSCSI*": 15,
}
# Its "[FAILED]" lines are no verdict: it prints them also where it hopes for a refusal.
TESTS_LINE = re.compile(r"^\s*tests\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", re.MULTILINE)


def run_suite(url: str, pattern: str) -> tuple[int, int, str]:
    """Run libiscsi's tests that match, on a disk whose content may be lost: ran, failed, output."""
    peers.require("iscsi-test-cu")
    command = ["iscsi-test-cu", "--dataloss", "--verbose", "--test", pattern, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    summary = TESTS_LINE.search(done.stdout)
    assert summary is not None, done.stdout[-4000:] + done.stderr
    _, ran, _, failed, _ = (int(number) for number in summary.groups())
    return ran, failed, done.stdout


def test_iscsi_ls_shows_every_unit_with_its_type_and_size(storage):
    peers.require("iscsi-ls")
    portal = "iscsi://{}:{}".format(*storage.address)
    done = subprocess.run(
        ["iscsi-ls", "-s", portal], capture_output=True, text=True, timeout=30, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"Target:{storage['one'].target_name} Portal:")
    assert [line.split("(")[0].split() for line in lines[1:]] == [
        ["Lun:0", "Type:DIRECT_ACCESS"],
        ["Lun:1", "Type:DIRECT_ACCESS"],
        ["Lun:2", "Type:SEQUENTIAL_ACCESS"],
    ]
    assert all(re.search(r"\(Size:3(19|20)M\)", line) for line in lines[1:3])


@pytest.mark.parametrize(("pattern", "at_least"), FAMILIES.items(), ids=list(FAMILIES))
def test_a_family_finds_no_fault_in_a_disk(storage, pattern, at_least):
    ran, failed, output = run_suite(storage["two"].url, pattern)
    assert ran >= at_least, output[-4000:]
    assert failed == 0, output


def test_the_whole_suite_finds_no_fault_in_a_thin_disk(storage):
    ran, failed, output = run_suite(storage["one"].url, "ALL")
    assert ran >= 230, output[-4000:]
    assert failed == 0, output


def test_a_pattern_that_matches_nothing_is_told_from_success(storage):
    ran, failed, _ = run_suite(storage["one"].url, "ALL.NoSuchSuite")
    assert (ran, failed) == (0, 0)
