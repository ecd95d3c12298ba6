"""The last session at work on the shadow: replaced files, attributes, times."""

import os
from collections.abc import Iterable

from serverfree.backup.restore.creation import Work
from serverfree.backup.restore.workshop import Mounted

# What makes a path look like something else to the driver comes last: a system file may be a
# symbolic link, and so is a reparse point.
_ORDER = (
    "ntfs_acl",
    "ntfs_dos_name",
    "ntfs_object_id",
    "ntfs_ea",
    "ntfs_times",
    "ntfs_attrib",
    "ntfs_reparse_data",
)
_EVERY_TIME = 32


def finish(mounted: Mounted, works: Iterable[Work], *, overwrite: bool) -> list[str]:
    """Put replacements in their place and give everything its attributes; return what failed.

    Directories come last, deepest first, so that nothing changes them any more.
    """
    failed: list[str] = []
    files: list[Work] = []
    directories: list[Work] = []
    for work in works:
        (directories if work.file.is_directory else files).append(work)
    for work in files:
        if work.replaces:
            _put_in_place(mounted, work)
    directories.sort(key=lambda work: -work.path.count("/"))
    for work in files + directories:
        if work.was_there and not overwrite:
            continue
        failed += _give_attributes(mounted, work)
    return failed


def remove(mounted: Mounted, works: Iterable[Work]) -> None:
    """Take back files that were created; what one was to replace stays."""
    for work in works:
        mounted.at(work.path).unlink()
        if not work.replaces:
            for other in work.links:
                mounted.at(other).unlink()


def _put_in_place(mounted: Mounted, work: Work) -> None:
    first, *others = work.file.paths
    mounted.at(work.path).replace(mounted.at(first))
    work.path = first
    for other in others:
        place = mounted.at(other)
        if os.path.lexists(place):
            place.unlink()
        place.hardlink_to(mounted.at(first))


def _give_attributes(mounted: Mounted, work: Work) -> list[str]:
    failed = []
    place = mounted.at(work.path)
    known = work.file.attributes
    for name in _ORDER:
        value = known.get(name)
        if not value:
            continue
        try:
            os.setxattr(place, f"system.{name}", value, follow_symlinks=False)
        except OSError as error:
            failed.append(f"{work.path}: {name} cannot be set: {error.strerror}")
    return failed


def times_of(work: Work) -> bytes | None:
    """Return the four times that a file is to have, None if they are not known."""
    times = work.file.attributes.get("ntfs_times")
    return times if times is not None and len(times) == _EVERY_TIME else None
