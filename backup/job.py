"""A backup from beginning to end: snapshot, file system, tape, catalog, and a report of it all.

The story is `back_up`, read top to bottom. Whatever ends it early leaves the snapshot deleted, the
tape appendable, and a backup in the catalog that says why it failed.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from serverfree.backup.ahead import Halt, run_ahead
from serverfree.backup.archive.image import Extents, put_catalog
from serverfree.backup.archive.member import Kind, Member
from serverfree.backup.archive.writer import ArchiveWriter
from serverfree.backup.array import Array
from serverfree.backup.catalog.facts import Backup, BackupFacts, Digest, State
from serverfree.backup.catalog.packed import pack
from serverfree.backup.catalog.store import Catalog, Writer
from serverfree.backup.contents import Contents, Wish, read_contents
from serverfree.backup.copying import (
    FULL,
    Copying,
    Fault,
    OutOfTape,
    Patience,
    is_end_of_tape,
    one_line,
)
from serverfree.backup.device import DiskDevice
from serverfree.backup.errors import BackupError
from serverfree.backup.hooks import Hooks
from serverfree.backup.parent import changes_since, find_parent
from serverfree.backup.pieces import FromDisk, Piece
from serverfree.backup.planner import COMMAND_SIZE, DIGEST_LENGTH, plan_backup
from serverfree.backup.report import JobReport
from serverfree.backup.site import Site
from serverfree.backup.source import Quiet, Source, delete_left_over, snapshot_of
from serverfree.backup.tape_file import (
    TapePlace,
    begin_file,
    cartridge_serial,
    check_tape,
    close_unfinished,
    expect_position,
)
from serverfree.backup.through_server import content_of, write_archive
from serverfree.backup.watching import Watcher
from serverfree.backup.way import Way, choose_way
from serverfree.initiator.copy_plan import DEFAULT_TAPE_BLOCK, Endpoint
from serverfree.initiator.xcopy import identify
from serverfree.iscsi.names import Url
from serverfree.scsi.errors import ScsiError

_BATCH = 5000  # members that go into the catalog together
_NO_MANAGER = "no copy manager"  # why content went through this machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to back up, to where, and how. Units are URLs.

    `array` is the management API of the storage system, None for no snapshot. `incremental` is the
    id of a parent, or `latest` for the last image of this disk. `patience` is how a command that
    failed is tried again.
    """

    disk: Url
    tape: Url
    mover: Url | None
    array: str | None = None
    quiet: Quiet = field(default_factory=Quiet)
    hooks: Hooks = field(default_factory=Hooks)
    wish: Wish = field(default_factory=Wish)
    incremental: str | None = None
    tape_block: int = DEFAULT_TAPE_BLOCK
    tape_partition: int | None = None
    overwrite_tape: bool = False
    allow_through_server: bool = False
    command_size: int = COMMAND_SIZE
    catalog: Path | None = None
    patience: Patience = field(default_factory=Patience)


class JobFailed(BackupError):
    """A backup came to nothing; the text says why, and what became of the tape."""


def back_up(request: Request, watcher: Watcher | None = None) -> JobReport:
    """Do a backup and return what it came to.

    Raises BackupError, ArrayError, ScsiError, ProtocolError; nothing is lost that was there.
    """
    with ExitStack() as stack:
        catalog = stack.enter_context(Catalog.open(request.catalog))
        site = stack.enter_context(Site(request.mover, request.tape))
        job = _Job(request, watcher or Watcher(), catalog, site)
        job.look_at_units()
        stack.enter_context(job.entered())
        source = stack.enter_context(job.source())
        contents = stack.enter_context(job.contents(source))
        way = job.choose_way()
        job.begin_file()
        with job.tape_left_appendable():
            job.write(contents, way)
            job.check_end()
        job.finish()
    return job.report


class _Job:
    """The steps of a backup, and what they leave for each other."""

    entry: Writer
    place: TapePlace
    tape_end: Endpoint
    disk_end: Endpoint
    source_end: Endpoint
    device: DiskDevice

    def __init__(self, request: Request, watcher: Watcher, catalog: Catalog, site: Site) -> None:
        self.request, self.watcher = request, watcher
        self.catalog, self.site = catalog, site
        self.parent: Backup | None = None
        self._why_full = ""
        self.changes: Extents | None = None
        self.begun = False
        self.report = JobReport(
            name=request.wish.name,
            mode=request.wish.mode.value,
            disk=str(request.disk),
            tape=str(request.tape),
            tape_block=request.tape_block,
        )
        self._started = time.monotonic()
        self._now = time.time_ns()

    # ------------------------------------------------------------------ before the tape moves

    def look_at_units(self) -> None:
        """See that the units are there and what they are; nothing is moved or written."""
        request = self.request
        self.watcher.phase("looking at the units")
        self.disk_end = identify(self.site.meter, request.disk)
        if self.disk_end.is_tape:
            raise BackupError(f"{request.disk} is a tape; a backup is of a disk")
        self.tape_end = identify(self.site.meter, request.tape)
        if not self.tape_end.is_tape:
            raise BackupError(f"{request.tape} is a disk; a backup goes to a tape")
        check_tape(self.site.tape, request.tape_block)
        self.report.cartridge = cartridge_serial(self.site.tape)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The backup is in the catalog from here on; as failed if it ends with an exception."""
        request, report = self.request, self.report
        designator = self.disk_end.designator.identifier.hex()
        self.parent, self._why_full = find_parent(
            self.catalog, request.incremental, designator, report.cartridge,
            overwrite=request.overwrite_tape,
        )  # fmt: skip
        self.entry = self.catalog.begin(
            BackupFacts(
                name=request.wish.name,
                mode=request.wish.mode,
                created=self._now,
                disk_designator=designator,
                disk_url=str(request.disk),
                tape_url=str(request.tape),
                medium_serial=report.cartridge,
                tape_block=request.tape_block,
                disk_size=self.disk_end.blocks * self.disk_end.block_length,
            )
        )
        report.backup, report.uuid = self.entry.id, self.entry.backup.uuid
        try:
            self._check_alone()
            yield
        except BaseException as error:
            report.state = "failed"
            self._count_sockets()
            self.entry.fail(one_line(error), report.facts())
            raise

    def _check_alone(self) -> None:
        """Refuse a cartridge that another backup of this catalog is being written to."""
        mine = self.entry.backup
        for other in self.catalog.backups():
            if other.uuid == mine.uuid:
                return  # whoever came later gives way
            if (
                other.state is State.RUNNING
                and other.facts.medium_serial == mine.facts.medium_serial != ""
            ):
                raise BackupError(
                    f"backup {other.id} is being written to this cartridge: wait for its end"
                )

    @contextmanager
    def source(self) -> Iterator[Source]:
        """What is read: a snapshot, which is deleted in the end, or the disk itself."""
        request, report = self.request, self.report
        if request.array is None:
            if self.parent is not None or request.incremental is not None:
                raise BackupError(
                    "only the storage system knows what has changed: name its --array"
                )
            yield Source(str(request.disk))
            return
        with Array(request.array) as array:
            disk = self.disk_end.designator.identifier.hex()
            report.warnings += delete_left_over(array, disk, self.catalog)
            self.watcher.phase("waiting for quiet")
            with snapshot_of(
                array, disk, report.backup, request.quiet, request.hooks, self.watcher,
                report.warnings,
            ) as source:  # fmt: skip
                report.snapshot, report.generation = source.snapshot, source.generation
                report.consistency, report.snapshot_waited = source.consistency, source.waited
                self._find_changes(array, source)
                yield source

    def _find_changes(self, array: Array, source: Source) -> None:
        self.changes, why = changes_since(array, source, self.parent)
        if self.changes is None:
            self.parent = None
        if why:
            self.report.warnings.append(why)
        elif self._why_full:
            self.report.warnings.append(f"a full image: {self._why_full}")
        self.report.parent = self.parent.id if self.parent else ""

    @contextmanager
    def contents(self, source: Source) -> Iterator[Contents]:
        """Read the file system and choose; what is wrong with it is a warning."""
        report = self.report
        self.watcher.phase("reading the file system")
        self.source_end = (
            identify(self.site.meter, source.url) if source.snapshot else self.disk_end
        )
        self.device = DiskDevice(self.site.disk(source.url))
        contents = read_contents(self.device, self.request.wish, self.changes, self._now)
        report.metadata_bytes = self.device.read
        report.extents = contents.extents
        report.warnings += contents.remarks
        self.entry.note(
            volume=contents.volume,
            consistency=source.consistency,
            generation=source.generation,
            parent=self.parent.uuid if self.parent else "",
        )
        try:
            yield contents
        finally:
            # Before the snapshot is deleted: who reads it keeps it in use.
            self.site.close_disk(self.device.disk)

    def choose_way(self) -> Way:
        """Find out by whom the content is moved."""
        way = choose_way(
            self.site, self.source_end, self.tape_end, self.request.tape_block,
            through_server=self.request.allow_through_server,
        )  # fmt: skip
        if way.limits is None:
            self.report.through = "server"
            self.report.warnings.append(f"everything went through this machine: {way.why}")
        elif not way.digests:
            self.report.warnings.append(
                "the copy manager tells no digests: `verify` will have nothing to compare with"
            )
        return way

    # ------------------------------------------------------------------ the tape

    def begin_file(self) -> None:
        """Move the tape to where the file begins."""
        request, report = self.request, self.report
        self.watcher.phase("positioning the tape")
        try:
            self.place = place = begin_file(
                self.site.tape, partition=request.tape_partition, overwrite=request.overwrite_tape
            )
        except ScsiError as error:
            raise BackupError(
                f"the tape cannot be brought to where a backup would begin: {one_line(error)}; "
                "nothing was written: try another cartridge"
            ) from error
        report.warnings += place.warnings
        report.partition, report.file, report.first_block = (
            place.partition, place.file, place.first_block,
        )  # fmt: skip
        self.entry.note(partition=place.partition, file=place.file, first_block=place.first_block)

    @contextmanager
    def tape_left_appendable(self) -> Iterator[None]:
        """Close what was begun if it cannot be finished; say so in the error."""
        try:
            try:
                yield
            finally:
                if self.begun:
                    self.catalog.note_overwritten(self.entry.backup)
        except BaseException as error:
            if not self.begun:
                raise
            try:
                self.site.renew_tape()
                done = close_unfinished(self.site.tape, self.place)
            except (*Fault, ValueError) as trouble:
                done = (
                    f"the tape could not be closed ({one_line(trouble)}): the next backup on this "
                    "cartridge does that first"
                )
            if isinstance(error, Exception):
                raise JobFailed(f"{one_line(error)}; {done}") from error
            self.watcher.note(done)
            raise

    def write(self, contents: Contents, way: Way) -> None:
        """Put the archive on tape, with digests into the catalog as they come."""
        self.watcher.phase("copying to tape")
        began = time.monotonic()
        writer = ArchiveWriter()
        if way.limits is None:
            self._write_here(contents, writer)
        else:
            self._write_by_manager(contents, writer, way)
        report = self.report
        report.blocks = -(-report.archive_bytes // report.tape_block)
        report.moving_seconds = time.monotonic() - began
        report.skipped = contents.skipped

    def _write_by_manager(self, contents: Contents, writer: ArchiveWriter, way: Way) -> None:
        halt = Halt()

        def moved(done: int, total: int) -> None:
            halt.look()
            self.watcher.moved(done, total)

        copying = Copying(
            self.site, self.place, self.request.tape_block, way.digests, contents.to_move,
            moved, self.request.patience, halt.sleep,
        )  # fmt: skip
        try:
            self._run(self._body(contents, writer), way, copying, halt, more=True)
            begin = writer.offset
            self._run(self._tail(writer), way, copying, halt, begin=begin)
        finally:
            self.begun = copying.begun
            self.report.warnings += copying.warnings

    def _run(
        self,
        pieces: Iterator[Piece],
        way: Way,
        copying: Copying,
        halt: Halt,
        *,
        begin: int = 0,
        more: bool = False,
    ) -> None:
        """Have the copy manager write pieces of the archive."""
        request, report = self.request, self.report
        assert way.limits is not None
        commands = plan_backup(
            pieces, self.source_end, self.tape_end, way.limits, request.tape_block,
            request.command_size, way.digests, begin=begin, more=more,
        )  # fmt: skip
        with closing(run_ahead(commands, copying.run, halt)) as done:
            for command, held in done:
                if way.digests:
                    self._keep(Digest(command.archive_offset, command.length, held))
                report.commands += 1
                report.segments += len(command.copy.segments)
                report.moved_bytes += command.moved
                report.inline_bytes += command.inline
                report.archive_bytes += command.length

    def _write_here(self, contents: Contents, writer: ArchiveWriter) -> None:
        report = self.report

        def counted(pieces: Iterator[Piece]) -> Iterator[Piece]:
            for piece in pieces:
                if isinstance(piece, FromDisk):
                    report.server_bytes += piece.length
                    report.server_reasons[_NO_MANAGER] = (
                        report.server_reasons.get(_NO_MANAGER, 0) + piece.length
                    )
                else:
                    report.inline_bytes += piece.length
                yield piece

        expect_position(self.site.tape, self.place, self.place.first_block)
        self.begun = True
        grain = max(1, self.request.command_size // report.tape_block) * report.tape_block
        try:
            for pieces in (self._body(contents, writer), self._tail(writer)):
                content = content_of(
                    counted(pieces),
                    self.device.disk,
                    lambda done: self.watcher.moved(done, contents.to_move),
                )
                report.archive_bytes = write_archive(
                    content, self.site.tape, report.tape_block, grain, self._keep,
                    report.archive_bytes,
                )  # fmt: skip
            self.site.tape.write_filemarks()
        except ScsiError as error:
            if is_end_of_tape(error):
                raise OutOfTape(FULL) from error
            raise

    def _keep(self, digest: Digest) -> None:
        if len(digest.sha256) != DIGEST_LENGTH:
            raise BackupError(f"the copy manager held {len(digest.sha256)} bytes as a digest")
        self.entry.add_digest(digest)
        self.report.digests += 1

    def _body(self, contents: Contents, writer: ArchiveWriter) -> Iterator[Piece]:
        """Yield the archive up to its catalog, which begins with a tape block: so that all that
        precedes it can be written before it is made, and the digests of that are in it.
        """
        yield from writer.begin(archive_facts(self.entry.backup))
        batch: list[Member] = []
        for member, pieces in contents.parts(writer):
            yield from pieces
            self._count(member)
            batch.append(member)
            if len(batch) == _BATCH:
                self.entry.add_members(batch)
                batch = []
        self.entry.add_members(batch)
        self.entry.add_members(contents.inside())
        yield from writer.fill(self.request.tape_block)

    def _tail(self, writer: ArchiveWriter) -> Iterator[Piece]:
        """Yield the catalog, and what ends an archive."""
        packed = pack(self.catalog, self.entry.backup)
        member, pieces = put_catalog(writer, self.report.backup, packed, self._now)
        yield from pieces
        self.entry.add_member(member)
        yield from writer.end()

    def _count(self, member: Member) -> None:
        report = self.report
        report.members += 1
        if member.kind is Kind.CATALOG:
            return
        report.content_bytes += sum(each.length for each in member.data)
        report.server_bytes += member.server_bytes
        if member.reason is not None:
            why = member.reason.value
            report.server_reasons[why] = report.server_reasons.get(why, 0) + member.server_bytes
        if member.damage:
            name = f"{member.path}:{member.stream}" if member.stream else member.path
            report.warnings.append(f"{name}: {member.damage}")

    # ------------------------------------------------------------------ the end

    def check_end(self) -> None:
        """Everything is on tape, and the file is where it was meant to be."""
        end = self.place.first_block + self.report.blocks + 1  # the filemark
        expect_position(self.site.tape, self.place, end)

    def finish(self) -> None:
        """Make the backup one to restore from."""
        report = self.report
        report.state = "done"
        self._count_sockets()
        for warning in report.warnings:
            self.entry.warn(warning)
        self.entry.finish(report.facts(), blocks=report.blocks, size=report.archive_bytes)

    def _count_sockets(self) -> None:
        meter = self.site.meter
        self.report.socket_bytes = meter.sent + meter.received
        self.report.seconds = time.monotonic() - self._started


def archive_facts(backup: Backup) -> dict[str, object]:
    """What an archive says of itself in its first header, should all else of it be lost."""
    facts = backup.facts
    return {
        "id": backup.id,
        "uuid": backup.uuid,
        "name": facts.name,
        "mode": facts.mode.value,
        "created": facts.created,
        "tape_block": facts.tape_block,
        "disk_designator": facts.disk_designator,
        "disk_size": facts.disk_size,
        "consistency": facts.consistency,
        "generation": facts.generation,
        "parent": facts.parent,
        "volume": None if facts.volume is None else asdict(facts.volume),
    }
