"""The file store: the contract, and what is special about files."""

import errno
import os
import re
from pathlib import Path

import pytest

from serverfree.target.backstore import file
from serverfree.target.backstore.base import BlockStore, ReadError, StoreError
from serverfree.target.backstore.file import FileStore, open_file_store
from support.block_store_contract import PAGE, SIZE, BlockStoreContract
from support.disk import failure


class TestThinFile(BlockStoreContract):
    """A sparse file whose holes are given back."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> BlockStore:
        """Make the store."""
        store = open_file_store(tmp_path / "thin", SIZE, thin=True)
        if not store.can_discard:
            pytest.skip(f"the file system of {tmp_path} cannot punch holes")
        return store


class TestFullFile(BlockStoreContract):
    """A file with all its space reserved."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> BlockStore:
        """Make the store."""
        return open_file_store(tmp_path / "full", SIZE)


class TestFileWithoutTricks(BlockStoreContract):
    """A file system that knows neither fallocate nor holes, and a map that was given up."""

    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlockStore:
        """Make the store."""

        def refuse(*_: int) -> None:
            raise failure(errno.EOPNOTSUPP)

        def seek(fd: int, offset: int, whence: int, real: object = os.lseek) -> int:
            if whence in (os.SEEK_DATA, os.SEEK_HOLE):
                raise failure(errno.EINVAL)
            assert callable(real)
            return int(real(fd, offset, whence))

        monkeypatch.setattr(file, "fallocate", refuse)
        monkeypatch.setattr(os, "lseek", seek)
        store = open_file_store(tmp_path / "plain", SIZE, thin=True)
        assert not store.can_discard
        store.give_up_map()
        return store


def allocated(path: Path) -> int:
    """Bytes that a file takes on disk."""
    return path.stat().st_blocks * 512


def test_a_full_file_has_its_space_from_the_start(tmp_path: Path) -> None:
    store = open_file_store(tmp_path / "full", SIZE)
    if allocated(store.path) < SIZE:
        pytest.skip("the file system cannot reserve")
    store.write(0, b"x" * SIZE)
    store.zero(0, SIZE)
    store.flush()
    assert allocated(store.path) >= SIZE


def test_a_thin_file_takes_space_as_it_is_written_and_gives_it_back(tmp_path: Path) -> None:
    store = open_file_store(tmp_path / "thin", 1 << 24, thin=True)
    assert allocated(store.path) < 1 << 20
    store.write(1 << 20, b"x" * (1 << 20))
    store.flush()
    assert allocated(store.path) >= 1 << 20
    store.discard(1 << 20, 1 << 20)
    assert allocated(store.path) < 1 << 20
    assert store.path.stat().st_size == 1 << 24


def test_holes_are_told_from_data(tmp_path: Path) -> None:
    store = open_file_store(tmp_path / "thin", SIZE, thin=True)
    store.write(PAGE * 4, b"x" * PAGE)
    assert list(store.extents(0, SIZE)) == [
        (0, PAGE * 4, False),
        (PAGE * 4, PAGE, True),
        (PAGE * 5, SIZE - PAGE * 5, False),
    ]


def test_what_a_file_has_lost_is_no_hole(tmp_path: Path) -> None:
    for thin in (True, False):
        store = open_file_store(tmp_path / f"disk {thin}", SIZE, thin=thin)
        store.write(0, b"x" * SIZE)
        os.truncate(store.path, PAGE * 4)
        assert list(store.extents(0, PAGE * 4)) == [(0, PAGE * 4, True)]
        with pytest.raises(ReadError, match="has become shorter"):
            list(store.extents(PAGE, PAGE * 4))


def test_content_survives_and_a_size_that_agrees_is_welcome(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    store = open_file_store(path, SIZE)
    store.write(5, b"kept")
    store.close()
    assert open_file_store(path, SIZE).pread(5, 4) == b"kept"


def test_only_one_target_serves_a_file(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    first = open_file_store(path, SIZE)
    for readonly in (False, True):
        with pytest.raises(StoreError, match="served by another target already"):
            open_file_store(path, readonly=readonly)
    first.close()
    readers = [open_file_store(path, readonly=True) for _ in range(2)]
    with pytest.raises(StoreError, match="served by another target already"):
        open_file_store(path)
    for reader in readers:
        reader.close()
    open_file_store(path).close()


def test_what_cannot_be_opened_says_which_why_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    (tmp_path / "empty").touch()
    (tmp_path / "there").write_bytes(bytes(SIZE))
    os.mkfifo(tmp_path / "fifo")
    for arguments, words in (
        ((path,), "does not exist: give a size to have it made"),
        ((path, None, True), "does not exist: what is served read-only must be there"),
        ((path, SIZE, True), "does not exist: what is served read-only must be there"),
        ((tmp_path / "no" / "disk", SIZE), "its folder .*/no is missing"),
        ((tmp_path / "empty",), "is empty: remove it and give a size"),
        ((tmp_path / "there", SIZE * 2), f"has {SIZE} bytes, not {SIZE * 2}: leave the size out"),
        ((tmp_path,), "cannot be opened: Is a directory"),
        ((tmp_path / "fifo",), "neither a file nor a block device"),
        ((path, 0), "cannot have 0 bytes"),
        ((path, 1 << 62), "cannot be made .* free some space, or make it thin"),
    ):
        readonly = len(arguments) == 3
        with pytest.raises(StoreError, match=words) as caught:
            open_file_store(*arguments[:2], readonly=readonly)
        assert re.match(f"{re.escape(str(arguments[0]))} ", str(caught.value))
    assert not path.exists()  # a failure leaves nothing behind


def test_a_readonly_file_is_neither_written_nor_discarded(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * SIZE)
    path.chmod(0o400)
    store = open_file_store(path, readonly=True, thin=True)
    assert store.readonly
    assert store.can_discard  # it is thin all the same, and refuses as it refuses writes
    assert bytes(store.view(0, 3)) == b"xxx"
    store.flush()
    with pytest.raises(OSError):
        store.write(0, b"y")
    with pytest.raises(OSError):
        store.discard(0, SIZE)
    assert path.read_bytes() == b"x" * SIZE


def test_a_file_that_became_shorter_fails_to_read_and_no_more(tmp_path: Path) -> None:
    store = open_file_store(tmp_path / "disk", SIZE)
    store.write(0, b"x" * SIZE)
    os.truncate(store.path, SIZE // 2)
    with pytest.raises(ReadError) as caught:
        store.pread(SIZE // 2 - 1, 2)
    assert caught.value.errno == errno.EIO
    assert store.pread(SIZE // 2 - 2, 2) == b"xx"


def test_a_short_write_is_carried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_file_store(tmp_path / "disk", SIZE)
    real = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda fd, data, offset: real(fd, memoryview(data)[:1000], offset)
    )
    store.write(7, b"abc" * 1000)
    assert store.pread(0, 3010) == bytes(7) + b"abc" * 1000 + bytes(3)


def test_a_flush_that_failed_once_fails_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_file_store(tmp_path / "disk", SIZE)

    def fail(fd: int) -> None:
        raise failure(errno.EIO)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError) as caught:
            store.flush()
        assert caught.value.errno == errno.EIO
    # The kernel would say yes now: it has dropped the pages that it could not write.
    with pytest.raises(OSError, match="an earlier flush failed") as caught:
        store.flush()
    assert caught.value.errno == errno.EIO
    store.close()
    again = open_file_store(store.path)
    again.flush()


def test_an_unreadable_page_of_the_map_reaches_the_kernel_only(tmp_path: Path) -> None:
    """The window of a file that became shorter: SIGBUS for us, EFAULT or a short write for it."""
    store = open_file_store(tmp_path / "disk", SIZE)
    window = store.view(SIZE - PAGE, PAGE)
    os.truncate(store.path, 0)
    reader, writer = os.pipe()
    with pytest.raises(OSError) as caught:
        os.write(writer, window)
    assert caught.value.errno == errno.EFAULT
    os.close(reader)
    os.close(writer)
    store.give_up_map()
    with pytest.raises(ReadError):
        store.view(SIZE - PAGE, PAGE)


def test_a_disk_without_a_map_is_served_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise failure(errno.ENODEV)

    monkeypatch.setattr("mmap.mmap", refuse)
    store: FileStore = open_file_store(tmp_path / "disk", SIZE)
    store.write(0, b"bytes")
    assert store.view(0, 5) == b"bytes"
