"""Reading ahead: the next block is ready before it is asked for, and never one that is not there.

Every other test of the drive reads ahead as well: the helper that runs commands does what a
connection does once an answer is out.
"""

from functools import partial

import pytest

from serverfree.scsi.status import Status
from serverfree.target.units.base import Row, table_of
from serverfree.target.units.command import Command, Reply
from support.portal import SHORT, Client, PatientUnit, serving, until
from support.tape import (
    OVERHEAD,
    REWIND,
    TEST_UNIT_READY,
    UNLOAD,
    filemarks,
    locate,
    make_drive,
    read,
    sense,
    write,
)

LOG = "part0.log"
HEADER = 64  # bytes of a record, and of the file, before what they hold


@pytest.fixture
def drive(tmp_path):
    drive = make_drive(tmp_path / "tape")
    yield drive
    drive.unit.close()


def reads_of_the_log(drive, monkeypatch):
    """Count the records that are read from the medium."""
    log = drive.unit.medium.partition._log
    found = []
    whole = log.read_whole
    monkeypatch.setattr(
        log, "read_whole", lambda offset, length: found.append(offset) or whole(offset, length)
    )
    return found


class TestWhatIsRead:
    def test_one_block_ahead_once_reads_follow_each_other(self, drive, monkeypatch):
        drive.fill("abcd")
        found = reads_of_the_log(drive, monkeypatch)
        begins = [HEADER + number * (100 + OVERHEAD) for number in range(4)]
        assert drive.good(read(100)) == b"a" * 100
        assert found == begins[:1], "a single read may be all that is wanted"
        assert drive.good(read(100)) == b"b" * 100
        assert found == begins[:3]
        assert drive.good(read(100)) == b"c" * 100
        assert found == begins[:4]
        assert drive.good(read(100)) == b"d" * 100
        assert found == begins, "nothing is read twice"

    def test_a_host_that_jumps_costs_nothing(self, drive, monkeypatch):
        drive.fill("abcd")
        found = reads_of_the_log(drive, monkeypatch)
        for block in (2, 0, 3, 1):
            drive.good(locate(block))
            drive.good(read(100))
        assert len(found) == 4

    def test_fixed_blocks_go_on_the_same_way(self, drive, monkeypatch):
        drive.fill("abcdef")
        drive.set_block_length(100)
        found = reads_of_the_log(drive, monkeypatch)
        pairs = [drive.good(read(2, fixed=True)) for _ in range(3)]
        assert b"".join(pairs) == b"".join(each.encode() * 100 for each in "abcdef")
        assert len(found) == 6

    def test_another_block_than_the_one_that_is_ready(self, drive):
        drive.fill("abcd")
        drive.good(read(100))
        drive.good(read(100))
        drive.good(locate(0))
        assert drive.good(read(100)) == b"a" * 100
        drive.good(locate(3))
        assert drive.good(read(100)) == b"d" * 100


class TestWhatChangesMeanwhile:
    def test_a_block_that_was_overwritten(self, drive):
        drive.fill("abcd")
        drive.good(read(100))
        drive.good(read(100))  # and c is ready
        drive.good(locate(2))
        drive.good(write(100), b"x" * 100)
        drive.good(locate(2))
        assert drive.good(read(100)) == b"x" * 100

    def test_the_end_of_data_moved_before_it(self, drive):
        drive.fill("abcd")
        drive.good(read(100))
        drive.good(read(100))
        drive.good(locate(2))
        drive.good(filemarks(1))
        drive.good(locate(2))
        assert drive.sense(read(100)) == sense(0, 0x0001, 100, filemark=True)

    def test_another_cartridge(self, drive, tmp_path):
        drive.fill("abcd")
        drive.good(read(100))
        late = drive.unit.execute(Command(drive.nexus, read(100))).after
        drive.good(UNLOAD)
        late()  # the answer went out slowly
        assert drive.sense(TEST_UNIT_READY).asc == 0x3A00

    def test_whoever_uses_the_drive_goes_first(self, drive, monkeypatch):
        drive.fill("abcd")
        drive.good(read(100))
        late = drive.unit.execute(Command(drive.nexus, read(100))).after
        found = reads_of_the_log(drive, monkeypatch)
        with drive.unit.lock:
            late()
        assert found == []
        assert drive.good(read(100)) == b"c" * 100

    def test_damage_is_found_by_the_read_that_meets_it(self, drive, tmp_path):
        drive.fill("abcd")
        with (tmp_path / "tape" / LOG).open("r+b") as log:
            log.seek(HEADER + 2 * (100 + OVERHEAD) + HEADER + 50)
            log.write(b"!")
        drive.good(read(100))
        assert drive.good(read(100)) == b"b" * 100
        assert drive.unit.hard_read_errors == 0
        assert drive.sense(read(100)) == sense(3, 0x1100, 100)
        assert drive.unit.hard_read_errors == 1
        assert drive.good(read(100)) == b"d" * 100

    def test_the_end_of_data_and_a_mark(self, drive):
        drive.fill("ab|")
        drive.good(read(100))
        drive.good(read(100))
        assert drive.sense(read(100)) == sense(0, 0x0001, 100, filemark=True)
        assert drive.sense(read(100)) == sense(8, 0x0005, 100)
        drive.good(REWIND)
        assert drive.good(read(100)) == b"a" * 100


class Afterwards(PatientUnit):
    """Its answer is out when it goes on, or the peer could not let it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.went_on: list[int] = []

    def _go_on(self, name: int) -> None:
        assert self.gate(name).wait(10), "the answer is still here"
        self.went_on.append(name)


def _answer(unit: Afterwards, command: Command) -> Reply:
    return Reply(status=Status.GOOD, after=partial(unit._go_on, command.cdb[1]))


Afterwards.TABLE = {
    **PatientUnit.TABLE,
    **table_of(Row("VENDOR C0h", bytes((SHORT, 0xFF)) + bytes(14), _answer)),
}


def test_a_connection_answers_before_the_unit_goes_on() -> None:
    unit = Afterwards("disk")
    with serving([unit]) as server, Client(server) as host:
        host.attentions()
        assert host.answer(host.start(SHORT, 1)).status == 0
        assert unit.went_on == []
        unit.let(1)
        assert until(lambda: unit.went_on == [1])
        unit.let(2)
        assert host.answer(host.start(SHORT, 2)).status == 0
        assert until(lambda: unit.went_on == [1, 2]), "once for each"
