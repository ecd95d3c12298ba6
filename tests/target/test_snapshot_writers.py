"""Snapshots taken, read and deleted while several threads write: none ever shows another moment."""

import hashlib
import os
import random
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from threading import Event, Lock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.target.backstore.base import BlockStore, ReadError
from serverfree.target.backstore.file import open_file_store
from serverfree.target.backstore.snapshot import Snapshot
from serverfree.target.backstore.snapshot_origin import SnapshotOrigin

SIZE = 3 * 64 * 4096 + 512  # the last chunk is not whole
SECTOR = 512


@pytest.fixture(autouse=True)
def syncing_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried here is what threads see of each other."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)


class Slow:
    """A store in which every write is two, so that a reader who is not careful sees a half."""

    def __init__(self, store: BlockStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def write(self, offset: int, data: bytes) -> None:
        half = len(data) // 2
        self._store.write(offset, data[:half])
        self._store.write(offset + half, data[half:])


class Model:
    """What the disk holds by the writes that have ended, and threads that write.

    A thread has its own sectors, every `count`-th, so that the model knows what each one holds:
    chunks are everybody's. `still` keeps all writers out while the model is looked at.
    """

    def __init__(self, origin: SnapshotOrigin, count: int, seed: int) -> None:
        self.origin, self.count = origin, count
        self.content = bytearray(os.urandom(origin.size))
        origin.write(0, bytes(self.content))
        self.failures: list[BaseException] = []
        self.writes = 0
        self._stop = Event()
        self._locks = [Lock() for _ in range(count)]
        self._threads = [
            threading.Thread(target=self._run, args=(index, random.Random(seed + index)))
            for index in range(count)
        ]

    def __enter__(self) -> "Model":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _run(self, index: int, chance: random.Random) -> None:
        try:
            while not self._stop.is_set():
                with self._locks[index]:
                    self._change(index, chance)
                self.writes += 1
        except BaseException as error:
            self.failures.append(error)

    def _change(self, index: int, chance: random.Random) -> None:
        """One thread changes long ranges too: those it has all to itself, in the last third."""
        third = 64 * 4096
        if index == 0:
            offset = 2 * third + chance.randrange(third // SECTOR) * SECTOR
            length = min(chance.randrange(1, 200) * SECTOR, SIZE - offset)
        else:
            sector = chance.randrange(2 * third // SECTOR // self.count) * self.count + index - 1
            offset, length = sector * SECTOR, SECTOR
        kind = chance.choice(("write", "write", "write", "zero", "discard"))
        if kind == "write":
            data = chance.randbytes(8) * (length // 8)
            self.origin.write(offset, data)
        else:
            data = bytes(length)
            getattr(self.origin, kind)(offset, length)
        self.content[offset : offset + length] = data

    def digest_at(self, take: "Taker") -> str:
        """Take a snapshot between any two writes, and return what it must show."""
        for lock in self._locks:
            lock.acquire()
        try:
            take()
            return hashlib.sha256(self.content).hexdigest()
        finally:
            for lock in self._locks:
                lock.release()


class Taker:
    """Takes one snapshot."""

    def __init__(self, origin: SnapshotOrigin, name: str) -> None:
        self.origin, self.name = origin, name
        self.snapshot: Snapshot

    def __call__(self) -> None:
        self.snapshot = self.origin.create(self.name, 0)


def digest_of(snapshot: Snapshot, chance: random.Random) -> str:
    """Read all of a snapshot, in pieces of any length."""
    store, total, at = snapshot.open(), hashlib.sha256(), 0
    while at < store.size:
        length = min(chance.choice((SECTOR, 4096, 5000, 100_000)), store.size - at)
        total.update(store.pread(at, length))
        at += length
    return total.hexdigest()


@pytest.mark.parametrize("chunk", [4096, 65536])
def test_every_snapshot_shows_its_moment_for_ever(tmp_path: Path, chunk: int):
    folders = iter(range(1000))

    @settings(max_examples=6, deadline=None)
    @given(
        st.integers(0, 1 << 30),
        st.lists(st.sampled_from(("take", "take", "read", "delete")), min_size=6, max_size=20),
    )
    def hold(seed: int, steps: list[str]) -> None:
        folder = tmp_path / str(next(folders))
        folder.mkdir()
        inner = Slow(open_file_store(folder / "disk", SIZE, thin=True))
        origin = SnapshotOrigin(inner, folder / "snapshots", chunk=chunk)  # type: ignore[arg-type]
        chance = random.Random(seed)
        expected: dict[str, tuple[Snapshot, str]] = {}
        with Model(origin, 3, seed) as model:
            for number, step in enumerate(["take", *steps, "read"]):
                if step == "take":
                    taker = Taker(origin, f"s{number}")
                    digest = model.digest_at(taker)
                    expected[taker.name] = taker.snapshot, digest
                elif expected and step == "delete":
                    name = chance.choice(list(expected))
                    origin.delete(name)
                    del expected[name]
                else:
                    for snapshot, digest in expected.values():
                        assert digest_of(snapshot, chance) == digest
        assert model.failures == []
        for snapshot, digest in expected.values():
            assert digest_of(snapshot, chance) == digest
        assert origin.pread(0, SIZE) == model.content
        _changes_are_true(origin, expected)
        origin.close()

    hold()


def _changes_are_true(origin: SnapshotOrigin, expected: dict[str, tuple[Snapshot, str]]) -> None:
    """Outside the extents that are told, two snapshots are the same."""
    snapshots = [snapshot for snapshot, _ in expected.values()]
    for earlier, later in pairwise(snapshots):
        extents, complete = origin.changes(earlier.generation, later.name)
        assert complete
        one, other = (bytearray(each.open().pread(0, SIZE)) for each in (earlier, later))
        for offset, length in extents:
            one[offset : offset + length] = other[offset : offset + length]
        assert one == other


def test_a_snapshot_that_no_writer_is_kept_out_of_is_one_moment(tmp_path):
    """Each writer counts up in two places, the second after the first: seen together, they are
    equal or one apart, in that order, for a snapshot is between two points of every writer."""
    origin = SnapshotOrigin(open_file_store(tmp_path / "disk", SIZE), tmp_path / "snapshots")
    stop = Event()
    places = [(index * SECTOR, (index + 200) * SECTOR) for index in range(4)]

    def count_up(first: int, second: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            for at in (first, second):
                origin.write(at, number.to_bytes(8, "big") * (SECTOR // 8))

    threads = [threading.Thread(target=count_up, args=place) for place in places]
    for thread in threads:
        thread.start()
    try:
        for number in range(30):
            store = origin.create(str(number), 0).open()
            for first, second in places:
                seen = []
                for at in (first, second):
                    data = store.pread(at, SECTOR)
                    assert data == data[:8] * (SECTOR // 8)  # not half of a write
                    seen.append(int.from_bytes(data[:8], "big"))
                assert seen[0] - seen[1] in (0, 1)
            if number % 3 == 0:
                origin.delete(str(number))
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    origin.close()


class Interrupted:
    """A store in which something happens in the middle of the next read or write."""

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self.before_read: list[Callable[[], None]] = []
        self.in_write: list[Callable[[], None]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def pread(self, offset: int, length: int) -> bytes:
        if self.before_read:
            self.before_read.pop()()
        return self._store.pread(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self._store.write(offset, data[:1])
        if self.in_write:
            self.in_write.pop()()
        self._store.write(offset, data)


@pytest.fixture
def inner(tmp_path: Path) -> Interrupted:
    return Interrupted(open_file_store(tmp_path / "disk", SIZE))


@pytest.fixture
def origin(tmp_path: Path, inner: Interrupted) -> SnapshotOrigin:
    return SnapshotOrigin(inner, tmp_path / "snapshots", chunk=4096)  # type: ignore[arg-type]


@pytest.mark.parametrize("snapshots_between", [0, 1, 3])
def test_a_write_between_looking_and_reading_is_noticed(origin, inner, snapshots_between):
    origin.write(0, b"a" * SIZE)
    snapshot = origin.create("one", 0)

    def write() -> None:
        for number in range(snapshots_between):
            origin.create(f"between{number}", 0)
        origin.write(5000, b"b" * 10_000)

    inner.before_read.append(write)
    assert snapshot.open().pread(0, 65536) == b"a" * 65536
    inner.before_read.append(lambda: origin.write(100_000, b"c" * 10_000))
    assert snapshot.open().pread(90_000, 65536) == b"a" * 65536


def test_a_snapshot_that_becomes_invalid_while_it_is_read_says_so(origin, inner):
    origin.write(0, b"a" * SIZE)
    snapshot = origin.create("one", 0)

    def lose() -> None:
        origin._kept.limit = 0
        origin.write(0, b"b" * SIZE)

    inner.before_read.append(lose)
    with pytest.raises(ReadError, match="cannot be saved"):
        snapshot.open().pread(0, 4096)


def test_a_write_that_is_under_way_is_before_the_snapshot_and_the_next_one_after(origin, inner):
    origin.write(0, b"a" * 8192)
    halfway, go_on = Event(), Event()
    inner.in_write.append(lambda: (halfway.set(), go_on.wait(10)))  # type: ignore[arg-type]
    first = threading.Thread(target=origin.write, args=(0, b"b" * 4096))
    taken: list[Snapshot] = []
    taker = threading.Thread(target=lambda: taken.append(origin.create("one", 0)))
    second = threading.Thread(target=origin.write, args=(4096, b"c" * 4096))
    first.start()
    assert halfway.wait(10)
    taker.start()
    while not origin.quiet_gate.closed:
        taker.join(0.001)
    second.start()
    second.join(0.05)
    assert not taken  # the first write is not over ...
    assert origin.pread(4096, 4096) == b"a" * 4096  # ... and the second waits for the snapshot
    go_on.set()
    for thread in (first, taker, second):
        thread.join(10)
    assert taken[0].open().pread(0, 8192) == b"b" * 4096 + b"a" * 4096
    assert origin.pread(0, 8192) == b"b" * 4096 + b"c" * 4096


def test_two_writers_of_one_chunk_both_wait_until_it_is_saved(origin, inner):
    origin.write(0, b"a" * 4096)
    snapshot = origin.create("one", 0)
    reading, go_on = Event(), Event()
    inner.before_read.append(lambda: (reading.set(), go_on.wait(10)))  # type: ignore[arg-type]
    writers = [
        threading.Thread(target=origin.write, args=(at, bytes([98 + at // 512]) * 512))
        for at in (0, 512)
    ]
    writers[0].start()
    assert reading.wait(10)
    writers[1].start()
    writers[1].join(0.05)
    assert inner._store.pread(0, 1024) == b"a" * 1024
    # Another chunk is none of their business.
    origin.write(4096, b"x" * 512)
    go_on.set()
    for thread in writers:
        thread.join(10)
    assert origin.pread(0, 1024) == b"b" * 512 + b"c" * 512
    assert snapshot.open().pread(0, 4096) == b"a" * 4096
