"""File systems of a test's own, in files that are mounted: for root only."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.peers import find, require


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


def shared_bytes(path: Path) -> int:
    """How many bytes of a file share their space with others, as filefrag sees it."""
    require("filefrag")
    done = subprocess.run(
        [str(find("filefrag")), "-s", "-v", "-b1", str(path)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    lines = [line.split(":") for line in done.stdout.splitlines() if "shared" in line]
    return sum(int(fields[3]) for fields in lines)
