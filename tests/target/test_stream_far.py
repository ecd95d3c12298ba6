"""Objects whose numbers need more than 32 bits: they are found, and where they do not fit is said.

The cartridge claims 2 ** 32 - 2 objects that nobody wrote: its index is a file with a large hole.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.backstore.cartridge_index import ENTRY_LENGTH, Entry, pack_entry
from serverfree.target.backstore.cartridge_log import LOG_START, OVERHEAD, RecordType
from serverfree.target.backstore.cartridge_state import NAMES, PartitionState, State
from support.tape import (
    LOAD,
    UNLOAD,
    Drive,
    locate,
    locate16,
    make_drive,
    read,
    sense,
    space,
    write,
)

FIRST = (1 << 32) - 2
CONTENT = [b"two before", b"one before", b"the first with 33 bits", b"the second"]


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    folder = tmp_path / "tape"
    open_cartridge(folder, 1 << 20).close()
    state = State.unpack((folder / NAMES[0]).read_bytes())
    assert state is not None
    end = LOG_START + OVERHEAD
    far = replace(state, partitions=(PartitionState(FIRST, end, 0, LOG_START),), sequence=99)
    (folder / NAMES[far.sequence % 2]).write_bytes(far.pack())
    last = pack_entry(FIRST - 1, Entry(LOG_START, 0, 0, 1, RecordType.DATA))
    with (folder / "part0.idx").open("r+b") as index:
        os.pwrite(index.fileno(), last, (FIRST - 1) * ENTRY_LENGTH)
    os.truncate(folder / "part0.log", end)
    drive = make_drive(folder)
    drive.good(space(3, 0))
    for data in CONTENT:
        drive.good(write(len(data)), data)
    yield drive
    drive.unit.close()


def position(drive: Drive) -> tuple[int, int]:
    """The number as the long and as the extended form of READ POSITION have it."""
    long = drive.good(bytes.fromhex("34 06 00 00 00 00 00 00 00 00"))
    extended = drive.good(bytes.fromhex("34 08 00 00 00 00 00 00 20 00"))
    return int.from_bytes(long[8:16], "big"), int.from_bytes(extended[8:16], "big")


def test_it_is_found_by_its_number(drive: Drive) -> None:
    for number, data in enumerate(CONTENT, FIRST):
        drive.good(locate16(number))
        assert position(drive) == (number, number)
        assert drive.good(read(100, sili=True)) == data
    assert drive.sense(read(1)) == sense(8, 0x0005, 1)


def test_the_short_form_says_that_it_cannot(drive: Drive) -> None:
    """PERR, and no number: a wrapped one would be another block's."""
    drive.good(locate16(1 << 32))
    short = drive.good(bytes.fromhex("34 00 00 00 00 00 00 00 00 00"))
    assert (short[0], short[4:12]) == (0x02, bytes(8))
    drive.good(locate(0xFFFFFFFF))
    assert drive.block == 0xFFFFFFFF
    assert drive.good(read(100, sili=True)) == CONTENT[1]


def test_it_is_there_after_a_load(drive: Drive) -> None:
    drive.good(UNLOAD)
    drive.good(LOAD)
    drive.good(locate16(FIRST + 3))
    assert drive.good(read(100, sili=True)) == CONTENT[3]
    assert drive.sense(locate16(1 << 40)) == sense(8, 0x0005)
    assert position(drive) == (FIRST + 4, FIRST + 4)


def test_it_is_overwritten_there(drive: Drive) -> None:
    drive.good(locate16(1 << 32))
    drive.good(write(3), b"new")
    assert position(drive) == ((1 << 32) + 1, (1 << 32) + 1)
    drive.good(locate16(1 << 32))
    assert drive.good(read(3)) == b"new"
    assert drive.sense(read(3)) == sense(8, 0x0005, 3)
