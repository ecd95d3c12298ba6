"""A restore from end to end: look up, look at the units, refuse what must be, move, report."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from serverfree.backup.catalog.facts import Mode
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.contents import volume_start
from serverfree.backup.copying import one_line
from serverfree.backup.ntfs.errors import NtfsError
from serverfree.backup.restore.archive_bytes import ArchiveBytes
from serverfree.backup.restore.archives import SIZE, Archives
from serverfree.backup.restore.folder import restore_to_folder
from serverfree.backup.restore.guard import refuse_dirty, refuse_reserved
from serverfree.backup.restore.into_volume import Wishes, restore_files
from serverfree.backup.restore.making import grow_volume, make_volume
from serverfree.backup.restore.report import RestoreReport
from serverfree.backup.restore.server_mover import ServerMover
from serverfree.backup.restore.tape_mover import TapeMover
from serverfree.backup.restore.target import DiskTarget
from serverfree.backup.restore.trial import compare
from serverfree.backup.restore.wanted import RestoreError, WantedFile
from serverfree.backup.restore.wanted_files import WantedFiles, under
from serverfree.backup.restore.whole_disk import FreeSpace, restore_disk
from serverfree.backup.site import Site
from serverfree.backup.watching import Watcher
from serverfree.initiator.copy_plan import PlanError
from serverfree.initiator.disk import Disk
from serverfree.iscsi.errors import ProtocolError
from serverfree.iscsi.names import Url
from serverfree.scsi.errors import ScsiError

_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be restored, from where to where: `folder` or `disk` is given."""

    backup: str
    tape: Url
    mover: Url | None = None
    disk: Url | None = None
    folder: Path | None = None
    paths: tuple[str, ...] = ()
    into: str = ""
    partition: int | None = None
    free: FreeSpace = FreeSpace.AUTO
    grow: bool = False
    overwrite: bool = False
    force: bool = False
    trial: bool = False
    allow_through_server: bool = False
    catalog: Path | None = None


def restore(request: Request, watcher: Watcher | None = None) -> RestoreReport:
    """Restore, and return what it came to. Raises BackupError and what the units say."""
    started = time.monotonic()
    with Catalog.open(request.catalog) as catalog, Site(request.mover, request.tape) as site:
        job = _Job(request, watcher or Watcher(), catalog, site)
        try:
            job.run()
        except NtfsError as why:
            raise RestoreError(f"the file system on the disk cannot be read: {why}") from why
        job.report.socket_bytes = site.meter.sent + site.meter.received
    job.report.seconds = time.monotonic() - started
    return job.report


class _Job:
    def __init__(self, request: Request, watcher: Watcher, catalog: Catalog, site: Site) -> None:
        self._request, self._watcher = request, watcher
        self._catalog, self._site = catalog, site
        self._backup = catalog.backup(request.backup)
        self._chain = list(catalog.chain(self._backup))
        self._archives = Archives(site, self._chain)
        self._archive = ArchiveBytes(self._archives, SIZE)
        self.report = RestoreReport(backup=self._backup.id, mode=self._backup.facts.mode.value)

    def run(self) -> None:
        request = self._request
        self._archives.check()
        image = self._backup.facts.mode is Mode.IMAGE and not request.paths
        if request.folder is not None:
            self._to_folder(request.folder)
        elif request.disk is not None:
            if image:
                self._onto_disk(request.disk)
            else:
                self._into_volume(request.disk)

    # ------------------------------------------------------------------ the three ways

    def _to_folder(self, folder: Path) -> None:
        self.report.onto = str(folder)
        self.report.mode = "files"
        wanted = self._wanted()
        self._watcher.phase("restoring to a folder, through this machine")
        restore_to_folder(
            folder, wanted, self._archive, self.report, self._watcher,
            overwrite=self._request.overwrite,
        )  # fmt: skip

    def _onto_disk(self, url: Url) -> None:
        request = self._request
        disk, target = self._target(url)
        refuse_reserved(disk, force=request.force)
        volume = self._backup.facts.volume
        refuse_dirty(target, volume.start if volume else 0, force=request.force or request.trial)
        mover = self._mover(url, target)
        restore_disk(
            self._catalog, self._chain, self._archives, target, mover, self.report,
            self._watcher, request.free, self._affected_of_image,
        )  # fmt: skip
        if request.trial:
            self._compare(mover, target)
        if request.grow and target.size > self._backup.facts.disk_size:
            self._grow(target)

    def _into_volume(self, url: Url) -> None:
        request = self._request
        self.report.mode = "files"
        wanted = self._wanted()
        disk, target = self._target(url)
        refuse_reserved(disk, force=request.force)
        if request.trial:
            self._watcher.phase("making a volume on the scratch disk")
            self.report.metadata_written += make_volume(target, f"trial {self._backup.id}")
            start = 0
        else:
            start = volume_start(target, request.partition)
        mover = self._mover(url, target)
        if isinstance(mover, TapeMover):
            mover.affected = _affected(wanted)

        def step(what: str) -> None:
            if what == "writing metadata":
                refuse_reserved(disk, force=request.force)
            self._watcher.phase(what)

        wishes = Wishes(
            overwrite=request.overwrite, force=request.force, prove=request.trial, step=step
        )
        read = target.read
        restore_files(target, start, wanted, self._archive, mover, self.report, wishes)
        self.report.metadata_read = target.read - read
        if request.trial:
            self._compare(mover, target)

    # ------------------------------------------------------------------ parts of them

    def _affected_of_image(self, offset: int, length: int) -> str:
        found = WantedFiles(self._catalog, self._backup, self._archives).select(())
        return _affected(found)(offset, length)

    def _wanted(self) -> list[WantedFile]:
        found = WantedFiles(self._catalog, self._backup, self._archives)
        wanted = found.select(self._request.paths)
        self.report.skipped += found.skipped
        if not wanted:
            raise RestoreError(f"backup {self._backup.id} has no files")
        under(self._request.into, wanted)
        return wanted

    def _target(self, url: Url) -> tuple[Disk, DiskTarget]:
        self.report.onto = str(url)
        disk = self._site.disk(url)
        return disk, DiskTarget(disk)

    def _mover(self, url: Url, target: DiskTarget) -> TapeMover | ServerMover:
        """Return who moves: the copy manager, or this machine if that was allowed."""
        try:
            if self._request.mover is None:
                raise PlanError("no copy manager was named")
            return TapeMover(
                self._site, url, self._archives, self._chain, self.report, self._watcher
            )
        except (PlanError, ScsiError, ProtocolError) as error:
            if not self._request.allow_through_server:
                raise RestoreError(
                    f"the copy manager cannot do it: {one_line(error)}; nothing was written; "
                    "--allow-through-server would copy through this machine"
                ) from error
            self.report.warnings.append(f"copied through this machine: {one_line(error)}")
        return ServerMover(target, self._archives, self.report, self._watcher)

    def _compare(self, mover: TapeMover | ServerMover, target: DiskTarget) -> None:
        backups = [(backup, self._catalog.digests(backup)) for backup in self._chain]
        trial = compare(backups, mover.moves, self._archives, target, self._watcher)
        report = self.report
        report.compared_bytes, report.compared = trial.compared, trial.how
        if trial.different:
            offset, length = trial.different[0]
            backup, at = self._archives.split(offset)
            raise RestoreError(
                f"the trial failed: {len(trial.different)} ranges differ, the first at bytes {at} "
                f"to {at + length} of the archive of backup {backup.id}"
            )

    def _grow(self, target: DiskTarget) -> None:
        volume = self._backup.facts.volume
        if volume is None or volume.start:
            self.report.warnings.append(
                "not grown: the volume lies in a partition; make that larger first, then ntfsresize"
            )
            return
        self._watcher.phase("growing the volume")
        self.report.metadata_written += grow_volume(target)
        self.report.warnings = [each for each in self.report.warnings if "--grow" not in each]
        self.report.warnings.append(
            "the volume fills the disk now; it is marked to be checked, as ntfsresize does"
        )


def _affected(wanted: Sequence[WantedFile]) -> Callable[[int, int], str]:
    """Return what names the files that lie in a range of the archives."""

    def named(offset: int, length: int) -> str:
        found = [
            file.path
            for file in wanted
            if any(
                piece.archive_offset < offset + length
                and piece.archive_offset + piece.length > offset
                for stream in file.streams
                for piece in stream.pieces
            )
        ]
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        return ", ".join(found[:_NAMED]) + more

    return named
