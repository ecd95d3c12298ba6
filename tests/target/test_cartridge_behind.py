"""Write-behind: each page is given to the device once, nobody waits, and the flush decides."""

import os
import time
from threading import Event
from types import SimpleNamespace

import pytest

from serverfree.target.backstore import cartridge_behind
from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.backstore.cartridge_behind import WriteBehind
from serverfree.target.backstore.cartridge_errors import WriteFailed

PAGE = 4096
STRETCH = 8 << 20


class Device:
    """In place of the kernel: notes what it is to write, and takes it when `ready`."""

    def __init__(self):
        self.asked = []
        self.ready = Event()
        self.ready.set()
        self.called = Event()

    def sync_file_range(self, fd, offset, length, flags):
        assert flags == 2  # SYNC_FILE_RANGE_WRITE alone: no waiting, no error taken away
        self.asked.append((offset, length))
        self.called.set()
        self.ready.wait()
        return 0


@pytest.fixture
def device(monkeypatch):
    device = Device()
    monkeypatch.setattr(cartridge_behind, "_libc", device)
    return device


def settle(behind):
    while behind._busy:
        time.sleep(0.001)


def write(behind, offset, length, record=300_000):
    """Written in records, the writer never so far ahead that the thread is still busy."""
    for at in range(offset, offset + length, record):
        behind.written(at, min(record, offset + length - at))
        settle(behind)


def test_every_page_once_and_in_order(device):
    behind = WriteBehind(0)
    write(behind, 64, 5 * STRETCH)
    behind.close()
    assert device.asked[0][0] == 0
    for (offset, length), (following, _) in zip(device.asked, device.asked[1:], strict=False):
        assert following == offset + length
    assert all(length % PAGE == 0 and length >= STRETCH for _, length in device.asked)
    end = sum(device.asked[-1])
    assert 64 + 4 * STRETCH <= end <= 64 + 5 * STRETCH  # never the page that is still filled


def test_what_is_written_elsewhere_begins_anew(device):
    behind = WriteBehind(0)
    write(behind, 100 * STRETCH + 8, STRETCH + PAGE)
    write(behind, 64, STRETCH)
    write(behind, 64 + STRETCH, PAGE)
    behind.close()
    assert [offset for offset, _ in device.asked] == [100 * STRETCH, 0]


def test_little_is_left_to_the_flush(device):
    behind = WriteBehind(0)
    write(behind, 64, STRETCH - 100)
    behind.close()
    assert device.asked == []


def test_a_device_that_keeps_us_waiting_holds_up_nobody(device):
    behind = WriteBehind(0)
    device.ready.clear()
    behind.written(0, STRETCH)
    assert device.called.wait(10)
    for at in range(1, 20):
        behind.written(at * STRETCH, STRETCH)
    assert device.asked == [(0, STRETCH)]
    device.ready.set()
    settle(behind)
    behind.written(20 * STRETCH, PAGE)
    behind.close()
    assert device.asked == [(0, STRETCH), (STRETCH, 19 * STRETCH + PAGE)]


def test_what_the_device_failed_to_write_is_told_by_the_flush(tmp_path, monkeypatch):
    """... and nothing that write-behind does makes it look safe."""
    cartridge = open_cartridge(tmp_path / "tape", 1 << 30)
    (partition,) = cartridge.partitions
    asked = []
    monkeypatch.setattr(
        cartridge_behind, "_libc", SimpleNamespace(sync_file_range=lambda *it: asked.append(it))
    )
    for _ in range(40):
        partition.append([bytes(256 << 10)])
    assert partition.unsynced[0] == 40

    def fail(fd):
        raise OSError(5, os.strerror(5))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", fail)
        with pytest.raises(WriteFailed):
            partition.sync()
    cartridge.abandon()
    assert asked


def test_the_kernel_takes_the_call(tmp_path):
    """Of a real file: no argument is wrong, and the content is what was written."""
    cartridge = open_cartridge(tmp_path / "tape", 1 << 30)
    (partition,) = cartridge.partitions
    blocks = [os.urandom(1000) * 1000 for _ in range(20)]
    for block in blocks:
        partition.append([block])
    fd = os.open(tmp_path / "tape" / "part0.log", os.O_RDONLY)
    assert cartridge_behind._libc.sync_file_range(fd, 0, STRETCH, 2) == 0
    os.close(fd)
    cartridge.close()
    cartridge = open_cartridge(tmp_path / "tape")
    (partition,) = cartridge.partitions
    assert [bytes(partition.read(block)) for block in range(20)] == blocks
    cartridge.close()
