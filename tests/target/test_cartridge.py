"""The cartridge: its files as the format has them, how it opens, how it fills up."""

import os
import resource
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import google_crc32c
import pytest

from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.backstore.cartridge_errors import (
    CartridgeError,
    DamagedRecord,
    NoRoom,
    WriteFailed,
)
from serverfree.target.backstore.cartridge_log import RecordType
from support.tape import MEMORY

LOG_START, OVERHEAD = 64, 72
crc32c = google_crc32c.value


@pytest.fixture
def directory():
    with tempfile.TemporaryDirectory(dir=MEMORY) as temporary:
        yield Path(temporary) / "cartridge"


def contents(partition):
    """All objects: payloads, None for filemarks."""
    return [
        None if partition.entry(block).type == RecordType.FILEMARK else bytes(partition.read(block))
        for block in range(partition.eod)
    ]


def walk(raw):
    """Read a log by the letter of its format, without the code that wrote it."""
    at, previous = LOG_START, 0
    while at < len(raw):
        head = raw[at : at + 64]
        magic, version, kind, flags, block, file, plain, stored, back, generation, _, place = (
            struct.unpack("<4sBBHQQIIQI8sQ", head[:60])
        )
        assert place == at
        assert (magic, version, flags) == (b"\xabSFR", 1, 0)
        assert struct.unpack("<I", head[60:])[0] == crc32c(head[:60])
        assert plain == stored
        assert back == previous
        payload = raw[at + 64 : at + 64 + stored]
        length, crc = struct.unpack("<II", raw[at + 64 + stored : at + 72 + stored])
        assert length == stored
        assert crc == crc32c(head + payload + struct.pack("<I", length))
        yield kind, block, file, payload, generation
        previous, at = at, at + 72 + stored


class TestFormat:
    def test_log_can_be_read_by_another_program(self, directory):
        cartridge = open_cartridge(directory, 1 << 20)
        (partition,) = cartridge.partitions
        partition.append([b"one", b"two"])
        partition.mark(1)
        partition.append([b"three"])
        partition.cut(3)
        partition.append([b"four"])
        cartridge.close()
        assert list(walk((directory / "part0.log").read_bytes())) == [
            (1, 0, 0, b"one", 1),
            (1, 1, 0, b"two", 1),
            (2, 2, 0, b"", 1),
            (1, 3, 1, b"four", 2),
        ]

    def test_index_has_32_bytes_for_each_object(self, directory):
        cartridge = open_cartridge(directory, 1 << 20)
        (partition,) = cartridge.partitions
        partition.append([b"one", b"two"])
        partition.mark(1)
        partition.append([b"three"])
        cartridge.close()
        raw = (directory / "part0.idx").read_bytes()
        assert len(raw) == 4 * 32
        offset, file, length, generation, kind = struct.unpack("<QQIIB", raw[96:121])
        assert (offset, file, length, generation, kind) == (64 + 3 * 72 + 6, 1, 5, 1, 1)

    def test_superblocks_take_turns(self, directory):
        cartridge = open_cartridge(directory, 1 << 20)
        (partition,) = cartridge.partitions
        names = [directory / "state.A", directory / "state.B"]
        for _ in range(4):
            before = [name.read_bytes() for name in names]
            partition.mark(1)
            cartridge.sync()
            after = [name.read_bytes() for name in names]
            assert sum(x != y for x, y in zip(before, after, strict=True)) == 1
            assert max(before, key=sequence) in after, "the newest stays"
        cartridge.close()

    def test_copy_of_the_log_in_a_block_is_never_taken_for_records(self, directory):
        """Not even where the header of that block is gone and the copy holds later blocks."""
        cartridge = open_cartridge(directory, 1 << 20)
        (partition,) = cartridge.partitions
        partition.append([b"%d" % number * 20 for number in range(6)])
        own = (directory / "part0.log").read_bytes()
        partition.cut(2)
        partition.append([own, b"three", b"four"])
        expected = contents(partition)
        cartridge.close()
        (directory / "part0.idx").unlink()
        with (directory / "part0.log").open("r+b") as log:  # break the header of block 2
            log.seek(LOG_START + 2 * (20 + OVERHEAD) + 10)
            log.write(b"?")
        cartridge = open_cartridge(directory)
        (partition,) = cartridge.partitions
        assert partition.eod == 5
        for block in (0, 1, 3, 4):
            assert bytes(partition.read(block)) == expected[block]
        with pytest.raises(DamagedRecord):
            partition.read(2)
        cartridge.close()


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def sequence(raw):
    return struct.unpack_from("<Q", raw, 16)[0]


class TestOpening:
    def test_nothing_there(self, directory):
        with pytest.raises(CartridgeError, match="no cartridge there"):
            open_cartridge(directory)
        assert not directory.exists()

    def test_made_once_and_found_again(self, directory):
        first = open_cartridge(directory, 1 << 20)
        identity = first.identity
        first.partitions[0].append([b"x"])
        first.close()
        for capacity in (None, 1 << 20):
            again = open_cartridge(directory, capacity)
            assert (again.identity, again.capacity) == (identity, 1 << 20)
            assert contents(again.partitions[0]) == [b"x"]
            again.close()

    def test_another_capacity_than_asked_for(self, directory):
        open_cartridge(directory, 1 << 20).close()
        with pytest.raises(CartridgeError, match="holds 1048576 bytes, not 2097152"):
            open_cartridge(directory, 2 << 20)

    def test_in_use(self, directory):
        cartridge = open_cartridge(directory, 1 << 20)
        with pytest.raises(CartridgeError, match="in use"):
            open_cartridge(directory)
        code = "import sys; from serverfree.target.backstore.cartridge import open_cartridge as o; "
        command = [sys.executable, "-c", code + "o(sys.argv[1])", str(directory)]
        other = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "in use by another process" in other.stderr
        cartridge.close()
        open_cartridge(directory).close()

    def test_capacity_that_is_none(self, directory):
        with pytest.raises(CartridgeError, match="capacity of 0"):
            open_cartridge(directory, 0)

    def test_one_superblock_lost(self, directory):
        for name in ("state.A", "state.B"):
            cartridge = open_cartridge(directory, 1 << 20)
            cartridge.partitions[0].append([name.encode()])
            cartridge.close()
            (directory / name).unlink()
        cartridge = open_cartridge(directory)
        assert contents(cartridge.partitions[0]) == [b"state.A", b"state.B"]
        cartridge.close()

    def test_both_superblocks_damaged(self, directory):
        open_cartridge(directory, 1 << 20).close()
        for name in ("state.A", "state.B"):
            (directory / name).write_bytes(bytes(4096))
        with pytest.raises(CartridgeError, match="both superblocks are damaged"):
            open_cartridge(directory)

    def test_records_without_any_superblock_are_not_overwritten(self, directory):
        cartridge = open_cartridge(directory, 1 << 20)
        cartridge.partitions[0].append([b"precious"])
        cartridge.close()
        for name in ("state.A", "state.B"):
            (directory / name).unlink()
        with pytest.raises(CartridgeError, match="holds records"):
            open_cartridge(directory, 1 << 20)

    def test_creation_that_a_crash_cut_short_is_done_again(self, directory):
        open_cartridge(directory, 1 << 20).close()
        for name in ("state.A", "state.B"):
            (directory / name).unlink()
        cartridge = open_cartridge(directory, 1 << 19)
        assert cartridge.capacity == 1 << 19
        cartridge.close()

    def test_log_of_another_cartridge(self, tmp_path):
        for name in ("one", "two"):
            open_cartridge(tmp_path / name, 1 << 20).close()
        (tmp_path / "one/part0.log").replace(tmp_path / "two/part0.log")
        with pytest.raises(CartridgeError, match="belongs to another cartridge"):
            open_cartridge(tmp_path / "two")
        with pytest.raises(CartridgeError, match="No such file"):
            open_cartridge(tmp_path / "one")

    def test_failed_opening_leaves_nothing_open(self, directory):
        open_cartridge(directory, 1 << 20).close()
        (directory / "part0.log").unlink()
        before = open_files()
        for _ in range(3):
            with pytest.raises(CartridgeError):
                open_cartridge(directory)
        assert open_files() == before

    def test_write_protection_stays(self, directory):
        cartridge = open_cartridge(directory, 1 << 20)
        cartridge.partitions[0].append([b"x"])
        cartridge.protect(True)
        cartridge.close()
        cartridge = open_cartridge(directory)
        assert cartridge.write_protected
        cartridge.protect(False)
        cartridge.close()
        assert not open_cartridge(directory).write_protected


class TestIndex:
    @pytest.fixture
    def filled(self, directory):
        """3000 objects, a filemark after every seventh block; more than one page of index."""
        cartridge = open_cartridge(directory, 1 << 24)
        (partition,) = cartridge.partitions
        for number in range(3000):
            if number % 8 == 7:
                partition.mark(1)
            else:
                partition.append([b"%d" % number * (number % 5)])
        expected = contents(partition)
        cartridge.close()
        return expected

    @pytest.mark.parametrize(
        "harm",
        [
            lambda raw: None,
            lambda raw: b"",
            lambda raw: raw[:-32],
            lambda raw: raw[:-5],
            lambda raw: raw[32:] + raw[:32],
            lambda raw: raw + raw[:320],
            lambda raw: bytes(len(raw)),
            lambda raw: raw[:1000] + b"?" + raw[1001:],
        ],
        ids=["gone", "empty", "short", "torn", "shifted", "long", "zero", "flipped"],
    )
    def test_harmed_index_changes_nothing(self, directory, filled, harm):
        index = directory / "part0.idx"
        raw = harm(index.read_bytes())
        if raw is None:
            index.unlink()
        else:
            index.write_bytes(raw)
        cartridge = open_cartridge(directory)
        (partition,) = cartridge.partitions
        assert contents(partition) == filled
        assert partition.start_of_file(100) == 800
        partition.append([b"more"])
        cartridge.close()
        assert len(index.read_bytes()) == 3001 * 32

    def test_sound_entries_of_another_time_are_found_out(self, directory, filled):
        index = directory / "part0.idx"
        stale = index.read_bytes()
        cartridge = open_cartridge(directory)
        (partition,) = cartridge.partitions
        partition.cut(1500)
        partition.append([b"new" * (number % 3) for number in range(500)])
        expected = contents(partition)
        cartridge.close()
        fresh = index.read_bytes()
        index.write_bytes(fresh[: 1600 * 32] + stale[1600 * 32 : 1900 * 32] + fresh[1900 * 32 :])
        cartridge = open_cartridge(directory)
        assert contents(cartridge.partitions[0]) == expected
        cartridge.close()

    def test_entry_that_leads_to_another_block_is_found_out(self, directory):
        cartridge = open_cartridge(directory, 1 << 20)
        (partition,) = cartridge.partitions
        partition.append([b"%d" % number * 10 for number in range(6)])
        cartridge.sync()
        stale = (directory / "part0.idx").read_bytes()
        partition.cut(0)
        # Block 1 now lies where block 2 was, and is as long.
        partition.append([b"x" * (2 * 10 + OVERHEAD)] + [b"abcde"[at:][:1] * 10 for at in range(5)])
        expected = contents(partition)
        cartridge.close()
        fresh = (directory / "part0.idx").read_bytes()
        spliced = fresh[: 2 * 32] + stale[2 * 32 : 4 * 32] + fresh[4 * 32 :]
        (directory / "part0.idx").write_bytes(spliced)
        cartridge = open_cartridge(directory)
        assert contents(cartridge.partitions[0]) == expected
        cartridge.close()

    def test_files_are_found_by_bisection(self, directory, filled):
        cartridge = open_cartridge(directory)
        (partition,) = cartridge.partitions
        starts = [0] + [at + 1 for at, each in enumerate(filled) if each is None]
        assert [partition.start_of_file(file) for file in range(len(starts))] == starts
        assert partition.start_of_file(len(starts)) is None
        assert [partition.file_at(at) for at in range(0, 3001, 50)] == [
            filled[:at].count(None) for at in range(0, 3001, 50)
        ]
        cartridge.close()

    def test_memory_does_not_grow_with_the_number_of_blocks(self, directory, filled):
        cartridge = open_cartridge(directory)
        (partition,) = cartridge.partitions
        contents(partition)
        assert len(partition._index._window) <= 4096
        cartridge.close()


class TestRoom:
    def test_capacity_counts_headers_and_trailers(self, directory):
        cartridge = open_cartridge(directory, 10 * 172)
        (partition,) = cartridge.partitions
        with pytest.raises(NoRoom):
            partition.append([bytes(100)] * 11)
        assert (partition.eod, partition.used) == (10, 1720)
        assert (directory / "part0.log").stat().st_size == LOG_START + 1720
        cartridge.close()

    def test_write_that_failed_does_not_come_back(self, directory, monkeypatch):
        cartridge = open_cartridge(directory, 1 << 20)
        (partition,) = cartridge.partitions
        partition.append([b"kept"])

        def fail(fd, data, offset):
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", fail)  # the log takes it, the index does not
            with pytest.raises(WriteFailed):
                partition.append([b"refused"])
        assert contents(partition) == [b"kept"]
        cartridge.abandon()
        cartridge = open_cartridge(directory)
        assert contents(cartridge.partitions[0]) == [b"kept"]
        cartridge.close()

    @pytest.mark.parametrize("batch", [1, 10])
    def test_host_file_system_running_full(self, directory, batch):
        cartridge = open_cartridge(directory, 1 << 20)
        (partition,) = cartridge.partitions
        blocks = [os.urandom(5000) for _ in range(30)]

        def fill():
            for at in range(0, 30, batch):
                partition.append(blocks[at : at + batch])

        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (72_000, hard))
        try:
            with pytest.raises(NoRoom):
                fill()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert partition.eod == (72_000 - LOG_START) // (5000 + OVERHEAD)
        assert contents(partition) == blocks[: partition.eod]
        partition.append(blocks[partition.eod : partition.eod + 1])
        cartridge.close()
        cartridge = open_cartridge(directory)
        assert contents(cartridge.partitions[0]) == blocks[:15]
        cartridge.close()

    def test_room_is_set_aside_ahead_and_given_back_when_the_cartridge_is_closed(self, directory):
        log = directory / "part0.log"
        cartridge = open_cartridge(directory, 4 << 20)
        (partition,) = cartridge.partitions
        partition.append([bytes(1000)])
        # Within the capacity, and the size of the file tells where the records end, as ever.
        assert log.stat().st_size == LOG_START + 1000 + OVERHEAD
        assert 1 << 20 < log.stat().st_blocks * 512 <= (4 << 20) + 8192
        cartridge.abandon()
        cartridge = open_cartridge(directory)  # after a crash too
        assert contents(cartridge.partitions[0]) == [bytes(1000)]
        cartridge.close()
        assert log.stat().st_blocks * 512 < 1 << 16
        assert log.stat().st_size == LOG_START + 1000 + OVERHEAD

    def test_blocks_in_memory_of_any_kind(self, directory):
        cartridge = open_cartridge(directory, 1 << 20)
        (partition,) = cartridge.partitions
        memory = bytearray(b"0123456789")
        blocks = [
            memory,
            memoryview(memory)[2:5],
            memoryview(memory).toreadonly()[4:],
            memoryview(b"bytes"),
            memoryview(memory)[:0],
        ]
        partition.append(blocks)
        blocks.clear()
        memory += b"a bytearray that something holds on to cannot grow"
        assert contents(partition) == [b"0123456789", b"234", b"456789", b"bytes", b""]
        cartridge.close()

    def test_very_many_small_blocks_in_one_call(self, directory):
        cartridge = open_cartridge(directory, 1 << 20)
        (partition,) = cartridge.partitions
        blocks = [b"%d" % number for number in range(5000)]
        partition.append(blocks)
        partition.mark(3000)
        assert contents(partition) == blocks + [None] * 3000
        cartridge.close()
