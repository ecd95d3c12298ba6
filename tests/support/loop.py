"""Block devices over files, by the kernel's loop driver: for tests that root runs."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.peers import find, require


@contextmanager
def loop_device(image: Path, sector: int = 512) -> Iterator[Path]:
    """Give a block device over a file; the caller is skipped where there can be none."""
    require("losetup")
    if os.geteuid() != 0:
        pytest.skip("only root sets up loop devices")
    command = [str(find("losetup")), "--find", "--show", "--sector-size", str(sector), str(image)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        pytest.skip(f"{' '.join(command)}: {ended.stderr.strip()}")
    device = Path(ended.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run([str(find("losetup")), "--detach", str(device)], check=True)


def take_in_size(device: Path) -> None:
    """Have a loop device see that its file has grown."""
    subprocess.run([str(find("losetup")), "--set-capacity", str(device)], check=True)
