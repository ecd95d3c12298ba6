"""Files into an NTFS volume, of any size and cluster size, their content past the server.

1. A shadow of the volume's metadata is made here; all that follows until 5 changes only that.
2. NTFS-3G creates names and streams in it and gives the streams clusters.
3. Those clusters, free on the volume, are filled: by the copy manager from the tape.
4. Valid lengths, attributes, times: the shadow is what the volume is to be.
5. What has changed goes to the volume, in an order that forgives a crash (`writeback`).

Whatever happens before 5, the volume is as it was, in all that it uses.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from serverfree.backup.files import File, Stream
from serverfree.backup.ntfs.clusters import compressed
from serverfree.backup.ntfs.mft import MasterFileTable
from serverfree.backup.ntfs.volume import Volume
from serverfree.backup.pieces import ToDisk
from serverfree.backup.restore.allocation import Allocator
from serverfree.backup.restore.archive_bytes import ArchiveBytes
from serverfree.backup.restore.colons import StandIns
from serverfree.backup.restore.creation import Created, Work, create, write_stream
from serverfree.backup.restore.finishing import finish, remove, times_of
from serverfree.backup.restore.mover import Lost, Mover
from serverfree.backup.restore.placement import Placement, place_stream
from serverfree.backup.restore.ranges import Ranges
from serverfree.backup.restore.records import Changes, change_records
from serverfree.backup.restore.report import RestoreReport
from serverfree.backup.restore.shadow import PIECE, Shadow
from serverfree.backup.restore.target import Target, TargetPart
from serverfree.backup.restore.volume_layout import layout_of
from serverfree.backup.restore.wanted import RestoreError, WantedFile, WantedStream
from serverfree.backup.restore.workshop import NoSpace, Workshop, restore_folder
from serverfree.backup.restore.writeback import Layout, Phase, write_back

_HIBERNATION, _ASLEEP = "hiberfil.sys", b"hibr"
_COMPRESSED = 0x0800  # of ntfs_attrib


@dataclass(frozen=True, slots=True)
class Wishes:
    """How files are to be restored. `step` hears what is being done, for people and for tests.

    `prove`: read again what has been written of the metadata.
    """

    overwrite: bool = False
    prove: bool = False
    force: bool = False
    step: Callable[[str], None] = lambda what: None


def restore_files(
    disk: Target,
    start: int,
    wanted: Sequence[WantedFile],
    archive: ArchiveBytes,
    mover: Mover,
    report: RestoreReport,
    wishes: Wishes,
) -> None:
    """Restore files into the volume that begins at byte `start` of a disk.

    Raises RestoreError, NtfsError, and what the disk and the mover raise; the volume is as it was
    then, unless the message says otherwise.
    """
    with restore_folder(report.warnings) as folder:
        _Restore(folder, disk, start, archive, mover, report, wishes).run(wanted)


class _Restore:
    def __init__(
        self,
        folder: Path,
        disk: Target,
        start: int,
        archive: ArchiveBytes,
        mover: Mover,
        report: RestoreReport,
        wishes: Wishes,
    ) -> None:
        self._folder, self._disk, self._start = folder, disk, start
        self._archive, self._mover = archive, mover
        self._report, self._wishes = report, wishes
        self._stand_ins = StandIns()
        volume = Volume.open(disk, start)
        refuse_unclean(volume, force=wishes.force)
        self._boot = volume.boot
        self._metadata = volume.metadata()
        self._target = TargetPart(disk, start, min(volume.boot.size, disk.size - start))

    def run(self, wanted: Sequence[WantedFile]) -> None:
        step = self._wishes.step
        wanted = self._stand_ins.take(wanted)
        workshop = Workshop(self._folder / "shadow", self._boot.cluster_size)
        step("copying the volume's metadata")
        with Shadow(self._folder, self._target, self._metadata, self._boot.cluster_size) as shadow:
            self._report.metadata_read += shadow.copied
            before = Volume.open(shadow)
            used = Ranges(before.used())
            self._check_room(before, wanted)
            self._stand_ins.require_free(before)
            step("creating files")
            allocator = Allocator(workshop, self._boot.cluster_size)
            created = self._create(workshop, allocator, wanted)
            step("allocating clusters")
            allocator.later(*_options(self._wishes))
            found = _find(shadow, {work.path for work in created.works})
            placement, resident = self._place(created.works, found)
            self._check_free(placement, used)
            step("moving content")
            lost = self._fill(placement)
            given_up = self._give_up(created, found, lost) if lost else []
            step("finishing metadata")
            ours = self._complete(workshop, shadow, created, found, resident, given_up)
            step("writing metadata")
            layout = layout_of(shadow, used, ours)
            written = write_back(shadow, self._target, layout, self._phase)
            if self._wishes.prove:
                self._prove(shadow, layout)
            # What is in the shadow of content was counted when it was brought.
            self._report.metadata_written += written - sum(length for _, length in ours)
        self._report.skipped += self._stand_ins.told(created.skipped)
        self._count(created.works)

    def _prove(self, shadow: Shadow, layout: Layout) -> None:
        """Hold the volume against the shadow."""
        for place, total in layout.written.all:
            for at in range(place, place + total, PIECE):
                size = min(PIECE, place + total - at)
                if self._target.read_at(at, size) != shadow.read_at(at, size):
                    raise RestoreError(f"the metadata at {at} is not what was written")

    def _phase(self, phase: Phase) -> None:
        self._wishes.step(f"writing metadata: {phase.name.lower()}")

    # ------------------------------------------------------------------ names and clusters

    def _check_room(self, volume: Volume, wanted: Sequence[WantedFile]) -> None:
        """Refuse early what cannot fit."""
        cluster = self._boot.cluster_size
        taken = sum(length for _, length in volume.used())
        free = self._boot.size - taken
        needed = sum(
            -(-piece.length // cluster) * cluster
            for file in wanted
            for stream in file.streams
            for piece in stream.data()
        )
        if needed > free:
            raise NoSpace(f"the volume has {free} bytes free, at least {needed} are needed")

    def _create(
        self, workshop: Workshop, allocator: Allocator, wanted: Sequence[WantedFile]
    ) -> Created:
        with workshop.mounted(*_options(self._wishes)) as mounted:
            return create(
                mounted, wanted, self._content, allocator.now, overwrite=self._wishes.overwrite
            )

    def _content(self, stream: WantedStream) -> bytes | None:
        """Bring what cannot be copied as blocks: it is small, or has to be decompressed."""
        if stream.content is not None:
            self._report.through_server("resident", len(stream.content))
            return stream.content
        if not stream.compression_unit:
            return None
        plain = Stream(
            stream.name,
            stream.size,
            stream.valid,
            extents=tuple(self._archive.extents(stream.pieces)),
            compressed=True,
            compression_unit=stream.compression_unit,
        )
        data = b"".join(compressed(self._archive, plain))
        self._report.through_server("compressed", len(data))
        return data

    # ------------------------------------------------------------------ content

    def _place(
        self, works: Sequence[Work], found: dict[str, File]
    ) -> tuple[Placement, list[tuple[Work, WantedStream]]]:
        """Say what goes where, and which streams lie in their file's record here."""
        placement = Placement()
        resident = []
        for work in works:
            streams = {each.name: each for each in _record_of(found, work).streams}
            for stream in work.streams:
                there = streams.get(stream.name)
                if there is None or there.size != stream.size:
                    size = None if there is None else there.size
                    raise RestoreError(
                        f"{work.path}: stream {stream.name!r} has {size} bytes in the shadow, "
                        f"not {stream.size}"
                    )
                if there.resident is not None:
                    resident.append((work, stream))
                    continue
                valid = valid_length(stream)
                place_stream(
                    stream.data(), there.extents, valid, self._disk.block_length, placement
                )
        return placement, resident

    def _check_free(self, placement: Placement, used: Ranges) -> None:
        """Hold every byte that is to be written against what the volume uses."""
        for place, length in placement.zeros:
            if used.meets(place, length):
                raise RestoreError(f"the clusters at {place} are in use: nothing was written")
        for move in placement.moves:
            if used.meets(move.place, move.length):
                raise RestoreError(f"the clusters at {move.place} are in use: nothing was written")

    def _fill(self, placement: Placement) -> Sequence[Lost]:
        started = time.monotonic()
        for place, length in placement.zeros:
            self._target.zero(place, length)
        moves = [
            ToDisk(move.archive_offset, move.length, self._start + move.place)
            for move in placement.moves
        ]
        moves.sort(key=lambda piece: piece.archive_offset)
        lost = self._mover.move(moves) if moves else []
        # The content is on stable storage before any metadata leads to it.
        self._target.flush()
        self._report.extents += len(moves)
        self._report.moving_seconds += time.monotonic() - started
        return lost

    def _give_up(
        self, created: Created, found: dict[str, File], lost: Sequence[Lost]
    ) -> list[Work]:
        """Take off the list, and return, what lacks content that the tape does not give."""
        given_up, rest = [], []
        for work in created.works:
            places = Ranges(
                (self._start + extent.place, extent.length)
                for stream in _record_of(found, work).streams
                for extent in stream.extents
            )
            hit = [each for each in lost if places.meets(each.piece.offset, each.piece.length)]
            if hit and not work.file.is_directory:
                given_up.append(work)
                created.skipped.append(f"{work.file.path}: {hit[0].why}")
            else:
                rest.append(work)
                if hit:
                    created.skipped.append(f"{work.file.path}: a stream of it: {hit[0].why}")
        created.works = rest
        return given_up

    # ------------------------------------------------------------------ metadata

    def _complete(
        self,
        workshop: Workshop,
        shadow: Shadow,
        created: Created,
        found: dict[str, File],
        resident: Sequence[tuple[Work, WantedStream]],
        given_up: Sequence[Work],
    ) -> list[tuple[int, int]]:
        """Make the shadow what the volume is to be; return the clusters of content in it."""
        numbers = {work.path: found[work.path].number for work in created.works if work.path}
        changes = Changes()
        small = {(id(work), stream.name) for work, stream in resident}
        for work in created.works:
            for stream in work.streams:
                if stream.size and (id(work), stream.name) not in small:
                    changes.valid[numbers[work.path], stream.name] = valid_length(stream)
        self._change(shadow, changes)
        at_work = [(work, numbers.get(work.path)) for work in created.works]
        with workshop.mounted("permissions", *_options(self._wishes)) as mounted:
            remove(mounted, given_up)
            gone = {id(work) for work in given_up}
            for work, stream in resident:
                if id(work) in gone:
                    continue
                data = self._archive.content(stream)
                self._report.through_server("resident at the target", len(data))
                write_stream(mounted, work.path, stream.name, data)
            overwrite = self._wishes.overwrite
            failed = finish(mounted, created.works, overwrite=overwrite)
            self._report.warnings += self._stand_ins.told(failed)
        self._stand_ins.give_names(workshop, *_options(self._wishes))
        for work in created.works:
            work.path = self._stand_ins.own(work.path)
        changes = Changes()
        for work, number in at_work:
            times = times_of(work)
            if number is not None and times and (overwrite or not work.was_there):
                changes.times[number] = times
        self._change(shadow, changes)
        return self._check_unmoved(shadow, created.works, found)

    def _change(self, shadow: Shadow, changes: Changes) -> None:
        extents = MasterFileTable(shadow, self._boot).extents
        change_records(shadow, extents, self._boot.record_size, changes)

    def _check_unmoved(
        self, shadow: Shadow, works: Sequence[Work], found: dict[str, File]
    ) -> list[tuple[int, int]]:
        """See that each stream still has the clusters that were filled, and its valid length.

        Return the clusters of those that were written into the shadow.
        """
        before = {file.number: file for file in found.values()}
        now = _find(shadow, {work.path for work in works})
        ours: list[tuple[int, int]] = []
        for work in works:
            file = _record_of(now, work)
            copied = {stream.name: stream for stream in work.streams}
            had = {each.name: each for each in before[file.number].streams}
            for new in file.streams:
                stream = copied.pop(new.name, None)
                if stream is None:
                    if any(each.name == new.name for each in work.file.streams):
                        ours += [(each.place, each.length) for each in new.extents]
                    continue
                if new.size != stream.size or new.extents != had[new.name].extents:
                    raise RestoreError(f"{work.path}: stream {stream.name!r} was moved")
                if new.resident is None and stream.size and new.valid != valid_length(stream):
                    raise RestoreError(f"{work.path}: stream {stream.name!r} is not all valid")
            if copied:
                raise RestoreError(f"{work.path}: stream {next(iter(copied))!r} is gone")
        return ours

    def _count(self, works: Sequence[Work]) -> None:
        report = self._report
        compressed_files = 0
        for work in works:
            flags = int.from_bytes(work.file.attributes.get("ntfs_attrib", b"")[:4], "little")
            compressed_files += bool(flags & _COMPRESSED) and not work.file.is_directory
            if work.file.is_directory:
                report.directories += 1
            else:
                report.files += 1
            report.streams += len(work.file.streams)
            for stream in work.file.streams:
                if stream.content is not None or stream.compression_unit:
                    report.content_bytes += stream.size
                else:
                    report.content_bytes += sum(piece.length for piece in stream.data())
        if compressed_files:
            report.warnings.append(
                f"{compressed_files} files that were compressed are not any more: what they hold "
                "is the same, compact /c compresses them again"
            )


def valid_length(stream: WantedStream) -> int:
    """Return how far a stream is content: to the end of its last piece."""
    pieces = stream.data()
    return pieces[-1].start + pieces[-1].length if pieces else 0


def refuse_unclean(volume: Volume, *, force: bool) -> None:
    """Raise RestoreError for a volume that is marked dirty, or that a sleeping Windows has in its
    memory, unless forced.
    """
    if force:
        return
    if volume.facts.dirty:
        raise RestoreError(
            "the volume is marked dirty: have it checked (chkdsk, or ntfsfix -d), or use --force"
        )
    for file in volume.files():
        if any(path.lower() == _HIBERNATION for path in file.paths):
            for stream in file.streams:
                start = b"" if stream.name else next(volume.read_stream(file, stream), b"")
                if start[:4].lower() == _ASLEEP:
                    raise RestoreError(
                        "Windows is hibernated on the volume, or was shut down with fast startup: "
                        "shut it down fully, or use --force"
                    )


def _options(wishes: Wishes) -> tuple[str, ...]:
    # An unclean log means that a host was cut off from the volume, or still has it.
    return () if wishes.force else ("norecover",)


def _find(shadow: Shadow, paths: set[str]) -> dict[str, File]:
    """Return the files of the shadow that have these paths."""
    found: dict[str, File] = {}
    volume = Volume.open(shadow)
    for file in volume.files():
        for path in file.paths:
            if path in paths:
                found[path] = file
    if "" in paths:
        found[""] = volume.root
    return found


def _record_of(found: dict[str, File], work: Work) -> File:
    file = found.get(work.path)
    if file is None:
        raise RestoreError(f"{work.path}: not in the shadow, where it was made")
    return file
