"""The first session at work on the shadow: names, empty streams, and content that is at hand.

Nothing that is there already is changed or removed: what is to replace something is made under a
name of its own beside it.
"""

import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from serverfree.backup.restore.wanted import RestoreError, WantedFile, WantedStream
from serverfree.backup.restore.workshop import Mounted, NoSpace

_WORK_NAME = ".serverfree-{:08x}.restoring"
Content = Callable[[WantedStream], bytes | None]
"""Returns the content of a stream if the server is to bring it, None if it is to be copied."""


@dataclass(slots=True)
class Work:
    """A file under restoration: `path` is where it is worked on, `links` are its other paths.

    `streams` are those that are to be copied; they exist, empty.
    """

    file: WantedFile
    path: str
    links: tuple[str, ...] = ()
    replaces: bool = False
    was_there: bool = False
    """A directory that the volume had."""
    streams: list[WantedStream] = field(default_factory=list)


Allocate = Callable[[Mounted, Work, WantedStream], None]
"""Gives a stream, which is empty, its size and clusters, or sees to it that it gets them."""


@dataclass(slots=True)
class Created:
    """What the session came to."""

    works: list[Work] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def create(
    mounted: Mounted,
    wanted: Iterable[WantedFile],
    content: Content,
    allocate: Allocate,
    *,
    overwrite: bool,
) -> Created:
    """Create everything that is wanted; what one file cannot have is told and the rest goes on.

    Raises RestoreError, before anything is made, where a path is taken and not to be overwritten;
    and NoSpace.
    """
    files = list(wanted)
    if not overwrite:
        _refuse_taken(mounted, files)
    created = Created()
    for number, file in enumerate(sorted(files, key=_directories_first)):
        try:
            if file.why_not:
                raise RestoreError(file.why_not)
            _check_names(file)
            make = _create_directory if file.is_directory else _create_file
            work = make(mounted, file, number)
            created.works.append(work)
            _create_streams(mounted, work, content, allocate)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise NoSpace(f"no space for {file.path} in the file system's metadata") from error
            created.skipped.append(f"{file.path}: {error.strerror}")
        except RestoreError as error:
            created.skipped.append(f"{file.path}: {error}")
    return created


def _directories_first(file: WantedFile) -> tuple[bool, int]:
    return not file.is_directory, min(path.count("/") for path in file.paths)


def _refuse_taken(mounted: Mounted, files: Iterable[WantedFile]) -> None:
    taken = [
        path
        for file in files
        for path in file.paths
        if not file.is_directory and os.path.lexists(mounted.at(path))
    ]
    if taken:
        more = f" and {len(taken) - 3} more" if len(taken) > 3 else ""
        raise RestoreError(
            f"already on the volume: {', '.join(map(repr, taken[:3]))}{more}; --overwrite replaces "
            "them, --into PATH restores beside them"
        )


def _check_names(file: WantedFile) -> None:
    """Refuse what would be another file, or a stream, under the driver's eyes."""
    for path in file.paths:
        parts = path.split("/") if path else []
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise RestoreError("its path is none that NTFS can have")
    for stream in file.streams:
        if "/" in stream.name or "\0" in stream.name or ":" in stream.name:
            raise RestoreError(f"the stream's name {stream.name!r} is none that NTFS can have")


def _create_directory(mounted: Mounted, file: WantedFile, number: int) -> Work:
    place = mounted.at(file.path)
    was_there = os.path.lexists(place)
    place.mkdir(parents=True, exist_ok=True)  # a file in its place is an error
    return Work(file, file.path, was_there=was_there)


def _create_file(mounted: Mounted, file: WantedFile, number: int) -> Work:
    first, *others = file.paths
    for path in file.paths:
        there = mounted.at(path)
        there.parent.mkdir(parents=True, exist_ok=True)
        if there.is_dir() and not there.is_symlink():
            raise RestoreError("a directory of that name is there")
    replaces = any(os.path.lexists(mounted.at(path)) for path in file.paths)
    path = first
    if replaces:
        folder = first.rpartition("/")[0]
        path = f"{folder}/" if folder else ""
        path += _WORK_NAME.format(number)
    os.close(os.open(mounted.at(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    work = Work(file, path, tuple(others), replaces=replaces)
    if not replaces:
        for other in others:
            mounted.at(other).hardlink_to(mounted.at(path))
    return work


def _create_streams(mounted: Mounted, work: Work, content: Content, allocate: Allocate) -> None:
    for stream in work.file.streams:
        known = content(stream)
        if known or stream.name:  # a file's own stream is there already
            write_stream(mounted, work.path, stream.name, known or b"")
        if known is None:
            work.streams.append(stream)
            if stream.size:
                allocate(mounted, work, stream)


def write_stream(mounted: Mounted, path: str, stream: str, data: bytes) -> None:
    """Write all of a stream."""
    file = os.open(mounted.at(path, stream), os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
    finally:
        os.close(file)
