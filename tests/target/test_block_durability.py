"""A disk whose host loses power at any point: what was promised to last is there afterwards."""

from pathlib import Path
from random import Random

import pytest

from serverfree.scsi.cdb.block import Read16, SynchronizeCache10, Write16, WriteSame16
from serverfree.scsi.cdb.block_atomic import CompareAndWrite, WriteAtomic16
from serverfree.target.backstore.file import open_file_store
from serverfree.target.backstore.state import StateFile
from serverfree.target.units.block import BlockUnit
from support.disk import Host
from support.power import FailingDisk, PowerCut

BLOCK, BLOCKS = 512, 64
ATOMIC = range(48, 64)  # written by WRITE ATOMIC only, always as a whole
WRITE_CACHE_OFF = bytes.fromhex("00000000 0812 00" + "00" * 17)


def open_disk(folder: Path) -> Host:
    store = open_file_store(folder / "d", None if (folder / "d").exists() else BLOCK * BLOCKS)
    state = StateFile(folder / "d.state")
    return Host(BlockUnit("d", store, state=state, journal=folder / "d.journal"))


class Expectation:
    """For each block what it may hold after a cut: what lasts, and what came after that."""

    def __init__(self) -> None:
        self.may_be = [{bytes(BLOCK)} for _ in range(BLOCKS)]
        self.now = [bytes(BLOCK)] * BLOCKS

    def begins(self, lba: int, data: bytes) -> None:
        """A write is under way: each of its blocks is old or new."""
        for number in range(len(data) // BLOCK):
            self.may_be[lba + number].add(data[number * BLOCK :][:BLOCK])

    def ends(self, lba: int, data: bytes) -> None:
        """It has ended with GOOD."""
        for number in range(len(data) // BLOCK):
            self.now[lba + number] = data[number * BLOCK :][:BLOCK]

    def lasts(self) -> None:
        """Everything that has ended is on the medium for ever."""
        self.may_be = [{block} for block in self.now]

    def holds(self, content: bytes) -> None:
        for number in range(BLOCKS):
            found = content[number * BLOCK :][:BLOCK]
            assert found in self.may_be[number], f"block {number}: {found[:8]!r}"
        atomic = content[ATOMIC.start * BLOCK :]
        assert atomic == atomic[:BLOCK] * len(ATOMIC), "a WRITE ATOMIC is torn"


class Writer:
    """Sends commands drawn at random, until the power goes."""

    def __init__(self, host: Host, random: Random, expected: Expectation) -> None:
        self.host, self.random, self.expected = host, random, expected
        self.number = 0

    def data(self, blocks: int) -> bytes:
        """Blocks that were never written before."""
        self.number += blocks
        return b"".join(
            n.to_bytes(4, "big") * (BLOCK // 4) for n in range(self.number - blocks, self.number)
        )

    def run(self) -> None:
        actions = (self.write, self.write, self.forced, self.synchronize, self.atomic)
        actions += (self.compare_and_write, self.write_same)
        while True:
            self.random.choice(actions)()

    def _lasting(self, cdb: Write16 | CompareAndWrite, data: bytes, written: bytes) -> None:
        """A write with FUA: its own blocks last, whatever becomes of others."""
        self.expected.begins(cdb.lba, written)
        self.host.good(cdb, data)
        self.expected.ends(cdb.lba, written)
        for number in range(len(written) // BLOCK):
            self.expected.may_be[cdb.lba + number] = {written[number * BLOCK :][:BLOCK]}

    def _extent(self, most: int) -> tuple[int, int]:
        blocks = self.random.randint(1, most)
        return self.random.randint(0, ATOMIC.start - blocks), blocks

    def write(self) -> None:
        lba, blocks = self._extent(8)
        data = self.data(blocks)
        self.expected.begins(lba, data)
        self.host.good(Write16(lba=lba, blocks=blocks), data)
        self.expected.ends(lba, data)

    def forced(self) -> None:
        lba, blocks = self._extent(8)
        data = self.data(blocks)
        self._lasting(Write16(lba=lba, blocks=blocks, fua=True), data, data)

    def compare_and_write(self) -> None:
        lba, _ = self._extent(1)
        new = self.data(1)
        cdb = CompareAndWrite(lba=lba, blocks=1, fua=True)
        self._lasting(cdb, self.expected.now[lba] + new, new)

    def write_same(self) -> None:
        lba, blocks = self._extent(8)
        block = self.data(1)
        self.expected.begins(lba, block * blocks)
        self.host.good(WriteSame16(lba=lba, blocks=blocks), block)
        self.expected.ends(lba, block * blocks)

    def synchronize(self) -> None:
        self.host.good(SynchronizeCache10())
        self.expected.lasts()

    def atomic(self) -> None:
        """Durable when it ends, with or without FUA: how else would it be whole afterwards."""
        data = self.data(1) * len(ATOMIC)
        self.expected.begins(ATOMIC.start, data)
        self.host.good(WriteAtomic16(lba=ATOMIC.start, blocks=len(ATOMIC)), data)
        self.expected.ends(ATOMIC.start, data)
        for number in ATOMIC:
            self.expected.may_be[number] = {data[:BLOCK]}


@pytest.mark.parametrize("cached", [True, False], ids=["write cache", "no write cache"])
def test_what_was_to_last_is_there_after_a_loss_of_power(tmp_path: Path, cached: bool) -> None:
    for seed in range(25):
        random = Random(seed)
        folder, left = tmp_path / f"{seed}", tmp_path / f"{seed}-left"
        folder.mkdir()
        host = open_disk(folder)
        if not cached:
            host.good(bytes.fromhex("15 10 00 00 18 00"), WRITE_CACHE_OFF)
        disk = FailingDisk(folder, random.randint(0, 60))
        expected = Expectation()
        with disk.installed(), pytest.raises(PowerCut):
            Writer(host, random, expected).run()
        if not cached:
            # Every write that has ended lasts; of the one under way each block is old or new.
            for number, block in enumerate(expected.now):
                newest = max(expected.may_be[number])
                expected.may_be[number] = {block, newest}
        disk.leave(left, random)
        again = open_disk(left)
        expected.holds(again.good(Read16(blocks=BLOCKS)))
        again.unit.close()
        host.unit.close()
