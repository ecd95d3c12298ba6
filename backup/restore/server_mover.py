"""Pieces of archives onto a disk without a copy manager: read and written by this machine."""

from collections.abc import Sequence

from serverfree.backup.pieces import ToDisk
from serverfree.backup.restore.archive_bytes import TapeUnreadable
from serverfree.backup.restore.archives import Archives
from serverfree.backup.restore.mover import Lost
from serverfree.backup.restore.report import RestoreReport
from serverfree.backup.restore.target import DiskTarget
from serverfree.backup.watching import Watcher

_PIECE = 1 << 20


class ServerMover:
    """Does what `TapeMover` does; every byte is counted as passed through the server."""

    def __init__(
        self, target: DiskTarget, archives: Archives, report: RestoreReport, watcher: Watcher
    ) -> None:
        self._target, self._archives = target, archives
        self._report, self._watcher = report, watcher
        self.moves: list[ToDisk] = []

    def move(self, wanted: Sequence[ToDisk]) -> list[Lost]:
        """Copy pieces, and return what the tape does not give. Raises ScsiError."""
        lost: list[Lost] = []
        total = sum(piece.length for piece in wanted)
        done = 0
        for piece in sorted(wanted, key=lambda piece: piece.archive_offset):
            try:
                for at in range(0, piece.length, _PIECE):
                    size = min(_PIECE, piece.length - at)
                    data = self._archives.read(piece.archive_offset + at, size)
                    self._put(piece.offset + at, data)
                    done += size
                    self._watcher.moved(done, total)
            except TapeUnreadable as error:
                lost.append(Lost(piece, str(error)))
            else:
                self.moves.append(piece)
        self._report.through_server("no copy manager", done)
        return lost

    def _put(self, offset: int, data: bytes) -> None:
        """Write at any byte: what else is in the first and last block stays."""
        block = self._target.block_length
        before, behind = offset % block, -(offset + len(data)) % block
        if before:
            data = self._target.read_at(offset - before, before) + data
        if behind:
            data += self._target.read_at(offset - before + len(data), behind)
        self._target.write_at(offset - before, data)
