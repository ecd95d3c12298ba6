"""What lies on a cartridge, found from the cartridge alone, and entered into a catalog.

An archive of ours ends with its own catalog: two or three blocks tell what is in a file. Where
that is damaged or was never written, and of archives of others, the headers are read one by one,
and the tape is located past the content between them. Where a header is damaged the next one is
searched for, as tar does; what is found behind may be content that looks like headers.

Nothing is written to the tape.
"""

import io
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from typing import Any, BinaryIO, cast
from uuid import NAMESPACE_OID, UUID, uuid5

from serverfree.backup.archive.header import parse_header
from serverfree.backup.archive.member import ArchiveError, Data, Kind, Member
from serverfree.backup.archive.pax import BLOCK, END
from serverfree.backup.archive.read import ArchiveReader
from serverfree.backup.cartridge import foreign_uuid, uuid_said
from serverfree.backup.catalog import packed, rows
from serverfree.backup.catalog.facts import (
    Backup,
    BackupFacts,
    BackupNotFound,
    CatalogError,
    Mode,
    State,
)
from serverfree.backup.catalog.image_map import members_of_image
from serverfree.backup.catalog.store import Catalog, Writer
from serverfree.backup.catalog.tape_archive import TapeArchive, Unreadable
from serverfree.backup.ntfs.errors import NtfsError
from serverfree.backup.ntfs.volume import Volume
from serverfree.backup.tape_file import cartridge_serial
from serverfree.initiator.tape import Stop, Tape
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.sense import SenseKey

_LAST_BLOCKS = 4  # how many blocks of zeros may follow a trailer
_MOST_DAMAGE = 1000  # places in one file; more is no archive any more
_LARGEST = (1 << 63) - 1
_BATCH = 1000
_LONGEST_TEXT = 4096


@dataclass(slots=True)
class TapeFile:
    """A file of the cartridge: where it is, what it is, how that was found."""

    partition: int
    number: int
    first_block: int
    blocks: int
    how: str = "nothing"
    """`catalog`: by the catalog in it; `headers`: by reading these; `known`: the catalog has it;
    `nothing`: no archive.
    """
    backup: Backup | None = None
    members: int = 0
    remarks: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


def scan(
    tape: Tape,
    catalog: Catalog,
    *,
    tape_url: str = "",
    partition: int | None = None,
    watch: Callable[[str], None] = lambda text: None,
) -> Iterator[TapeFile]:
    """Yield the files of the cartridge, each when it is in the catalog; rewind in the end.

    Raises ScsiError for what is no matter of the medium.
    """
    medium, drive = cartridge_serial(tape), _drive_serial(tape)
    buffer = memoryview(bytearray(tape.block_limits().maximum or (1 << 24) - 1))
    if partition is not None:
        tape.locate(0, partition)
    tape.rewind()
    try:
        number = 0
        while (found := _next_file(tape, number, buffer)) is not None:
            watch(f"file {number}: {found.blocks} blocks from block {found.first_block} on")
            if found.blocks:
                place = {
                    "tape_url": tape_url,
                    "medium_serial": medium,
                    "drive_serial": drive,
                    "partition": found.partition,
                    "file": number,
                    "first_block": found.first_block,
                }
                _Examination(tape, catalog, found, buffer, place).run()
            yield found
            end = found.first_block + found.blocks
            if not _continue_behind(tape, end, found):
                return
            number += 1
    finally:
        tape.rewind()


def _drive_serial(tape: Tape) -> str:
    with suppress(CheckCondition, ValueError):
        return tape.vpd(0x80)[4:].decode("ascii", "replace").strip(" \0")
    return ""


def _next_file(tape: Tape, number: int, buffer: memoryview) -> TapeFile | None:
    """Return the file that begins where the tape stands, None at the end of data."""
    place = tape.position()
    found = TapeFile(place.partition, number, place.block, 0)
    try:
        first = tape.read_block(buffer)
    except CheckCondition as error:
        if error.sense.key is not SenseKey.MEDIUM_ERROR:
            raise
        first = None  # what it is will be seen; the filemark behind it counts here
    except ValueError:
        first = None
    if first is Stop.FILEMARK:
        return found
    if isinstance(first, Stop):
        return None
    stop = tape.space_filemarks(1)
    end = tape.position().block
    if stop is None:
        found.blocks = max(end - 1 - place.block, 0)
    else:
        found.blocks = max(end - place.block, 0)
        found.damage.append("no filemark ends it: its writing was broken off")
    return found


def _continue_behind(tape: Tape, end: int, found: TapeFile) -> bool:
    """Go behind the filemark at block `end`; False where there is nothing more."""
    try:
        tape.locate(end)
        if tape.space_filemarks(1) is not None:
            return False
        if tape.position().block <= end:
            found.damage.append("what follows cannot be reached: the drive does not move on")
            return False
        return True
    except CheckCondition as error:
        if error.sense.key is not SenseKey.MEDIUM_ERROR:
            raise
        found.damage.append(f"what follows cannot be reached: {error.sense}")
        return False


class _Examination:
    """One file of a cartridge on its way into the catalog."""

    def __init__(
        self,
        tape: Tape,
        catalog: Catalog,
        found: TapeFile,
        buffer: memoryview,
        place: dict[str, Any],
    ) -> None:
        self._catalog, self._found, self._place = catalog, found, place
        self._archive = TapeArchive(tape, found.first_block, found.blocks, buffer)
        self._place["tape_block"] = self._archive.tape_block

    def run(self) -> None:
        """Find out what the file is, by the quickest way that works."""
        found = self._found
        if self._archive.broken:
            self._damaged(self._archive.broken)
            return
        if not self._archive.tape_block:
            found.remarks.append("its blocks have different lengths: only tar can restore from it")
        said, first = self._header()
        trailer = self._trailer()
        uuid = trailer[0].uuid if trailer else uuid_said(said)
        if trailer and said is not None and uuid_said(said) not in ("", uuid):
            found.damage.append("its header and its catalog are of different backups")
        if uuid and self._is_known(uuid):
            return
        if trailer and self._enter_packed(*trailer):
            return
        # Of a backup that failed the catalog knows more than the headers tell.
        if uuid and self._is_known(uuid, whole=False):
            return
        if first is not None and not _is_header(first):
            if not found.damage:
                found.remarks.append("no archive")
            return
        facts = self._facts(said, first or b"")
        if not self._is_known(facts.uuid, whole=False):
            self._walk(facts, ours=said is not None)

    def _header(self) -> tuple[dict[str, Any] | None, bytes | None]:
        """Return what the archive says of itself, and its first bytes, None if unreadable."""
        try:
            first = self._archive.read(0, BLOCK)
            reader = ArchiveReader(self._archive.read)
            next(reader.members(), None)
        except (Unreadable, ArchiveError) as why:
            if isinstance(why, Unreadable):
                self._damaged(str(why))
                return None, None
            return None, first
        return reader.facts, first

    def _is_known(self, uuid: str, *, whole: bool = True) -> bool:
        try:
            backup = self._catalog.backup(uuid[:8])
        except BackupNotFound:
            return False
        if backup.uuid != uuid:
            self._damaged(f"its id is that of another backup, {backup.uuid}")
        elif whole and backup.state not in (State.DONE, State.RUNNING):
            return False
        self._found.how, self._found.backup = "known", backup
        self._found.members = self._catalog.count(backup)
        return True

    # ------------------------------------------------------------------ by its own catalog

    def _trailer(self) -> tuple[packed.Trailer, int] | None:
        """Return the trailer of the catalog that ends the archive, and where it lies."""
        archive = self._archive
        if not archive.tape_block or archive.tape_block % BLOCK:
            return None
        for index in range(archive.blocks - 1, max(archive.blocks - 1 - _LAST_BLOCKS, -1), -1):
            start = index * archive.tape_block
            try:
                data = archive.read(start, archive.tape_block).rstrip(b"\0")
            except Unreadable as why:
                self._damaged(str(why))
                continue
            if data:
                at = (len(data) - 1) // BLOCK * BLOCK
                trailer = packed.Trailer.unpack(data[at : at + BLOCK].ljust(BLOCK, b"\0"))
                return (trailer, start + at) if trailer else None
        return None

    def _enter_packed(self, trailer: packed.Trailer, at: int) -> bool:
        """Enter the catalog that is on the tape; False if that cannot be."""
        end = at + packed.TRAILER
        start = end - trailer.length
        if start < 0:
            self._damaged("its catalog is longer than the archive")
            return False
        size = end + len(END)
        place = self._place | {"blocks": self._found.blocks, "size": size}
        try:
            source = cast(BinaryIO, _Stream(self._archive, start, trailer.compressed))
            backup = packed.enter(self._catalog, source, trailer, **place)
        except (packed.Damaged, Unreadable) as why:
            self._damaged(f"its catalog is of no use, so its headers are read: {why}")
            return False
        except CatalogError as why:
            self._found.remarks.append(f"its headers are read: {why}")
            return False
        self._found.how, self._found.backup = "catalog", backup
        self._found.members = self._catalog.count(backup)
        return True

    # ------------------------------------------------------------------ by its headers

    def _facts(self, said: dict[str, Any] | None, first: bytes) -> BackupFacts:
        """Return what is known of the archive before its members are."""
        if said is not None:
            facts, wrong = _facts_from(said)
            self._found.remarks += [f"its header says no right {name}" for name in wrong]
        else:
            serial = self._place["medium_serial"]
            uuid = foreign_uuid(serial, self._found.partition, self._found.first_block, first)
            name = f"file {self._found.number} of {self._place['medium_serial'] or 'a tape'}"
            facts = BackupFacts(name=name, mode=Mode.FOREIGN, created=time.time_ns(), uuid=uuid)
        block = self._place["tape_block"]
        if said is not None and facts.tape_block != block:
            self._found.remarks.append(
                f"its header says blocks of {facts.tape_block} bytes, they have {block}"
            )
        return replace(facts, **self._place)

    def _walk(self, facts: BackupFacts, *, ours: bool) -> None:
        """Enter what the headers tell."""
        found = self._found
        with self._catalog.begin(facts) as writer:
            reader = ArchiveReader(self._archive.read)
            images: list[Member] = []
            newest = 0
            batch: list[Member] = []
            for member in self._members(reader):
                found.members += 1
                newest = max(newest, member.modified)
                batch.append(member)
                if member.kind is Kind.IMAGE:
                    images.append(member)
                if len(batch) >= _BATCH:
                    writer.add_members(batch)
                    batch = []
            writer.add_members(batch)
            for image in images:
                self._look_inside(image, facts, writer)
            if not ours and newest:
                writer.note(created=newest)
            self._end(writer, reader, ours=ours)
            found.how, found.backup = "headers", writer.backup

    def _end(self, writer: Writer, reader: ArchiveReader, *, ours: bool) -> None:
        if self._archive.broken:
            self._damaged(self._archive.broken)
        if not reader.complete:
            self._damaged(f"it is cut short at byte {reader.offset}")
        for text in [*self._found.remarks, *self._found.damage]:
            writer.warn(text)
        report = {"found_by": "scan", "members": self._found.members}
        if reader.complete or not ours:
            size = min(reader.offset + len(END), self._archive.length)
            writer.finish(report, blocks=self._found.blocks, size=size)
        else:
            writer.fail("what lies on the tape is no whole backup", report)

    def _members(self, reader: ArchiveReader) -> Iterator[Member]:
        """Yield members over damaged places, each held against the end of the file."""
        length = self._archive.length
        for _ in range(_MOST_DAMAGE):
            try:
                for member in reader.members():
                    yield _within(member, length)
                return
            except Unreadable as why:
                self._damaged(str(why))
                at = max(why.end, reader.offset + BLOCK)
            except ArchiveError as why:
                self._damaged(str(why))
                at = reader.offset + BLOCK
            reader.offset = self._next_header(at, length)
            self._damaged(f"members are found again from byte {reader.offset} on")
        self._damaged("it has so much damage that the rest is left out")

    def _next_header(self, at: int, length: int) -> int:
        """Return where the next header may be, the end of the file if there is none."""
        at = -(-at // BLOCK) * BLOCK
        while at < length:
            try:
                block = self._archive.read(at, BLOCK)
            except Unreadable as why:
                self._damaged(str(why))
                at = max(-(-why.end // BLOCK) * BLOCK, at + BLOCK)
                continue
            if _is_header(block):
                return at
            at += BLOCK
        return length

    def _look_inside(self, image: Member, facts: BackupFacts, writer: Writer) -> None:
        """Enter the files inside an image, from its own file system as it lies on the tape."""
        if facts.parent:
            self._found.remarks.append(
                "the files inside an image of changes are only in the catalog that was lost"
            )
            return  # their file system lies in several archives
        if facts.volume is None:
            return
        try:
            disk = _ImageOnTape(self._archive, image)
            volume = Volume.open(disk, facts.volume.start)
            writer.add_members(members_of_image(volume.files(), image.data, facts.volume.start))
            for each in volume.damage:
                self._damaged(f"in the image, file record {each.number}: {each.why}")
        except (NtfsError, Unreadable, ValueError) as why:
            self._damaged(f"the files inside the image cannot be listed: {why}")

    def _damaged(self, text: str) -> None:
        if text not in self._found.damage and len(self._found.damage) < _MOST_DAMAGE:
            self._found.damage.append(text)


class _Stream(io.RawIOBase):
    """A range of an archive as a file."""

    def __init__(self, archive: TapeArchive, start: int, length: int) -> None:
        self._archive, self._at, self._end = archive, start, start + length

    def read(self, size: int = -1) -> bytes:
        left = self._end - self._at
        data = self._archive.read(self._at, left if size < 0 else min(size, left))
        self._at += len(data)
        return data


class _ImageOnTape:
    """A disk as its image on the tape has it; what the image leaves out is zeros."""

    block_length = BLOCK

    def __init__(self, archive: TapeArchive, image: Member) -> None:
        self._archive, self.size = archive, image.size
        self._data = sorted(image.data, key=lambda each: each.start)
        self._starts = [each.start for each in self._data]

    def read_at(self, offset: int, length: int) -> bytes:
        """See Device."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError(f"bytes {offset} to {offset + length} of an image of {self.size}")
        read = bytearray(length)
        first = max(bisect_right(self._starts, offset) - 1, 0)
        for each in islice(self._data, first, None):
            if each.start >= offset + length:
                break
            low, high = max(each.start, offset), min(each.start + each.length, offset + length)
            if low < high:
                part = self._archive.read(each.archive_offset + low - each.start, high - low)
                read[low - offset : low - offset + len(part)] = part
        return bytes(read)


def _is_header(block: bytes) -> bool:
    if len(block) < BLOCK or not block.strip(b"\0"):
        return False
    try:
        parse_header(block)
    except ArchiveError:
        return False
    return True


def _within(member: Member, length: int) -> Member:
    """Hold a member against the end of the file, and its numbers against what a catalog keeps."""
    if not -_LARGEST <= member.modified <= _LARGEST:
        member.modified = 0
    numbers = (member.number, member.sequence)
    if any(number is not None and not 0 <= number <= _LARGEST for number in numbers):
        member.number = member.sequence = None
    if member.end_offset > length:
        member.damage = member.damage or "cut short"
        member.end_offset = length
        member.data = tuple(
            Data(each.start, min(each.length, length - each.archive_offset), each.archive_offset)
            for each in member.data
            if each.archive_offset < length
        )
    return member


def _facts_from(said: dict[str, Any]) -> tuple[BackupFacts, list[str]]:
    """Return facts from a header that anyone may have written, and the names of the wrong ones."""
    facts: dict[str, Any] = {"name": "", "mode": Mode.FOREIGN, "created": time.time_ns()}
    wrong = []
    for each in fields(BackupFacts):
        value = said.get(each.name)
        if value is None:
            continue
        try:
            facts[each.name] = _checked(each.name, value)
        except (ValueError, TypeError, AttributeError):
            wrong.append(each.name)
    if "uuid" not in facts:
        # Without a name of its own it gets one that it will have again.
        facts["uuid"] = str(uuid5(NAMESPACE_OID, repr(sorted(said.items(), key=str))))
    return BackupFacts(**facts), wrong


def _checked(name: str, value: Any) -> Any:
    if name == "uuid":
        return str(UUID(value))
    if name == "mode":
        return Mode(value)
    if name == "volume":
        return rows.volume_of(value)
    number = name in _NUMBERS
    if number and type(value) is int and 0 <= value <= _LARGEST:
        return value
    if not number and isinstance(value, str) and len(value) <= _LONGEST_TEXT:
        return value
    raise ValueError(name)


_NUMBERS = {"created", "partition", "file", "first_block", "tape_block", "disk_size", "generation"}
