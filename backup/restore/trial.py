"""A restore put to the proof: what has come to the disk, held against what was backed up.

The archive is put together again, from the disk where its bytes went there and from the tape for
what lies between (headers, what a file's record holds), and its digests are those of the catalog.
All of it passes through this machine.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from serverfree.backup.catalog.facts import Backup, Digest
from serverfree.backup.device import Device
from serverfree.backup.pieces import ToDisk
from serverfree.backup.restore.archives import Archives
from serverfree.backup.watching import Watcher

_PIECE = 1 << 20


@dataclass(slots=True)
class Trial:
    """What a comparison came to. `different` are (offset in the archives, length)."""

    compared: int = 0
    from_disk: int = 0
    how: str = ""
    different: list[tuple[int, int]] = field(default_factory=list)


def compare(
    backups: Sequence[tuple[Backup, Sequence[Digest]]],
    moves: Sequence[ToDisk],
    archives: Archives,
    disk: Device,
    watcher: Watcher,
) -> Trial:
    """Compare what `moves` brought to the disk: by the digests of ranges that it lies in, or byte
    by byte with the tape where there are none.
    """
    watcher.phase("comparing, through this machine")
    ordered = sorted(moves, key=lambda move: move.archive_offset)
    total = sum(move.length for move in ordered)
    trial = Trial()
    digests = [
        (archives.offset(backup, each.archive_offset), each)
        for backup, found in backups
        for each in found
    ]
    index = 0
    compared: list[tuple[int, int]] = []
    for offset, digest in sorted(digests, key=lambda each: each[0]):
        end = offset + digest.length
        while index < len(ordered) and _end(ordered[index]) <= offset:
            index += 1
        if index == len(ordered) or ordered[index].archive_offset >= end:
            continue
        found = hashlib.sha256()
        for data, from_disk in _archive(ordered, index, offset, end, archives, disk):
            found.update(data)
            trial.from_disk += len(data) if from_disk else 0
            watcher.moved(trial.from_disk, total)
        if found.digest() != digest.sha256:
            trial.different.append((offset, digest.length))
        trial.compared += digest.length
        compared.append((offset, end))
    if compared:
        trial.how = "SHA-256 of the archive made again from the disk, against the catalog"
    else:
        _against_tape(ordered, archives, disk, trial, watcher, total)
        trial.how = "the disk against the tape, byte by byte (the catalog has no digests)"
    return trial


def _end(move: ToDisk) -> int:
    return move.archive_offset + move.length


def _archive(
    moves: Sequence[ToDisk], index: int, start: int, end: int, archives: Archives, disk: Device
) -> Iterator[tuple[bytes, bool]]:
    """Yield the bytes of the archive from `start` to `end`, and whether they are the disk's."""
    at = start
    while at < end:
        move = moves[index] if index < len(moves) else None
        if move is None or move.archive_offset >= end:
            for place, size in _cut(at, end):
                yield archives.read(place, size), False
            return
        if move.archive_offset > at:
            for place, size in _cut(at, move.archive_offset):
                yield archives.read(place, size), False
            at = move.archive_offset
        stop = min(_end(move), end)
        shift = move.offset - move.archive_offset
        for place, size in _cut(at, stop):
            yield disk.read_at(place + shift, size), True
        at = max(at, stop)
        index += 1


def _against_tape(
    moves: Sequence[ToDisk],
    archives: Archives,
    disk: Device,
    trial: Trial,
    watcher: Watcher,
    total: int,
) -> None:
    for move in moves:
        shift = move.offset - move.archive_offset
        for at, size in _cut(move.archive_offset, _end(move)):
            if archives.read(at, size) != disk.read_at(at + shift, size):
                trial.different.append((at, size))
            trial.compared += size
            trial.from_disk += size
            watcher.moved(trial.from_disk, total)


def _cut(start: int, end: int) -> Iterator[tuple[int, int]]:
    for at in range(start, end, _PIECE):
        yield at, min(_PIECE, end - at)
