"""Folders for the time of a job. What a job that was killed has left there, the next one removes.

A folder belongs to the process that holds the lock of the file `owner` in it; that lock ends with
the process, however it ends.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_OWNER = "owner"

Release = Callable[[Path], None]
"""Makes a folder that nobody owns one that can be removed, or raises OSError."""


@contextmanager
def scratch_folder(
    prefix: str,
    parent: Path | None = None,
    release: Release = lambda folder: None,
    removed: Callable[[Path], None] = lambda folder: None,
) -> Iterator[Path]:
    """Yield a folder of our own that goes when this ends, in `parent` or where such things are.

    Those of the same prefix that killed processes of this user have left go first; `removed`
    hears of each.
    """
    parent = parent or Path(tempfile.gettempdir())
    for left in sorted(parent.glob(f"{prefix}*")):
        if _remove_left_over(left, release):
            removed(left)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as name:
        folder = Path(name)
        with (folder / f"{_OWNER}.new").open("wb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            # Under its name only now: nobody finds it without its lock.
            Path(held.name).rename(folder / _OWNER)
            yield folder


def _remove_left_over(folder: Path, release: Release) -> bool:
    """Remove a folder if it is ours and no process owns it; tell whether it was."""
    try:
        # Other users write to /tmp too: no link of theirs is followed.
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return False
        with (folder / _OWNER).open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            release(folder)
            shutil.rmtree(folder)
    except OSError:
        return False  # at work, or another job removes it
    return True
