"""Pieces of archives onto a disk by EXTENDED COPY: the copy manager moves, this machine waits."""

import time
from collections.abc import Callable, Iterator, Sequence

from serverfree.backup.catalog.facts import Backup
from serverfree.backup.copying import Fault, Patience, may_pass, one_line
from serverfree.backup.pieces import ToDisk
from serverfree.backup.plan_frame import Command
from serverfree.backup.planner import plan_restore
from serverfree.backup.restore.archives import Archives
from serverfree.backup.restore.mover import Lost
from serverfree.backup.restore.report import RestoreReport
from serverfree.backup.restore.wanted import RestoreError
from serverfree.backup.site import Site
from serverfree.backup.watching import Watcher
from serverfree.initiator.copy_plan import Endpoint, Step
from serverfree.initiator.xcopy import CopyFailed, identify, limits_of, run_step
from serverfree.iscsi.names import Url
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_segments import VerifyCscd
from serverfree.scsi.sense import Sense, SenseKey

_GRAIN = 4096  # what pieces are cut at: no block of a disk is larger
Affected = Callable[[int, int], str]
"""Says what lies in a range of the archives, for people."""


class _Unreadable(RestoreError):
    """The drive says so: the tape is damaged there."""


class TapeMover:
    """Moves from the tape to one disk. Each command goes to its place on the tape by itself, so it
    can be sent again where a fault may pass. Making one asks the copy manager whether it can do the
    job, and raises PlanError or ScsiError if not.
    """

    def __init__(
        self,
        site: Site,
        disk: str | Url,
        archives: Archives,
        backups: Sequence[Backup],
        report: RestoreReport,
        watcher: Watcher,
        patience: Patience | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._site, self._archives = site, archives
        self._report, self._watcher = report, watcher
        self._patience, self._sleep = patience or Patience(), sleep
        self._disk = identify(site.meter, disk)
        self._tape: Endpoint = identify(site.meter, site.tape_url)
        self._limits = limits_of(site.manager)
        for backup in backups:  # Whatever is to be moved, these segments the manager has to know.
            self._plan(backup, ())
        if VerifyCscd.TYPE in self._limits.descriptor_types:
            # It tells whether it reaches both units (SPC-4 6.4.6.9) before anything is moved.
            units = CopyList(
                [self._disk.cscd(pad=False), self._tape.cscd(pad=False)],
                [VerifyCscd(0), VerifyCscd(1)],
                list_identifier=1,
            )
            run_step(site.manager, Step(units, 0), 0, 0, None)
        self.affected: Affected = lambda offset, length: ""
        self._done = 0
        self.moves: list[ToDisk] = []
        """Everything that was moved, with offsets of the archives."""

    def move(self, wanted: Sequence[ToDisk]) -> list[Lost]:
        """Copy pieces, and return what of them the tape does not give, with offsets of the
        archives. Raises RestoreError where anything else fails, PlanError.
        """
        total = sum(piece.length for piece in wanted)
        self._done = 0
        lost: list[Lost] = []
        for backup, pieces in self._archives.sorted_out(wanted):
            facts = backup.facts
            # LOCATE of a copy manager stays in the partition.
            self._site.tape.locate(facts.first_block, facts.partition)
            lost += self._move(backup, pieces, total)
        self._archives.moved_away()
        gone = {each.piece for each in lost}
        self.moves += [piece for piece in wanted if piece not in gone]
        return lost

    def _move(self, backup: Backup, pieces: Sequence[ToDisk], total: int) -> list[Lost]:
        lost: list[Lost] = []
        for command in self._plan(backup, pieces):
            where = self._archives.offset(backup, command.archive_offset), command.length
            try:
                self._run(command.copy, command.moved, total, where)
            except _Unreadable as error:
                end = command.archive_offset + command.length
                mine = [_clip(piece, command.archive_offset, end) for piece in pieces]
                left = [piece for piece in mine if piece.length]
                lost += self._salvage(backup, left, total, str(error))
                continue
            self._done += command.moved
            self._watcher.moved(self._done, total)
            self._report.commands += 1
            self._report.segments += len(command.copy.segments)
            self._report.moved_bytes += command.moved
        return lost

    def _salvage(
        self, backup: Backup, pieces: Sequence[ToDisk], total: int, why: str
    ) -> list[Lost]:
        """Move what can be read of pieces that cannot be read together, by halves."""
        if len(pieces) > 1:
            half = len(pieces) // 2
            parts = [list(pieces[:half]), list(pieces[half:])]
        else:
            (piece,) = pieces
            half = piece.length // 2 // _GRAIN * _GRAIN
            if not half or piece.length <= backup.facts.tape_block:
                offset = self._archives.offset(backup, piece.archive_offset)
                return [Lost(ToDisk(offset, piece.length, piece.offset), why)]
            start, end = piece.archive_offset, piece.archive_offset + piece.length
            parts = [[_clip(piece, start, start + half)], [_clip(piece, start + half, end)]]
        return [each for part in parts for each in self._move(backup, part, total)]

    def _plan(self, backup: Backup, pieces: Sequence[ToDisk]) -> Iterator[Command]:
        facts = backup.facts
        return plan_restore(
            pieces, self._tape, self._disk, self._limits, facts.tape_block, facts.first_block
        )

    def _run(self, copy: CopyList, size: int, total: int, where: tuple[int, int]) -> None:
        attempt = 1
        while True:
            try:
                step = Step(copy, size)
                run_step(self._site.manager, step, self._done, total, self._watcher.moved)
                return
            except Fault as error:
                attempt += 1
                if not may_pass(error) or attempt > self._patience.tries:
                    raise self._given_up(error, *where) from error
                self._report.warnings.append(f"a command was sent again after: {one_line(error)}")
                self._sleep(self._patience.before(attempt))
                self._site.renew()

    def _given_up(self, error: Exception, offset: int, length: int) -> RestoreError:
        backup, at = self._archives.split(offset)
        facts = backup.facts
        first, last = (
            facts.first_block + place // facts.tape_block for place in (at, at + length - 1)
        )
        if _unreadable(error):
            return _Unreadable(f"tape blocks {first} to {last}: {one_line(error)}")
        what = self.affected(offset, length)
        concerns = f"; concerns {what}" if what else ""
        return RestoreError(f"tape blocks {first} to {last}: {one_line(error)}{concerns}")


def _unreadable(error: Exception) -> bool:
    """Tell whether it was the tape that could not be read, by the drive's own answer."""
    if not isinstance(error, CopyFailed) or len(error.sense.forwarded_source) < 2:
        return False
    return Sense.unpack(error.sense.forwarded_source[1:]).key is SenseKey.MEDIUM_ERROR


def _clip(piece: ToDisk, start: int, end: int) -> ToDisk:
    """Return what of a piece lies in a range of its archive; of no length where nothing does."""
    first = max(piece.archive_offset, start)
    last = max(first, min(piece.archive_offset + piece.length, end))
    return ToDisk(first, last - first, piece.offset + first - piece.archive_offset)
