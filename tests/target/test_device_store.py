"""The store over block devices: the contract, on the kernel's loop devices, and their own ways."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from serverfree.scsi.capacity import Capacity16
from serverfree.scsi.cdb.block import Read10, ReadCapacity16, Write10
from serverfree.target.backstore.base import StoreError
from serverfree.target.backstore.file import DeviceStore, FileStore, open_file_store
from serverfree.target.backstore.journal import journal_path
from serverfree.target.backstore.state import state_path
from serverfree.target.units.block import BlockUnit
from support import servers
from support.block_store_contract import SIZE, BlockStoreContract
from support.disk import Host
from support.loop import loop_device, take_in_size
from support.peers import find, require

pytestmark = pytest.mark.peer

MIB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.touch()
    os.truncate(path, SIZE)
    return path


@pytest.fixture
def device(image: Path) -> Iterator[Path]:
    with loop_device(image) as path:
        yield path


class TestDevice(BlockStoreContract):
    """A device of 512-byte sectors that can be told to unmap."""

    @pytest.fixture
    def store(self, device: Path) -> Iterator[FileStore]:
        """Make the store."""
        store = open_file_store(device, thin=True)
        assert isinstance(store, DeviceStore)
        assert store.can_discard
        yield store
        store.close()


class TestDeviceOf4096(BlockStoreContract):
    """One whose sectors are longer than the pieces that are zeroed."""

    @pytest.fixture
    def store(self, image: Path) -> Iterator[FileStore]:
        """Make the store."""
        with loop_device(image, sector=4096) as device:
            store = open_file_store(device, thin=True)
            assert store.can_discard
            yield store
            store.close()


def test_what_is_discarded_is_given_back_and_what_is_zeroed_is_kept(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"x" * 8 * MIB)
    with loop_device(image) as device:
        store = open_file_store(device, 8 * MIB, thin=True)
        assert store.granularity >= 512
        before = image.stat().st_blocks
        store.discard(MIB, 4 * MIB)
        store.flush()
        assert image.stat().st_blocks <= before - 4 * MIB // 512
        left = image.stat().st_blocks
        store.zero(6 * MIB + 100, MIB)
        store.flush()
        assert image.stat().st_blocks >= left
        found = store.pread(0, 8 * MIB)
        store.close()
    assert found == image.read_bytes()
    holes = bytes(4 * MIB), bytes(MIB)
    assert found == b"x" * MIB + holes[0] + b"x" * (MIB + 100) + holes[1] + b"x" * (MIB - 100)


def test_a_full_device_is_not_unmapped(device: Path) -> None:
    store = open_file_store(device)
    assert not store.can_discard
    assert BlockUnit("d", store).thin is False
    store.close()


def test_a_device_that_grows_is_a_disk_that_grows(image: Path, device: Path) -> None:
    host = Host(BlockUnit("d", open_file_store(device)))
    os.truncate(image, 4 * SIZE)
    take_in_size(device)
    capacity = Capacity16.unpack(host.good(ReadCapacity16(allocation_length=32)))
    assert capacity.last_lba + 1 == 4 * SIZE // 512
    host.good(Write10(lba=capacity.last_lba, blocks=1), b"z" * 512)
    assert host.good(Read10(lba=capacity.last_lba, blocks=1)) == b"z" * 512
    host.unit.close()


def test_blocks_smaller_than_a_sector_are_written_one_by_one(image: Path) -> None:
    with loop_device(image, sector=4096) as device:
        host = Host(BlockUnit("d", open_file_store(device)))
        host.good(Write10(lba=0, blocks=8), b"a" * 4096)
        host.good(Write10(lba=3, blocks=1, fua=True), b"b" * 512)
        host.unit.close()
    assert image.read_bytes()[:4096] == b"a" * 1536 + b"b" * 512 + b"a" * 2048


def test_a_device_has_one_user(image: Path, tmp_path: Path) -> None:
    require("mkfs.xfs", "mount")
    os.truncate(image, 512 * MIB)
    folder = tmp_path / "mounted"
    folder.mkdir()
    with loop_device(image) as device:
        subprocess.run([str(find("mkfs.xfs")), "-q", str(device)], check=True)
        mount = [str(find("mount")), str(device), str(folder)]
        store = open_file_store(device)
        with pytest.raises(StoreError, match="in use on this machine"):
            open_file_store(device)
        with pytest.raises(StoreError, match="served by another target"):
            open_file_store(device, readonly=True)
        # The kernel too keeps off while we have it, and we while the kernel has it.
        refused = subprocess.run(mount, capture_output=True, text=True, check=False)
        assert refused.returncode != 0
        assert "busy" in refused.stderr or "already mounted" in refused.stderr, refused.stderr
        store.close()
        subprocess.run(mount, check=True)
        try:
            with pytest.raises(StoreError, match="in use on this machine"):
                open_file_store(device)
        finally:
            subprocess.run(["umount", str(folder)], check=True)


def test_what_a_disk_must_not_forget_does_not_lie_in_the_device_folder(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    name = str(device).strip("/").replace("/", "-")
    assert state_path(device) == tmp_path / "state" / "serverfree" / f"{name}.state"
    assert journal_path(device) == tmp_path / "state" / "serverfree" / f"{name}.journal"
    # By the name it is called by: a link under /dev/disk/by-id is about one disk for ever.
    link = tmp_path / "by-id"
    link.symlink_to(device)
    assert state_path(link).name == f"{str(link).strip('/').replace('/', '-')}.state"


@pytest.mark.served
def test_a_device_is_served(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """qemu-io writes, reads back and discards on it through the target."""
    require("qemu-io", "qemu-img's iscsi driver")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    os.truncate(image, 16 * MIB)
    with loop_device(image) as device:
        with servers.target("--disk", f"d={device},thin") as server:
            commands = ("write -P 7 1M 4M", "flush", "discard 2M 1M", "read -P 0 2M 1M")
            asked = [each for command in commands for each in ("-c", command)]
            done = subprocess.run(
                [str(find("qemu-io")), "-d", "unmap", "-f", "raw", *asked, server["d"].url],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "Pattern verification failed" not in done.stdout
        expected = b"\7" * MIB + bytes(MIB) + b"\7" * 2 * MIB
        assert image.read_bytes()[MIB : 5 * MIB] == expected
