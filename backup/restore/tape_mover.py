"""Pieces of archives onto a disk by EXTENDED COPY: the copy manager moves, this machine waits."""

import time
from collections.abc import Callable, Iterator, Sequence

from serverfree.backup.catalog.facts import Backup
from serverfree.backup.copying import Fault, Patience, may_pass, one_line
from serverfree.backup.pieces import ToDisk
from serverfree.backup.plan_frame import Command
from serverfree.backup.planner import plan_restore
from serverfree.backup.restore.archives import Archives
from serverfree.backup.restore.report import RestoreReport
from serverfree.backup.restore.wanted import RestoreError
from serverfree.backup.site import Site
from serverfree.backup.watching import Watcher
from serverfree.initiator.copy_plan import Endpoint, Step
from serverfree.initiator.xcopy import identify, limits_of, run_step
from serverfree.iscsi.names import Url
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_segments import VerifyCscd

Affected = Callable[[int, int], str]
"""Says what lies in a range of the archives, for people."""


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
        self.moves: list[ToDisk] = []
        """Everything that was moved, with offsets of the archives."""

    def move(self, wanted: Sequence[ToDisk]) -> None:
        """Copy pieces; raises RestoreError where the tape or the disk fails, PlanError."""
        total = sum(piece.length for piece in wanted)
        done = 0
        for backup, pieces in self._archives.sorted_out(wanted):
            facts = backup.facts
            # LOCATE of a copy manager stays in the partition.
            self._site.tape.locate(facts.first_block, facts.partition)
            for command in self._plan(backup, pieces):
                where = self._archives.offset(backup, command.archive_offset), command.length
                self._run(command.copy, command.moved, done, total, where)
                done += command.moved
                self._watcher.moved(done, total)
                self._report.commands += 1
                self._report.segments += len(command.copy.segments)
                self._report.moved_bytes += command.moved
        self._archives.moved_away()
        self.moves += wanted

    def _plan(self, backup: Backup, pieces: Sequence[ToDisk]) -> Iterator[Command]:
        facts = backup.facts
        return plan_restore(
            pieces, self._tape, self._disk, self._limits, facts.tape_block, facts.first_block
        )

    def _run(
        self, copy: CopyList, size: int, done: int, total: int, where: tuple[int, int]
    ) -> None:
        attempt = 1
        while True:
            try:
                run_step(self._site.manager, Step(copy, size), done, total, self._watcher.moved)
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
        what = self.affected(offset, length)
        concerns = f"; concerns {what}" if what else ""
        return RestoreError(f"tape blocks {first} to {last}: {one_line(error)}{concerns}")
