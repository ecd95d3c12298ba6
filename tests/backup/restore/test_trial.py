"""The comparison of a trial restore: what was changed on the disk or the tape does not pass."""

import hashlib
import itertools

import pytest

from serverfree.backup.catalog.facts import Backup, BackupFacts, Digest, Mode, State
from serverfree.backup.pieces import ToDisk
from serverfree.backup.restore.trial import compare
from serverfree.backup.watching import Watcher

ARCHIVE = bytes((n * 7 + n // 256) % 256 for n in range(10_000))
MOVES = [ToDisk(512, 1000, 4096), ToDisk(2048, 3000, 0), ToDisk(7000, 500, 8192)]
BACKUP = Backup("1", BackupFacts(name="x", mode=Mode.FILES, created=0), State.DONE, 0, 1, 10_000)


class Archives:
    """One archive, in memory."""

    def offset(self, backup: Backup, archive_offset: int) -> int:
        return archive_offset

    def read(self, offset: int, length: int) -> bytes:
        return ARCHIVE[offset : offset + length]


class Disk:
    size, block_length = 16_384, 512

    def __init__(self) -> None:
        self.data = bytearray(b"\xe5" * self.size)
        for move in MOVES:
            piece = ARCHIVE[move.archive_offset :][: move.length]
            self.data[move.offset : move.offset + move.length] = piece

    def read_at(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])


def digests(*bounds: int) -> list[Digest]:
    return [
        Digest(start, end - start, hashlib.sha256(ARCHIVE[start:end]).digest())
        for start, end in itertools.pairwise(bounds)
    ]


def trial(disk: Disk, found: list[Digest]):
    return compare([(BACKUP, found)], MOVES, Archives(), disk, Watcher())


@pytest.mark.parametrize("bounds", [(0, 10_000), (0, 600, 2048, 4000, 10_000), (512, 7000, 7500)])
def test_the_archive_is_made_again_from_the_disk(bounds):
    result = trial(Disk(), digests(*bounds))
    assert result.different == []
    assert result.from_disk == sum(move.length for move in MOVES)
    assert "SHA-256" in result.how


@pytest.mark.parametrize("at", [4096, 5095, 0, 2999, 8192 + 499])
@pytest.mark.parametrize("with_digests", [True, False])
def test_one_changed_byte_on_the_disk_is_found(at, with_digests):
    disk = Disk()
    disk.data[at] ^= 1
    found = digests(0, 2048, 6000, 10_000) if with_digests else []
    assert len(trial(disk, found).different) == 1


def test_what_was_not_restored_is_not_looked_at():
    disk = Disk()
    disk.data[12_000] ^= 1
    assert trial(disk, digests(0, 10_000)).different == []
    assert trial(disk, []).different == []
