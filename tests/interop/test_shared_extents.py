"""What a host offloads to disks of one target costs no space where the file system can share it."""

import os
import subprocess
from pathlib import Path

import pytest

from support import peers, servers
from support.file_systems import mounted, shared_bytes
from support.relay import Relay

pytestmark = [pytest.mark.peer, pytest.mark.timeout(300)]

MiB = 1 << 20
SIZE = 64 * MiB
EXTENDED_COPY = 0x83


def qemu_img(*arguments: object) -> None:
    peers.require("qemu-img", "qemu-img's iscsi driver")
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, timeout=120)


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_copy_that_qemu_offloads_takes_no_space(tmp_path: Path, kind: str) -> None:
    image = servers.random_file(tmp_path / "random.img", SIZE)
    raw = ("-f", "raw", "-O", "raw")
    with mounted(tmp_path, kind) as folder:
        disks = [folder / "one", folder / "two"]
        options = [("--disk", f"{path.name}={path},size={SIZE},thin") for path in disks]
        with servers.target(*(word for option in options for word in option)) as storage:
            one, two = (storage[path.name].url for path in disks)
            qemu_img("convert", "-n", *raw, image, one)
            os.sync()
            before = os.statvfs(folder)
            with Relay(*storage.address) as source, Relay(*storage.address) as destination:
                qemu_img("convert", "-n", "-C", *raw, source.url(one), destination.url(two))
                commands = source.commands + destination.commands
            assert commands[EXTENDED_COPY] >= 1
            os.sync()
            after = os.statvfs(folder)
            assert (before.f_bfree - after.f_bfree) * before.f_frsize < SIZE // 16
            assert [shared_bytes(path) for path in disks] == [SIZE, SIZE]
            qemu_img("compare", "-f", "raw", "-F", "raw", image, two)
