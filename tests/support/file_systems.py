"""File systems of a test's own, in files that are mounted: for root only."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.peers import require


@contextlib.contextmanager
def mounted(folder: Path, kind: str) -> Iterator[Path]:
    """Make and mount a file system of this kind; skips the test where that may not be done."""
    require(f"mkfs.{kind}")
    image, place = folder / "image", folder / "mounted"
    place.mkdir()
    image.touch()
    os.truncate(image, 512 << 20)
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    for command in (
        [f"mkfs.{kind}", "-q", str(image)],
        ["mount", "-o", "loop", str(image), str(place)],
    ):
        ended = subprocess.run(
            command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        if ended.returncode:
            pytest.skip(f"{' '.join(command)}: {ended.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
