"""Volumes made and made larger: programs of NTFS-3G at work on a shadow, its changes written."""

import os
import subprocess

from serverfree.backup.ntfs.volume import Volume
from serverfree.backup.restore.ranges import Range, Ranges
from serverfree.backup.restore.shadow import PIECE, Shadow
from serverfree.backup.restore.target import Target
from serverfree.backup.restore.wanted import RestoreError
from serverfree.backup.restore.workshop import find_program, restore_folder

_TIMEOUT = 600.0
_CLUSTER = 4096
_ENVIRONMENT = {"LC_ALL": "C.UTF-8"}


def make_volume(target: Target, label: str) -> int:
    """Make an empty NTFS volume of a whole disk; what was on it is lost. Return bytes written."""
    with (
        restore_folder() as folder,
        Shadow(folder, target, [], _CLUSTER) as shadow,
    ):
        _run(
                "mkntfs", "--force", "--fast", "--quiet", "--no-indexing", "--label", label,
                "--sector-size", str(target.block_length), "--cluster-size", str(_CLUSTER),
                "--partition-start", "0", "--heads", "0", "--sectors-per-track", "0",
                str(shadow.path),
            )  # fmt: skip
        volume = Volume.open(shadow)
        return _write(shadow, target, Ranges(volume.metadata()).all)


def grow_volume(target: Target) -> int:
    """Let the NTFS volume that begins a disk fill it; return the bytes written of its metadata.

    The volume is marked to be checked, as ntfsresize does. Raises RestoreError.
    """
    volume = Volume.open(target)
    cluster = volume.boot.cluster_size
    with (
        restore_folder() as folder,
        Shadow(folder, target, volume.metadata(), cluster) as shadow,
    ):
        _run("ntfsresize", "--force", "--force", "--no-progress-bar", str(shadow.path))
        grown = Volume.open(shadow)
        # The backup of the boot sector goes to the disk's end, which may lie behind the volume's.
        sector = grown.boot.sector_size
        places = Ranges([*grown.metadata(), (shadow.size - sector, sector)])
        changed = list(shadow.differences(places.all))
        boot = [each for each in changed if each[0] == 0]
        rest = [each for each in changed if each[0] != 0]
        # The boot sector tells of the new size when all else does.
        written = _write(shadow, target, rest)
        return written + _write(shadow, target, boot)


def _write(shadow: Shadow, target: Target, ranges: list[Range]) -> int:
    written = 0
    for place, length in ranges:
        for at in range(place, place + length, PIECE):
            data = shadow.read_at(at, min(PIECE, place + length - at))
            target.write_at(at, data)
            written += len(data)
    target.flush()
    return written


def _run(program: str, *arguments: str) -> None:
    try:
        done = subprocess.run(
            [find_program(program), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_TIMEOUT,
            env={**os.environ, **_ENVIRONMENT},
        )
    except subprocess.TimeoutExpired as error:
        raise RestoreError(f"{program} does not end") from error
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split()[-40:])
        raise RestoreError(f"{program} ended with {done.returncode}: {words}")
