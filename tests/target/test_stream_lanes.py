"""Which commands run on the connection, and which wait for a worker."""

import pytest

from serverfree.target.units.command import Lane
from support.tape import (
    END_OF_DATA,
    LOAD,
    REWIND,
    UNLOAD,
    filemarks,
    locate,
    make_drive,
    read,
    space,
    write,
)


@pytest.fixture
def drive(tmp_path):
    drive = make_drive(tmp_path / "tape")
    yield drive
    drive.unit.close()


class TestLanes:
    """What may hold up a connection is not run on it."""

    def test_reads_and_appends_are_inline_and_motion_is_not(self, drive):
        lane = drive.unit.lane
        drive.fill("ab|")
        assert lane(read(1)) is Lane.INLINE
        assert lane(write(1)) is Lane.QUEUED, "it would cut the tape"
        drive.good(space(END_OF_DATA, 0))
        assert lane(write(1)) is Lane.INLINE
        for cdb in (filemarks(1), space(0, 1), locate(0), REWIND, LOAD, UNLOAD):
            assert lane(cdb) is Lane.QUEUED
        with drive.unit.lock:
            assert lane(read(1)) is Lane.QUEUED
            assert lane(write(1)) is Lane.QUEUED
        drive.good(UNLOAD)
        assert lane(write(1)) is Lane.QUEUED

    def test_unbuffered_writes_wait_for_the_medium(self, drive):
        drive.good(bytes.fromhex("15 10 00 00 04 00"), bytes(4))
        assert drive.unit.lane(write(1)) is Lane.QUEUED
