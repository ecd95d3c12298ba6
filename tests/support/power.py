"""A disk that loses power: what was not synced is there in part, in any order, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

SECTOR = 512


class PowerCut(BaseException):
    """The machine stops here: no code of the program runs any more."""


class FailingDisk:
    """Follows every write, truncation and sync of the files in a directory.

    The `operations`-th of them does not happen: PowerCut is raised in its place. `leave` then puts
    into another directory what a disk might hold: for each file what its last sync saw and, on
    top, a random choice of the truncations and sectors that came later.

    Other files are none of its business, whichever thread of this process has them: a server that
    another test left behind must neither lose its power nor use up the operations. Nor has anyone
    a power failure to fear after `installed`, even if the patches should have outlived it.
    """

    def __init__(self, directory: Path, operations: int) -> None:
        self._directory = directory.resolve()
        self._left = operations
        self._on = False
        self._synced = {path.name: path.read_bytes() for path in directory.iterdir()}
        self._pending: dict[str, list[tuple[int, bytes | None]]] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within this block the os module works on this disk."""
        calls: dict[str, Any] = {
            name: getattr(os, name) for name in ("pwrite", "pwritev", "ftruncate", "fdatasync")
        }

        def pwrite(fd: int, data: Any, offset: int) -> int:
            if self._holds(fd):
                self._note(fd, offset, bytes(data))
            return int(calls["pwrite"](fd, data, offset))

        def pwritev(fd: int, pieces: Any, offset: int) -> int:
            if self._holds(fd):
                self._note(fd, offset, b"".join(pieces))
            return int(calls["pwritev"](fd, pieces, offset))

        def ftruncate(fd: int, size: int) -> None:
            if self._holds(fd):
                self._note(fd, size, None)
            calls["ftruncate"](fd, size)

        def fdatasync(fd: int) -> None:
            if not self._holds(fd):
                calls["fdatasync"](fd)
                return
            self._count()
            name = self._name(fd)
            self._synced[name] = Path(f"/proc/self/fd/{fd}").read_bytes()
            self._pending.pop(name, None)

        with mock.patch.multiple(
            os, pwrite=pwrite, pwritev=pwritev, ftruncate=ftruncate, fdatasync=fdatasync
        ):
            self._on = True
            try:
                yield
            finally:
                self._on = False

    def _holds(self, fd: int) -> bool:
        return self._on and self._path(fd).is_relative_to(self._directory)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise PowerCut

    def _path(self, fd: int) -> Path:
        return Path(f"/proc/self/fd/{fd}").readlink()

    def _name(self, fd: int) -> str:
        return self._path(fd).name

    def _note(self, fd: int, offset: int, data: bytes | None) -> None:
        self._count()
        self._pending.setdefault(self._name(fd), []).append((offset, data))

    def leave(self, directory: Path, random: Random) -> None:
        """Write what is left into a directory."""
        directory.mkdir()
        likelihood = random.choice([0.0, 0.5, 0.9, 1.0])
        for name in {*self._synced, *self._pending}:
            content = bytearray(self._synced.get(name, b""))
            for offset, data in self._pending.get(name, []):
                if data is None:
                    if random.random() < likelihood:
                        content[offset:] = bytes(max(0, offset - len(content)))
                else:
                    _write_some_sectors(content, offset, data, random, likelihood)
            (directory / name).write_bytes(content)


def _write_some_sectors(
    content: bytearray, offset: int, data: bytes, random: Random, likelihood: float
) -> None:
    at = 0
    while at < len(data):
        end = at + SECTOR - (offset + at) % SECTOR
        if random.random() < likelihood:
            if len(content) < offset + at:
                content.extend(bytes(offset + at - len(content)))
            piece = data[at:end]
            content[offset + at : offset + at + len(piece)] = piece
        at = end
