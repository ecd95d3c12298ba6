"""Files into a folder of this machine: their content passes through it, read from the tape.

Nothing is written outside of the folder, whatever the names on the tape: no path goes up, none
through a symbolic link. Alternate streams become files `NAME:STREAM` beside their file.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from serverfree.backup.files import Stream
from serverfree.backup.ntfs.clusters import compressed, plain
from serverfree.backup.ntfs.errors import NtfsError
from serverfree.backup.restore.archive_bytes import ArchiveBytes, TapeUnreadable
from serverfree.backup.restore.report import RestoreReport
from serverfree.backup.restore.wanted import RestoreError, WantedFile, WantedStream
from serverfree.backup.restore.workshop import encode
from serverfree.backup.watching import Watcher

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_HOLE = 64 << 10


def restore_to_folder(
    folder: Path,
    wanted: Sequence[WantedFile],
    archive: ArchiveBytes,
    report: RestoreReport,
    watcher: Watcher,
    *,
    overwrite: bool,
) -> None:
    """Write files below a folder, which is made if it is not there.

    What cannot be written or read is in the report, and the rest goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    total = sum(stream.size for file in wanted for stream in file.streams)
    writer = _Writer(root, archive, report, watcher, total, overwrite)
    try:
        for file in sorted(wanted, key=_tape_order):
            writer.put(file)
        for file in sorted(wanted, key=lambda file: -file.path.count("/")):
            if file.is_directory:
                writer.date(file)
    finally:
        os.close(root)


def _tape_order(file: WantedFile) -> tuple[bool, int]:
    first = min((each.pieces[0].archive_offset for each in file.streams if each.pieces), default=0)
    return not file.is_directory, first


class _Writer:
    def __init__(
        self,
        root: int,
        archive: ArchiveBytes,
        report: RestoreReport,
        watcher: Watcher,
        total: int,
        overwrite: bool,
    ) -> None:
        self._root, self._archive, self._report = root, archive, report
        self._watcher, self._total, self._overwrite = watcher, total, overwrite
        self._done = 0

    def put(self, file: WantedFile) -> None:
        """Write a file with its streams and links, or make a directory."""
        report = self._report
        try:
            if file.why_not:
                raise RestoreError(file.why_not)
            if file.is_directory:
                for path in file.paths:
                    os.close(self._folder(_parts(path)))
                report.directories += 1
            else:
                report.files += 1
            self._streams(file)
            for path in file.paths[1:]:
                self._link(file.path, path)
            if not file.is_directory:
                self.date(file)
        except (RestoreError, TapeUnreadable, NtfsError) as error:
            report.skipped.append(f"{file.path}: {error}")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            report.skipped.append(f"{file.path}: {error.strerror}")

    def _streams(self, file: WantedFile) -> None:
        names = {stream.name for stream in file.streams}
        streams = list(file.streams)
        if not file.is_directory and "" not in names:
            streams.insert(0, WantedStream("", 0, 0, b""))
        for stream in streams:
            path = f"{file.path}:{stream.name}" if stream.name else file.path
            self._content(path, stream)
            self._report.streams += 1

    def _content(self, path: str, stream: WantedStream) -> None:
        *folders, name = _parts(path)
        parent = self._folder(folders)
        try:
            if self._overwrite:
                _remove(parent, name)
            file = os.open(encode(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=parent)
        finally:
            os.close(parent)
        with os.fdopen(file, "wb", buffering=0) as opened:
            for piece in self._pieces(stream):
                if piece.count(0) == len(piece) and len(piece) >= _HOLE:
                    opened.seek(len(piece), os.SEEK_CUR)
                else:
                    view = memoryview(piece)
                    while view:
                        view = view[opened.write(view) :]
                self._done += len(piece)
                self._watcher.moved(self._done, self._total)
            opened.truncate(stream.size)
        brought = len(stream.content or b"") or sum(each.length for each in stream.data())
        self._report.content_bytes += brought
        self._report.through_server("to a folder", brought)

    def _pieces(self, stream: WantedStream) -> Iterator[bytes]:
        if stream.content is not None:
            return iter((stream.content,))
        extents = tuple(self._archive.extents(stream.pieces))
        if not stream.compression_unit:
            return plain(self._archive, extents, stream.size, stream.valid)
        found = Stream(
            stream.name,
            stream.size,
            stream.valid,
            extents=extents,
            compressed=True,
            compression_unit=stream.compression_unit,
        )
        return compressed(self._archive, found)

    def _link(self, first: str, other: str) -> None:
        *from_folders, from_name = _parts(first)
        *folders, name = _parts(other)
        source, parent = self._folder(from_folders), self._folder(folders)
        try:
            if self._overwrite:
                _remove(parent, name)
            os.link(
                encode(from_name), encode(name), src_dir_fd=source, dst_dir_fd=parent,
                follow_symlinks=False,
            )  # fmt: skip
        finally:
            os.close(source)
            os.close(parent)

    def date(self, file: WantedFile) -> None:
        """Give a file its time of modification."""
        parts = _parts(file.path)
        if not parts:
            return
        parent = self._folder(parts[:-1])
        try:
            os.utime(
                encode(parts[-1]), ns=(file.modified, file.modified), dir_fd=parent,
                follow_symlinks=False,
            )  # fmt: skip
        finally:
            os.close(parent)

    def _folder(self, parts: Sequence[str]) -> int:
        """Open a folder below the root, made where it is missing; symbolic links are refused."""
        at = os.dup(self._root)
        for part in parts:
            name = encode(part)
            try:
                try:
                    deeper = os.open(name, _DIRECTORY, dir_fd=at)
                except FileNotFoundError:
                    os.mkdir(name, dir_fd=at)
                    deeper = os.open(name, _DIRECTORY, dir_fd=at)
            finally:
                os.close(at)
            at = deeper
        return at


def _parts(path: str) -> list[str]:
    parts = path.split("/") if path else []
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise RestoreError("its path would lead out of the folder, or is none")
    return parts


def _remove(parent: int, name: str) -> None:
    try:
        os.unlink(encode(name), dir_fd=parent)
    except FileNotFoundError:
        return
