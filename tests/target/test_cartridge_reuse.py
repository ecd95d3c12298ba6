"""Overwriting: the room of old records is used again, and none of them ever comes back."""

import os
import tempfile
from pathlib import Path

import pytest

from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.backstore.cartridge_check import check_cartridge, repair_cartridge
from serverfree.target.backstore.cartridge_errors import DamagedRecord
from serverfree.target.backstore.cartridge_log import RecordType
from support.tape import MEMORY, OVERHEAD

START, PAGE = 64, 4096
LOG, INDEX, STATES = "part0.log", "part0.idx", ("state.A", "state.B")
# Records that end with a page, so that the next one's header begins one.
FIRST, WHOLE = PAGE - START - OVERHEAD, PAGE - OVERHEAD


@pytest.fixture
def directory():
    with tempfile.TemporaryDirectory(dir=MEMORY) as temporary:
        yield Path(temporary) / "cartridge"


def contents(partition):
    """All objects: payloads, None for filemarks, "damaged" for what cannot be read."""
    found = []
    for block in range(partition.eod):
        try:
            mark = partition.entry(block).type == RecordType.FILEMARK
            found.append(None if mark else bytes(partition.read(block)))
        except DamagedRecord:
            found.append("damaged")
    return found


def written(directory, blocks):
    """An open cartridge with these blocks on stable storage."""
    cartridge = open_cartridge(directory, 64 << 20)
    cartridge.partitions[0].append(blocks)
    cartridge.sync()
    return cartridge


def size(directory):
    return (directory / LOG).stat().st_size


def equal(count, letter):
    """Blocks whose records end with a page each, from the beginning of the log on."""
    return [letter * FIRST] + [letter * WHOLE] * (count - 1)


def test_room_stays_while_the_cartridge_is_in_use_and_goes_when_it_is_closed(directory):
    cartridge = written(directory, [os.urandom(100_000) for _ in range(10)])
    (partition,) = cartridge.partitions
    full = size(directory)
    partition.cut(0)
    fresh = [os.urandom(30_000) for _ in range(5)]
    for block in fresh:
        partition.append([block])
    assert size(directory) == full
    assert contents(partition) == fresh
    cartridge.close()
    assert size(directory) == START + 5 * (30_000 + OVERHEAD)
    cartridge = open_cartridge(directory)
    assert contents(cartridge.partitions[0]) == fresh
    cartridge.close()


def test_growing_beyond_what_was_there(directory):
    cartridge = written(directory, [os.urandom(10_000) for _ in range(10)])
    (partition,) = cartridge.partitions
    kept = contents(partition)[:4]
    partition.cut(4)
    fresh = [os.urandom(7_001) for _ in range(30)]
    for block in fresh:
        partition.append([block])
    assert contents(partition) == kept + fresh
    assert size(directory) == START + 4 * (10_000 + OVERHEAD) + 30 * (7_001 + OVERHEAD)
    cartridge.abandon()
    cartridge = open_cartridge(directory)
    assert contents(cartridge.partitions[0]) == kept + fresh
    cartridge.close()


def test_erase_gives_the_room_back_at_once(directory):
    cartridge = written(directory, [os.urandom(10_000) for _ in range(10)])
    (partition,) = cartridge.partitions
    partition.cut(5)
    partition.append([b"new"])
    partition.erase(6)  # nothing of it is data any more
    assert size(directory) == START + 5 * (10_000 + OVERHEAD) + 3 + OVERHEAD
    partition.erase(2)
    assert size(directory) == START + 2 * (10_000 + OVERHEAD)
    assert partition.eod == 2
    cartridge.close()


def test_pages_are_written_whole_so_that_none_has_to_be_read(directory, monkeypatch):
    cartridge = written(directory, [os.urandom(100_000) for _ in range(4)])
    (partition,) = cartridge.partitions
    old_end = size(directory)
    ends = []
    write = os.pwritev

    def noted(fd, pieces, offset):
        ends.append(offset + sum(map(len, pieces)))
        return write(fd, pieces, offset)

    monkeypatch.setattr(os, "pwritev", noted)
    partition.cut(1)
    for _ in range(9):
        partition.append([os.urandom(30_000)])
    partition.mark(2000)  # more pieces than one call takes
    assert all(end % PAGE == 0 for end in ends if end < old_end)
    assert size(directory) == START + partition.used > old_end
    cartridge.close()


@pytest.mark.parametrize("after", ["abandon", "sync", "close"])
@pytest.mark.parametrize("fresh", range(6))
@pytest.mark.parametrize("kept", [0, 2])
def test_no_old_record_is_taken_for_a_new_one_after_a_crash(directory, kept, fresh, after):
    """... not where it lies at the very place where the next new one would."""
    old, new = equal(8, b"o"), equal(8, b"n")
    cartridge = written(directory, old)
    (partition,) = cartridge.partitions
    partition.cut(kept)
    partition.append(new[kept : kept + fresh])
    if after == "sync":
        cartridge.sync()
    (cartridge.close if after == "close" else cartridge.abandon)()
    right = old[:kept] + new[kept : kept + fresh]
    findings = [each for each in check_cartridge(directory) if each.lasting]
    assert findings == []
    for _ in range(2):
        cartridge = open_cartridge(directory)
        assert contents(cartridge.partitions[0]) == right
        assert size(directory) == START + cartridge.partitions[0].used
        cartridge.abandon()
        (directory / INDEX).unlink()  # once more, by the headers alone
    assert repair_cartridge(directory)[1] == []


@pytest.mark.parametrize("fresh", [1, 3])
def test_old_and_new_are_never_mixed_where_the_newer_superblock_is_lost(directory, fresh):
    """What was overwritten is damaged then, and what was not is as the older one says."""
    old, new = equal(8, b"o"), equal(8, b"n")
    cartridge = written(directory, old)
    before = [(directory / name).read_bytes() for name in STATES]
    (partition,) = cartridge.partitions
    partition.cut(2)
    partition.append(new[2 : 2 + fresh])
    cartridge.abandon()
    for name, was in zip(STATES, before, strict=True):
        if (directory / name).read_bytes() != was:
            (directory / name).write_bytes(bytes(PAGE))
    (lost,) = [str(each) for each in check_cartridge(directory) if each.lasting]
    blocks = "block 2" if fresh == 1 else f"blocks 2 to {1 + fresh}"
    assert lost.startswith(f"{LOG}: {blocks} lost: ")
    cartridge = open_cartridge(directory)
    assert contents(cartridge.partitions[0]) == old[:2] + ["damaged"] * fresh + old[2 + fresh :]
    cartridge.close()
