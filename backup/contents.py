"""What a backup holds: the file system read, files chosen, members in the order of the tape."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from serverfree.backup.archive.files import FileMembers, in_tape_order
from serverfree.backup.archive.image import Extents, changed_extents, disk_extents, put_image
from serverfree.backup.archive.member import Member
from serverfree.backup.archive.writer import ArchiveWriter
from serverfree.backup.catalog.facts import Mode
from serverfree.backup.catalog.image_map import members_of_image
from serverfree.backup.copying import one_line
from serverfree.backup.device import Device
from serverfree.backup.errors import BackupError
from serverfree.backup.files import Damage, File, VolumeFacts
from serverfree.backup.ntfs.errors import NtfsError
from serverfree.backup.ntfs.volume import Volume
from serverfree.backup.partitions import PartitionError, partitions
from serverfree.backup.pieces import Piece
from serverfree.backup.select import Selection

Part = tuple[Member, Iterator[Piece]]
"""A member and its pieces, to be used up before the next is asked for."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What to take of a disk. `partition` counts from 1; None: the only NTFS volume there is, of
    an image all of them."""

    mode: Mode = Mode.IMAGE
    paths: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    partition: int | None = None
    name: str = ""


class NoVolume(BackupError):
    """There is no NTFS volume on the disk that could be read."""


class Contents(Protocol):
    """What a disk gives, read once. Without a `volume` it is of no single one."""

    volume: VolumeFacts | None
    remarks: list[str]
    """What has to be known about it, for the report."""

    @property
    def to_move(self) -> int:
        """Bytes that will go from the disk to the tape."""

    @property
    def extents(self) -> int:
        """In how many stretches of the disk they lie."""

    def parts(self, writer: ArchiveWriter) -> Iterator[Part]:
        """Yield the members with their pieces."""

    def inside(self) -> Iterator[Member]:
        """Yield what the catalog has beside the members: the files inside an image."""

    @property
    def skipped(self) -> list[str]:
        """What could not be had, known when the parts have been used up."""


def read_contents(
    device: Device, wish: Wish, changes: Extents | None = None, modified: int = 0
) -> Contents:
    """Read the file system of a disk and choose. `changes` are those of the disk since a parent,
    None for everything. Raises BackupError.
    """
    if wish.mode is Mode.FILES:
        volume = _volume(device, wish.partition)
        return _Files(volume, _files(volume), wish)
    if wish.paths or wish.excludes:
        raise BackupError("an image holds all of a disk: paths are for --mode files")
    image = _Image(device, wish.name, modified)
    _take(image, device, wish.partition)
    if changes is not None:
        image.keep(changes)
    return image


def _take(image: "_Image", device: Device, partition: int | None) -> None:
    """Take every volume there is, and the files of the one that is named, or is the only one."""
    try:
        starts = volume_starts(device)
        several = partition is None and len(starts) > 1
        mapped = None if several else _volume(device, partition)
    except NoVolume as why:
        if partition is not None:
            raise
        image.take_blocks(one_line(why))
        return
    image.take_volumes({each: Volume.open(device, starts[each]) for each in starts})
    if mapped is not None:
        image.map_files(mapped)
    else:
        image.remarks.append(
            f"an image of {len(starts)} NTFS volumes (partitions {', '.join(map(str, starts))}): "
            "no single file can be restored from it; with --partition N those of that volume can, "
            "and with --mode files they are backed up one by one"
        )


def _volume(device: Device, partition: int | None) -> Volume:
    try:
        return Volume.open(device, volume_start(device, partition))
    except NtfsError as why:
        raise NoVolume(f"the file system cannot be read: {why}") from why


def _files(volume: Volume) -> list[File]:
    try:
        return list(volume.files())
    except NtfsError as why:
        raise BackupError(f"the file system cannot be read: {why}") from why


def volume_start(device: Device, partition: int | None) -> int:
    """Return where on the disk the volume begins that is to be backed up."""
    starts = volume_starts(device)
    if partition is not None:
        if starts == {0: 0}:
            raise BackupError(f"there is no partition {partition}: the disk has no partition table")
        if partition not in starts:
            raise BackupError(f"partition {partition} is no NTFS volume{_there_are(starts)}")
        return starts[partition]
    if len(starts) == 1:
        return next(iter(starts.values()))
    if not starts:
        raise NoVolume("there is no NTFS volume on the disk, in a partition or without")
    raise BackupError(f"say which --partition to back up{_there_are(starts)}")


def volume_starts(device: Device) -> dict[int, int]:
    """Return where NTFS volumes begin, by the number of their partition; 0 without partitions."""
    try:
        found = partitions(device)
    except PartitionError as why:
        raise NoVolume(f"the partition table cannot be read: {why}") from why
    if not found:
        return {0: 0}
    starts = {}
    for each in found:
        with contextlib.suppress(NtfsError):
            Volume.open(device, each.start)
            starts[each.number] = each.start
    return starts


def _there_are(starts: dict[int, int]) -> str:
    return f": NTFS is on {', '.join(map(str, starts))}" if starts else ""


class _Image:
    """The whole disk as one member: what is in use of its volumes, and all that is in none."""

    def __init__(self, device: Device, name: str, modified: int) -> None:
        self._device, self._name, self._modified = device, name, modified
        self._extents: Extents = []
        self._files: list[File] = []
        self._damage: Sequence[Damage] = ()
        self._member: Member | None = None
        self.volume: VolumeFacts | None = None
        self.remarks: list[str] = []

    def take_volumes(self, volumes: Mapping[int, Volume]) -> None:
        """Take the disk with what is in use of its volumes, by the number of their partition."""
        used = []
        for number, volume in volumes.items():
            name = f"partition {number}: " if number else ""
            self.remarks += [name + each for each in _remarks(volume)]
            try:
                used.append((volume.facts, volume.used()))
            except NtfsError as why:
                self.remarks.append(f"{name}every block of it is copied, in use or not: {why}")
        self._extents = disk_extents(used, self._device.size)

    def map_files(self, volume: Volume) -> None:
        """Have the files of a volume found in the image."""
        self._files = _files(volume)
        self.volume, self._damage = volume.facts, volume.damage

    def take_blocks(self, why: str) -> None:
        """Take every block."""
        self._extents = [(0, self._device.size)]
        self.remarks.append(
            f"{why}: every block of the disk is copied, in use or not, and no single file can be "
            "restored from this image"
        )

    def keep(self, changes: Extents) -> None:
        """Keep of all that only what has changed."""
        self._extents = changed_extents(self._extents, changes)

    @property
    def to_move(self) -> int:
        """See Contents."""
        return sum(length for _, length in self._extents)

    @property
    def extents(self) -> int:
        """See Contents."""
        return len(self._extents)

    def parts(self, writer: ArchiveWriter) -> Iterator[Part]:
        """See Contents."""
        device = self._device
        self._member, pieces = put_image(
            writer, self._name, self._extents, device.size, device.block_length, self._modified
        )
        yield self._member, pieces

    def inside(self) -> Iterator[Member]:
        """See Contents."""
        if self._member is not None and self.volume is not None:
            yield from members_of_image(self._files, self._member.data, self.volume.start)

    @property
    def skipped(self) -> list[str]:
        """See Contents: an image has everything, but not every file in it can be found."""
        return [f"not to be found inside the image: {_told(each)}" for each in self._damage]


class _Files:
    """Files and directories as members of their own."""

    def __init__(self, volume: Volume, files: list[File], wish: Wish) -> None:
        self.volume: VolumeFacts | None = volume.facts
        self.remarks = _remarks(volume)
        self._volume = volume
        selection = Selection(wish.paths, wish.excludes)
        if not wish.paths:
            files = [*files, volume.root]
        self._chosen = in_tape_order(selection.of(files))
        selection.check_all_met()
        lengths = [
            extent.length
            for file in self._chosen
            for stream in file.streams
            if stream.readable and stream.resident is None
            for extent in stream.data()
        ]
        self.to_move, self.extents = sum(lengths), len(lengths)
        self._skipped: list[Damage] = []

    def parts(self, writer: ArchiveWriter) -> Iterator[Part]:
        """See Contents."""
        members = FileMembers(writer, self._volume.facts.start, self._volume.read_stream)
        self._skipped = members.skipped
        return members.members(self._chosen)

    def inside(self) -> Iterator[Member]:
        """See Contents."""
        return iter(())

    @property
    def skipped(self) -> list[str]:
        """See Contents."""
        return [_told(each) for each in [*self._volume.damage, *self._skipped]]


def _remarks(volume: Volume) -> list[str]:
    if not volume.facts.dirty:
        return []
    return [
        "the volume is marked dirty: it was in use or not cleanly unmounted, and what its host had "
        "in memory is not in this backup"
    ]


def _told(damage: Damage) -> str:
    where = "" if damage.number is None else f"file record {damage.number}: "
    return where + damage.why
