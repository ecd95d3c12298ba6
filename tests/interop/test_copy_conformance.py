"""What libiscsi's suite asks of third-party copy: by itself of a disk, by us of the data mover.

The suite refuses a unit that is no disk, so its lists are put together here once more, by hand,
and sent to the standalone mover, whose unit is a processor device (SPC-4 5.17.2).
"""

import re
import subprocess

import pytest

from serverfree.initiator.urls import open_session
from serverfree.scsi.status import Status
from support import peers, servers

MIB = 1 << 20
TESTS_LINE = re.compile(r"^\s*tests\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", re.MULTILINE)
# Said once by the suite itself, before and behind the tests, not by one of them.
OF_THE_SUITE = "PERSISTENT RESERVE IN is not implemented"


@pytest.mark.peer
@pytest.mark.parametrize(("family", "at_least"), [("ExtendedCopy", 6), ("ReceiveCopyResults", 2)])
def test_libiscsi_passes_every_test_and_skips_none(storage, family, at_least):
    peers.require("iscsi-test-cu")
    pattern = f"ALL.{family}.*"
    command = ["iscsi-test-cu", "--dataloss", "--verbose", "--test", pattern, storage["two"].url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    summary = TESTS_LINE.search(done.stdout)
    assert summary is not None, done.stdout + done.stderr
    _, ran, passed, failed, inactive = (int(number) for number in summary.groups())
    assert ran >= at_least, done.stdout
    assert (passed, failed, inactive) == (ran, 0, 0), done.stdout
    skipped = [line for line in done.stdout.splitlines() if "[SKIPPED]" in line]
    assert [line for line in skipped if OF_THE_SUITE not in line] == [], done.stdout


# ---------------------------------------------------------------------- the same of the mover


@pytest.fixture(scope="module")
def mover(tmp_path_factory):
    """A unit to talk to, the CSCD descriptor of a disk that it reaches, and that disk's file."""
    path = servers.random_file(tmp_path_factory.mktemp("mover") / "disk.img", 4 * MIB)
    with (
        servers.target("--disk", f"disk={path}") as storage,
        servers.datamover(storage) as server,
    ):
        session, lun = open_session(next(iter(server.units.values())).url)
        with session:
            unit = session.unit(lun)
            unit.submit(bytes(6)).wait()  # TEST UNIT READY hears the unit attention
            yield unit, cscd_of(storage["disk"].url), path


def cscd_of(url):
    """E4h with the NAA designator of VPD page 83h, found by its bytes, and blocks of 512."""
    session, lun = open_session(url)
    with session:
        unit = session.unit(lun)
        unit.submit(bytes(6)).wait()
        page = bytearray(255)
        inquiry = bytes.fromhex("12 01 83 00 ff 00")
        assert unit.submit(inquiry, data_in=memoryview(page)).wait().status is Status.GOOD
    at = 4
    while page[at + 1] & 0x3F != 0x03:
        at += 4 + page[at + 3]
    designator = bytes(page[at : at + 4 + page[at + 3]])
    return bytes((0xE4, 0, 0, 0)) + designator.ljust(24, b"\0") + bytes.fromhex("00000200")


def segment(blocks, source_lba, destination_lba, source=0, destination=0):
    return (
        bytes.fromhex("02 00 0018")
        + source.to_bytes(2, "big")
        + destination.to_bytes(2, "big")
        + bytes(2)
        + blocks.to_bytes(2, "big")
        + source_lba.to_bytes(8, "big")
        + destination_lba.to_bytes(8, "big")
    )


def listed(cscds, segments, usage=2, identifier=1):
    return (
        bytes((identifier, usage << 3))
        + len(cscds).to_bytes(2, "big")
        + bytes(4)
        + len(segments).to_bytes(4, "big")
        + bytes(4)
        + cscds
        + segments
    )


def send(unit, parameters, length=None):
    """EXTENDED COPY(LID1) with as many bytes of the list as `length` says."""
    length = len(parameters) if length is None else length
    cdb = bytes((0x83, *bytes(9))) + length.to_bytes(4, "big") + bytes(2)
    return unit.submit(cdb, data_out=parameters[:length]).wait()


def results(unit, action, identifier=1, size=256):
    answer = bytearray(size)
    cdb = bytes((0x84, action, identifier, *bytes(7))) + size.to_bytes(4, "big") + bytes(2)
    result = unit.submit(cdb, data_in=memoryview(answer)).wait()
    return result, bytes(answer[: result.transferred])


def sense(result):
    """Sense key and additional sense code, read from the raw bytes of fixed format."""
    assert result.status is Status.CHECK_CONDITION
    return result.sense.raw[2] & 0x0F, int.from_bytes(result.sense.raw[12:14], "big")


pytestmark = pytest.mark.served


def test_a_copy_within_a_disk(mover):
    unit, cscd, path = mover
    assert send(unit, listed(cscd, segment(2048, 0, 6144))).status is Status.GOOD
    content = path.read_bytes()
    assert content[3 * MIB :] == content[:MIB]


def test_a_list_cut_short(mover):
    unit, cscd, _ = mover
    parameters = listed(cscd, segment(1, 0, 1))
    assert sense(send(unit, parameters, 16 + 31)) == (0x05, 0x1A00)
    assert sense(send(unit, parameters, len(parameters) - 1)) == (0x05, 0x1A00)
    assert send(unit, parameters, 0).status is Status.GOOD


def test_more_descriptors_than_it_says_it_takes(mover):
    unit, cscd, _ = mover
    _, told = results(unit, 3, identifier=0)
    cscds, segments = (int.from_bytes(told[at : at + 2], "big") for at in (8, 10))
    longest = int.from_bytes(told[12:16], "big")
    assert sense(send(unit, listed(cscd * (cscds + 1), segment(1, 0, 1)))) == (0x05, 0x2606)
    many = segment(1, 0, 1) * (segments + 1)
    assert sense(send(unit, listed(cscd, many))) == (0x05, 0x2608)
    beyond = bytearray(listed(cscd, segment(1, 0, 1)))
    beyond[8:12] = longest.to_bytes(4, "big")
    assert sense(send(unit, bytes(beyond))) == (0x05, 0x1A00)


def test_descriptors_that_nobody_knows(mover):
    unit, cscd, _ = mover
    strange = bytes((0xE0,)) + cscd[1:]
    assert sense(send(unit, listed(strange, segment(1, 0, 1)))) == (0x05, 0x2607)
    unknown = bytes((0x7F,)) + segment(1, 0, 1)[1:]
    assert sense(send(unit, listed(cscd, unknown))) == (0x05, 0x2609)


def test_lu_id_type_means_nothing_in_a_designation_descriptor(mover):
    unit, cscd, _ = mover
    assert send(unit, listed(bytes((0xE4, 0x80)) + cscd[2:], segment(1, 0, 1))).status is (
        Status.GOOD
    )


@pytest.mark.parametrize(
    "wrong", [segment(1, 0, 1, destination=1), segment(16, 0, 8191)], ids=["no CSCD", "beyond"]
)
def test_a_segment_that_cannot_be_done_is_copy_aborted(mover, wrong):
    unit, cscd, _ = mover
    key, code = sense(send(unit, listed(cscd, wrong)))
    assert key == 0x0A
    assert code in (0x0000, 0x0804, 0x0D02)


def test_the_status_of_a_copy_is_kept_until_it_was_told(mover):
    unit, cscd, _ = mover
    result, _ = results(unit, 0, identifier=9)
    assert sense(result)[0] == 0x05
    assert send(unit, listed(cscd, segment(2, 0, 2), usage=0, identifier=9)).status is Status.GOOD
    _, told = results(unit, 0, identifier=9)
    assert told == bytes.fromhex("00000008 01 0001 00 00000400")
    result, _ = results(unit, 0, identifier=9)
    assert sense(result)[0] == 0x05


def test_operating_parameters_hold_what_a_mover_promises(mover):
    unit, _, _ = mover
    _, told = results(unit, 3, identifier=0)
    assert int.from_bytes(told[:4], "big") == len(told) - 4

    def number(at, size):
        return int.from_bytes(told[at : at + size], "big")

    assert number(8, 2) >= 64  # CSCDs
    assert number(10, 2) >= 16384  # segments
    assert number(12, 4) >= 4 * MIB  # descriptors
    assert number(20, 4) >= MIB  # inline
    assert number(28, 4) >= 16 * MIB  # stream transfer
    assert told[37] == told[38] == 0  # granularities of one byte
    codes = told[44:]
    assert len(codes) == told[43]
    assert list(codes) == sorted(set(codes))
    assert {0x00, 0x01, 0x02, 0x04, 0x06, 0x10, 0x12, 0xE4} <= set(codes)
