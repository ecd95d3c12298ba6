"""What a crash leaves on a cartridge: all that was promised, then a prefix, never a mixture."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.backstore.cartridge_coding import Key, Place, compressed, decoded
from serverfree.target.backstore.cartridge_log import Coding, RecordType, StoredBlock
from support.power import FailingDisk, PowerCut
from support.tape import MEMORY

OVERHEAD = 72


KEY = Key(bytes(range(32)))


def place(block):
    return Place(b"any cartridge 16", 0, block)


def contents(partition):
    """All objects: payloads, None for filemarks. Raises if any of them is damaged."""
    return [
        None if partition.entry(block).type == RecordType.FILEMARK else content(partition, block)
        for block in range(partition.eod)
    ]


def content(partition, block):
    stored = partition.read_entry(block, partition.entry(block))
    if stored.coding & Coding.ENCRYPTED:
        stored = KEY.opened(stored, place(block))
    return bytes(decoded(stored))


def coded(block, data, how):
    """A block as the drive stores it: as it is, compressed, encrypted or both."""
    stored = compressed(data) if "c" in how else StoredBlock(data, len(data))
    return KEY.sealed(stored, place(block)) if "e" in how else stored


def opened_contents(directory):
    """Open, read everything, append something and read it back, close."""
    cartridge = open_cartridge(directory)
    (partition,) = cartridge.partitions
    found = contents(partition)
    partition.append([b"goes on"])
    assert contents(partition) == [*found, b"goes on"]
    cartridge.close()
    return found


@pytest.fixture
def directory():
    with tempfile.TemporaryDirectory(dir=MEMORY) as temporary:
        yield Path(temporary) / "cartridge"


class TestTornTail:
    """A log whose end is missing, or wrong, from any byte on."""

    SYNCED = [b"first", None, b"second" * 20]
    TAIL = [b"third" * 9, None, b"", b"fourth", None]

    @pytest.fixture
    def crashed(self, directory):
        """A cartridge after kill -9: `SYNCED` was promised, `TAIL` was not."""
        cartridge = open_cartridge(directory, 1 << 20)
        (partition,) = cartridge.partitions
        for objects in (self.SYNCED, self.TAIL):
            for each in objects:
                if each is None:
                    partition.mark(1)
                else:
                    partition.append([each])
            if objects is self.SYNCED:
                cartridge.sync()
        cartridge.abandon()
        return directory

    @property
    def ends(self):
        """Where each object of the tail ends, from the end of what was promised on."""
        at, ends = 0, []
        for each in self.TAIL:
            at += len(each or b"") + OVERHEAD
            ends.append(at)
        return ends

    def copies(self, crashed):
        """A fresh copy to harm for each byte of the tail: its log, where the tail starts, where."""
        raw = (crashed / "part0.log").read_bytes()
        start = len(raw) - self.ends[-1]
        for cut in range(self.ends[-1] + 1):
            copy = crashed.with_name(f"copy{cut}")
            shutil.copytree(crashed, copy)
            yield copy, bytearray(raw), start, cut
            shutil.rmtree(copy)

    def test_kill_loses_nothing_that_was_handed_over(self, crashed):
        assert opened_contents(crashed) == self.SYNCED + self.TAIL

    def test_cut_short_at_any_byte(self, crashed):
        for copy, raw, start, cut in self.copies(crashed):
            (copy / "part0.log").write_bytes(raw[: start + cut])
            whole = sum(end <= cut for end in self.ends)
            assert opened_contents(copy) == self.SYNCED + self.TAIL[:whole]

    def test_flipped_at_any_byte(self, crashed):
        for copy, raw, start, cut in self.copies(crashed):
            if cut < self.ends[-1]:
                raw[start + cut] ^= 0x10
            (copy / "part0.log").write_bytes(raw)
            whole = sum(end <= cut for end in self.ends)
            assert opened_contents(copy) == self.SYNCED + self.TAIL[:whole]

    @pytest.mark.parametrize("length", [1, 40, 72, 1000])
    def test_zeros_behind_the_end(self, crashed, length):
        with (crashed / "part0.log").open("ab") as log:
            log.write(bytes(length))
        assert opened_contents(crashed) == self.SYNCED + self.TAIL

    def test_whole_record_behind_a_torn_one_never_comes_back(self, crashed):
        """... not even where the new record has the length of the torn one."""
        log = crashed / "part0.log"
        raw = bytearray(log.read_bytes())
        start = len(raw) - self.ends[-1]
        stale = bytes(raw[start + self.ends[0] :])
        raw[start + 70] ^= 1  # within the first record of the tail
        log.write_bytes(raw)
        cartridge = open_cartridge(crashed)
        (partition,) = cartridge.partitions
        assert contents(partition) == self.SYNCED
        partition.append([b"fresh" * 9])
        cartridge.abandon()
        with log.open("ab") as file:  # a truncation that the disk forgot
            file.write(stale)
        assert opened_contents(crashed) == [*self.SYNCED, b"fresh" * 9]


class TestPowerFailure:
    """Sectors written since the last sync are kept or lost at random; promises hold anyway."""

    @settings(max_examples=300, deadline=None)
    @given(st.integers(0, 1 << 32))
    def test_promises_hold_and_nothing_is_mixed(self, seed):
        chance = Random(seed)
        with tempfile.TemporaryDirectory(dir=MEMORY) as temporary:
            directory = Path(temporary) / "0"
            open_cartridge(directory, 1 << 20).close()
            # Each possibility is a list of objects, of which at least so many must be there.
            possible = [([], 0)]
            for step in range(3):
                disk = FailingDisk(directory, chance.randrange(40))
                cartridge = None
                with disk.installed():
                    try:
                        cartridge = open_cartridge(directory)
                        found = contents(cartridge.partitions[0])
                        assert any(
                            least <= len(found) and found == objects[: len(found)]
                            for objects, least in possible
                        ), f"{found} is none of {possible}"
                        possible = [(found, len(found))]
                        for _ in self.run(cartridge, chance, possible):
                            pass
                    except PowerCut:
                        pass
                    finally:
                        if cartridge:
                            cartridge.abandon()
                directory = Path(temporary) / str(step + 1)
                disk.leave(directory, chance)
            found = opened_contents(directory)
            assert any(
                least <= len(found) and found == objects[: len(found)]
                for objects, least in possible
            ), f"{found} is none of {possible}"

    def run(self, cartridge, chance, possible):
        """Work at random, keeping account of what may be found after a crash right now."""
        (partition,) = cartridge.partitions
        now, promised = possible[0]
        while True:
            match chance.choice(["append", "append", "append", "mark", "sync", "cut"]):
                case "append":
                    blocks = [
                        chance.randbytes(1) * chance.choice([3, 100])
                        + chance.randbytes(chance.choice([3, 100, 100, 600, 2000]))
                        for _ in range(chance.randint(1, 3))
                    ]
                    now = now + blocks
                    possible.append((now, promised))
                    partition.append(
                        [
                            coded(
                                partition.eod + number, block, chance.choice(["", "c", "e", "ce"])
                            )
                            for number, block in enumerate(blocks)
                        ]
                    )
                case "mark":
                    now = [*now, None]
                    possible.append((now, promised))
                    partition.mark(1)
                case "sync":
                    cartridge.sync()
                    promised = len(now)
                    possible[:] = [(now, promised)]
                case "cut":
                    promised = chance.randint(0, len(now))
                    if promised == len(now):
                        continue
                    now = now[:promised]
                    possible.append((now, promised))
                    partition.cut(promised)
                    possible[:] = [(now, promised)]
            yield


WRITER = """
import hashlib, sys
from serverfree.target.backstore.cartridge import open_cartridge

def block(run, number):
    length = 1 + int.from_bytes(hashlib.sha256(b"%d %d" % (run, number)).digest()[:2], "big")
    return hashlib.shake_128(b"%d %d" % (run, number)).digest(length)

run = int(sys.argv[2])
cartridge = open_cartridge(sys.argv[1])
partition = cartridge.partitions[0]
partition.cut(0)
number = 0
while True:
    for _ in range(20):
        partition.append([block(run, number + each) for each in range(3)])
        number += 3
    partition.mark(1)
    number += 1
    cartridge.sync()
    print(number, flush=True)
"""


def block(run, number):
    """The block that the writer writes under a number."""
    length = 1 + int.from_bytes(hashlib.sha256(b"%d %d" % (run, number)).digest()[:2], "big")
    return hashlib.shake_128(b"%d %d" % (run, number)).digest(length)


def test_kill_of_a_writing_process(tmp_path):
    """kill -9 at random moments while the tape is overwritten again and again."""
    directory = tmp_path / "cartridge"
    open_cartridge(directory, 1 << 30).close()
    for run in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, directory, str(run)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(random.uniform(0, 0.3))
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait()
        writer.stdout.close()
        promised = int(rest[-1]) if rest else 61
        cartridge = open_cartridge(directory)
        (partition,) = cartridge.partitions
        assert partition.eod >= promised
        found = contents(partition)
        cartridge.abandon()
        assert found == [
            None if number % 61 == 60 else block(run, number) for number in range(len(found))
        ]
