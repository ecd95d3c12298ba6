"""Commands that happen wholly or not at all: beside others, and across kill -9."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Barrier, Thread

import pytest

from serverfree.scsi.cdb.block import Read16
from serverfree.scsi.cdb.block_atomic import CompareAndWrite, OrWrite16, OrWrite32, WriteAtomic16
from serverfree.scsi.sense import Asc, FieldPointer, SenseKey
from serverfree.target.backstore.base import StoreError
from serverfree.target.backstore.file import open_file_store
from serverfree.target.backstore.journal import Journal
from serverfree.target.units.block import BlockUnit
from serverfree.target.units.exclusive import Exclusion
from support.disk import Host, failure
from support.power import FailingDisk, PowerCut

SIZE, BLOCK = 1 << 20, 512
ATOMIC = 64 << 10


def open_disk(folder: Path) -> Host:
    """A disk with a journal and 32-byte commands."""
    store = open_file_store(folder / "d", SIZE)
    return Host(BlockUnit("d", store, long_cdbs=True, journal=folder / "d.journal"))


@pytest.fixture
def disk(tmp_path: Path) -> Host:
    return open_disk(tmp_path)


def test_compare_and_write(disk: Host) -> None:
    cdb = bytes.fromhex("89 00 00 00 00 00 00 00 00 05 00 00 00 02 00 00")
    old, new = bytes(2 * BLOCK), os.urandom(2 * BLOCK)
    assert disk.unit.data_out_length(cdb) == 4 * BLOCK
    disk.good(cdb, old + new)
    assert disk.good(Read16(lba=4, blocks=4)) == bytes(BLOCK) + new + bytes(BLOCK)
    wrong = bytearray(new)
    wrong[700] ^= 1
    sense = disk.sense(cdb, bytes(wrong) + old)
    assert (sense.key, sense.asc) == (
        SenseKey.MISCOMPARE,
        Asc.MISCOMPARE_DURING_VERIFY_OPERATION,
    )
    assert sense.information == 700  # where in the data-out (SBC-4 5.3)
    assert disk.good(Read16(lba=5, blocks=2)) == new


def test_compare_and_write_wants_all_of_its_data(disk: Host) -> None:
    sense = disk.sense(CompareAndWrite(blocks=2), bytes(3 * BLOCK))
    assert sense.pointer == FieldPointer(13, None, in_cdb=True)
    disk.good(CompareAndWrite(), b"")


def test_one_of_many_that_compare_and_write_wins(disk: Host) -> None:
    winners: list[int] = []
    start = Barrier(8)

    def race(number: int) -> None:
        start.wait()
        for step in range(50):
            old, new = step.to_bytes(BLOCK, "big"), (step + 1).to_bytes(BLOCK, "big")
            reply = disk(CompareAndWrite(lba=9, blocks=1), old + new)
            if reply.sense is None:
                winners.append(step)

    threads = [Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(winners) == list(range(len(winners)))
    assert disk.good(Read16(lba=9, blocks=1)) == len(winners).to_bytes(BLOCK, "big")


def test_orwrite_sets_bits(disk: Host) -> None:
    disk.good(OrWrite16(lba=1, blocks=2), b"\xa5" * BLOCK + b"\x01" * BLOCK)
    disk.good(OrWrite16(lba=1, blocks=2), b"\x5a" * BLOCK + b"\x80" * BLOCK)
    assert disk.good(Read16(lba=1, blocks=2)) == b"\xff" * BLOCK + b"\x81" * BLOCK


# SBC-4 table 29: by policy, what happens with the previous generation and with any other.
@pytest.mark.parametrize(
    ("policy", "previous", "other"),
    [(0, "PA", "CCG"), (2, "DN", "CCG"), (3, "PA", "PA"), (5, "DN", "DN"), (7, "CCG", "CCG")],
)
def test_orwrite_generations(disk: Host, policy: int, previous: str, other: str) -> None:
    def change(expected: int, new: int, with_policy: int, data: bytes) -> bytes:
        # 7Fh, BMOP 1, PREVIOUS GENERATION PROCESSING, 18h, 000Eh, flags, LBA, codes, length
        return (
            bytes((0x7F, 0, 1, with_policy, 0, 0, 0, 0x18, 0, 0x0E, 0, 0))
            + bytes(8)
            + expected.to_bytes(4, "big")
            + new.to_bytes(4, "big")
            + bytes((0, 0, 0, 1))
        )

    disk.good(change(0, 11, 7, b""), bytes(BLOCK))
    disk.good(change(11, 22, policy, b""), bytes(BLOCK))
    sense = disk.sense(change(11, 33, policy, b""), bytes(BLOCK))
    assert sense.asc is Asc.ORWRITE_GENERATION_DOES_NOT_MATCH
    disk.good(OrWrite32(expected_generation=22, blocks=1), b"\x01" * BLOCK)
    for bit, generation, outcome in ((2, 11, previous), (4, 5, other)):
        reply = disk(OrWrite32(expected_generation=generation, blocks=1), bytes((bit,)) * BLOCK)
        assert (reply.sense is None) == (outcome != "CCG")
        found = disk.good(Read16(blocks=1))[0]
        assert bool(found & bit) == (outcome == "PA"), (policy, outcome)
    disk.good(change(22, 0, 7, b""), b"\x01" * BLOCK)
    assert disk.good(Read16(blocks=1)) == b"\x01" * BLOCK


def test_write_atomic(disk: Host) -> None:
    cdb = bytes.fromhex("9c 00 00 00 00 00 00 00 00 07 00 00 00 80 00 00")
    data = os.urandom(0x80 * BLOCK)
    disk.good(cdb, data)
    assert disk.good(Read16(lba=7, blocks=0x80)) == data
    boundary = disk.sense(WriteAtomic16(boundary=8, blocks=16), bytes(16 * BLOCK))
    assert boundary.pointer == FieldPointer(10, None, in_cdb=True)
    longer = disk.sense(WriteAtomic16(blocks=0x0801), b"")
    assert longer.asc is Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE
    part = disk.sense(WriteAtomic16(blocks=2), bytes(BLOCK))
    assert part.pointer == FieldPointer(12, None, in_cdb=True)


def test_readers_see_all_of_an_atomic_write_or_nothing(disk: Host) -> None:
    blocks = ATOMIC // BLOCK
    disk.good(WriteAtomic16(blocks=blocks), bytes(ATOMIC))
    torn: list[int] = []
    stop = False

    def read() -> None:
        while not stop:
            data = disk.good(Read16(blocks=blocks))
            if data.count(data[0]) != len(data):
                torn.append(data[0])

    reader = Thread(target=read)
    reader.start()
    for number in range(60):
        disk.good(WriteAtomic16(blocks=blocks), bytes((number,)) * ATOMIC)
    stop = True
    reader.join()
    assert not torn


def test_changes_and_those_who_are_alone_keep_apart() -> None:
    exclusion, inside, clashes = Exclusion(), [], []

    def change(at: int, number: int) -> None:
        inside.append(at)
        time.sleep(0.0002)
        inside.remove(at)

    def changer(seed: int) -> None:
        pick = random.Random(seed)
        for number in range(60):
            exclusion.change(at := pick.randrange(4), 1, change, number)
            assert at >= 0

    def loner(seed: int) -> None:
        pick = random.Random(seed)
        for _ in range(30):
            at = pick.randrange(4)
            with exclusion.alone(at, 1):
                for _ in range(5):
                    if at in inside:
                        clashes.append(at)
                    time.sleep(0.0001)

    threads = [Thread(target=changer, args=(seed,)) for seed in range(3)]
    threads += [Thread(target=loner, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert not clashes


def test_a_journal_survives_loss_of_power_at_every_step(tmp_path: Path) -> None:
    old, new = b"o" * 8192, b"n" * 8192
    pick = random.Random(7)
    for operations in range(12):
        for attempt in range(4):
            folder = tmp_path / f"{operations}-{attempt}"
            folder.mkdir()
            store = open_file_store(folder / "d", 1 << 16)
            store.write(1024, old)
            store.flush()
            journal = Journal(folder / "d.journal", store)
            journal.write(0, bytes(512))  # so that it is there
            disk = FailingDisk(folder, operations)
            done = True
            with disk.installed():
                try:
                    journal.write(1024, new)
                except PowerCut:
                    done = False
            left = tmp_path / f"{operations}-{attempt}-left"
            disk.leave(left, pick)
            again = open_file_store(left / "d")
            Journal(left / "d.journal", again).close()
            found = again.pread(1024, 8192)
            assert found in ((new,) if done else (old, new)), (operations, attempt)
            again.close()
            store.close()


def test_a_write_that_failed_half_way_is_completed_by_the_next_process(tmp_path: Path) -> None:
    store = open_file_store(tmp_path / "d", 1 << 16)
    journal = Journal(tmp_path / "d.journal", store)
    whole = store.write

    def half(offset: int, data: bytes) -> None:
        whole(offset, bytes(data)[: len(data) // 2])
        raise failure(5)

    store.write = half  # type: ignore[method-assign]
    with pytest.raises(OSError, match="Input/output"):
        journal.write(0, b"x" * 4096)
    store.write = whole  # type: ignore[method-assign]
    Journal(tmp_path / "d.journal", store).close()
    assert store.pread(0, 4096) == b"x" * 4096
    assert not (tmp_path / "d.journal").exists()


def test_a_journal_of_a_longer_store_is_not_dropped_in_silence(tmp_path: Path) -> None:
    long = open_file_store(tmp_path / "long", 1 << 16)
    journal = Journal(tmp_path / "journal", long)
    long.flush = lambda: (_ for _ in ()).throw(failure(5))  # type: ignore[method-assign]
    with pytest.raises(OSError, match="Input/output"):
        journal.write(32768, b"x" * 4096)
    short = open_file_store(tmp_path / "short", 1 << 12)
    with pytest.raises(StoreError, match="lose that write"):
        Journal(tmp_path / "journal", short)


WRITER = """
import sys
from pathlib import Path
from serverfree.scsi.cdb.block import SynchronizeCache16, Write16
from serverfree.scsi.cdb.block_atomic import WriteAtomic16
from serverfree.target.backstore.file import open_file_store
from serverfree.target.units.block import BlockUnit
from serverfree.target.units.command import Command, Nexus

folder = Path(sys.argv[1])
unit = BlockUnit("d", open_file_store(folder / "d"), journal=folder / "d.journal")
nexus = Nexus("i", "t")
number = 0
while True:
    number = number % 250 + 1
    atomic = WriteAtomic16(lba=8, blocks=128).pack()
    assert unit.execute(Command(nexus, atomic, bytes((number,)) * 65536)).sense is None
    forced = Write16(lba=0, blocks=1, fua=True).pack()
    assert unit.execute(Command(nexus, forced, bytes((number,)) * 512)).sense is None
    plain = Write16(lba=1, blocks=3).pack()
    assert unit.execute(Command(nexus, plain, bytes((number,)) * 1536)).sense is None
    assert unit.execute(Command(nexus, SynchronizeCache16().pack())).sense is None
    print(number, flush=True)
"""


def test_kill_9_tears_no_atomic_write_and_loses_nothing_made_to_last(tmp_path: Path) -> None:
    open_disk(tmp_path).unit.close()
    pick = random.Random(3)
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(3)]
        time.sleep(pick.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        seen += process.stdout.read().splitlines()
        process.wait()
        last = int([line for line in seen if line.strip()][-1])
        disk = open_disk(tmp_path)
        atomic, others = disk.good(Read16(lba=8, blocks=128)), disk.good(Read16(blocks=4))
        assert atomic.count(atomic[0]) == len(atomic)
        assert atomic[0] in (last, last % 250 + 1)
        assert set(others) <= {last, last % 250 + 1}
        disk.unit.close()
