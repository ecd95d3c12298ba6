"""Adjacent extents are read in one command, and nobody can tell but by counting."""

import random

import pytest

from serverfree.scsi.copy_segments import BlockToBlock, BlockToStream
from support.copies import aborted_sense, copy, noise
from support.fake_devices import READ_16, FakeDisk, FakeTape, check_condition, sense_bytes

BLOCKS = 256


def disks(kind=FakeDisk, *, lazy=True):
    return kind(noise(BLOCKS * 512), lazy=lazy), FakeDisk(bytes(BLOCKS * 512), lazy=lazy)


def reads(disk):
    """(LBA, blocks) of every READ(16), from the bytes of the CDBs."""
    return [
        (int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big"))
        for cdb in disk.log
        if cdb[0] == READ_16
    ]


def test_extents_that_adjoin_on_the_source_are_read_in_one_command():
    source, destination = disks()
    # Scattered on the destination: adjacency there does not matter.
    places = random.Random(1).sample(range(32), 32)
    copy(
        [source, destination],
        [BlockToBlock(0, 1, 8, n * 8, place * 8) for n, place in enumerate(places)],
    )
    for n, place in enumerate(places):
        assert destination.data[place * 4096 :][:4096] == source.data[n * 4096 :][:4096]
    # The first segment is read alone, for its turn has come; the others wait for each other.
    assert len(reads(source)) <= 3
    assert sum(blocks for _, blocks in reads(source)) == BLOCKS


def test_a_gap_ends_a_command():
    source, destination = disks()
    extents = [0, 8, 16, 32, 40, 56]
    copy([source, destination], [BlockToBlock(0, 1, 8, lba, lba) for lba in extents])
    covered = [range(lba, lba + blocks) for lba, blocks in reads(source)]
    assert sorted(one for each in covered for one in each) == sorted(
        lba + n for lba in extents for n in range(8)
    )
    assert len(covered) < len(extents)


def test_extents_of_a_disk_go_to_tape_in_their_order():
    source, tape = FakeDisk(noise(BLOCKS * 512), lazy=True), FakeTape(lazy=True)
    segments = [BlockToStream(0, 1, 8192, 3, n * 3, n < 39) for n in range(40)]
    copy([source, tape], segments, pads=(False, True))
    data = b"".join(tape.blocks)
    assert data == bytes(source.data[: 120 * 512]).ljust(len(data), b"\0")
    assert len(reads(source)) < 8


class BadBlock(FakeDisk):
    """A disk that cannot read block 100."""

    def transfer(self, cdb, out, into):
        start, blocks = int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big")
        if cdb[0] == READ_16 and start <= 100 < start + blocks:
            return check_condition(sense_bytes(3, 0x1100, information=100))
        return super().transfer(cdb, out, into)


@pytest.mark.parametrize("lazy", [True, False])
def test_a_read_that_fails_fails_in_its_own_segment(lazy):
    source, destination = disks(BadBlock, lazy=lazy)
    segments = [BlockToBlock(0, 1, 8, n * 8, n * 8) for n in range(32)]
    sense = aborted_sense([source, destination], segments)
    assert (sense.code, sense.segment, sense.residual) == (0x0D01, 12, None)
    assert sense.source == b"\x02" + sense_bytes(3, 0x1100, information=100)
    assert destination.data[: 96 * 512] == source.data[: 96 * 512]
    assert not any(destination.data[96 * 512 :])


def test_what_one_segment_writes_the_next_one_reads():
    """A chain over one disk: every extent comes from where the one before has just gone."""
    disk = FakeDisk(noise(BLOCKS * 512), lazy=True)
    expected = bytearray(disk.data)
    segments = []
    for n in range(20):
        segments.append(BlockToBlock(0, 0, 8, n * 8, n * 8 + 8))
        expected[(n * 8 + 8) * 512 : (n * 8 + 16) * 512] = expected[n * 4096 : n * 4096 + 4096]
    copy([disk], segments)
    assert disk.data == expected
