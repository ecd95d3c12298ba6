"""The master file table: found through its own first record, read from front to end."""

import errno
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from serverfree.backup.device import Device
from serverfree.backup.files import Damage, Extent
from serverfree.backup.ntfs.attribute import (
    Attribute,
    ListEntry,
    NonResident,
    Resident,
    Type,
    attributes,
    list_entries,
)
from serverfree.backup.ntfs.boot import Boot
from serverfree.backup.ntfs.clusters import plain, whole
from serverfree.backup.ntfs.errors import NtfsError
from serverfree.backup.ntfs.record import Record, base_of, unpack_record
from serverfree.backup.ntfs.runs import Joiner, join
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.sense import SenseKey

PIECE = 4 << 20
LARGEST_LIST = 256 << 10  # bytes of an $ATTRIBUTE_LIST: a limit of NTFS
_LARGEST_BITMAP = 64 << 20  # of the $MFT, whose bits are records: half a thousand million
_MOST_DAMAGE = 10_000
_GRAIN = 4096  # bytes that are given up at once


class MasterFileTable:
    """Where the records of a volume lie."""

    def __init__(self, device: Device, boot: Boot) -> None:
        self._device, self._boot = device, boot
        self.damage: list[Damage] = []
        """What of the table itself could not be read."""
        self.first = self._first_record()
        found = list(attributes(self.first))
        found += self._extensions(found)
        pieces = [each for each in found if _is(each, Type.DATA)]
        if not pieces or isinstance(pieces[0], Resident):
            raise NtfsError("the $MFT has no clusters of its own")
        whole_runs = [piece for piece in pieces if isinstance(piece, NonResident)]
        self.extents = join(whole_runs, boot)
        base = min(whole_runs, key=lambda piece: piece.lowest)
        held = sum(extent.length for extent in self.extents)
        self.size = min(base.valid, base.size, held)
        if self.extents[-1].start + self.extents[-1].length != held:
            raise NtfsError("the $MFT has holes")
        self._bitmap = self._read_bitmap(found)

    @property
    def count(self) -> int:
        """How many records there are, used or not."""
        return self.size // self._boot.record_size

    def in_use(self, number: int) -> bool:
        """Return whether the $MFT's own bitmap has this record as used."""
        at = number >> 3
        return at < len(self._bitmap) and bool(self._bitmap[at] >> (number & 7) & 1)

    def record(self, number: int) -> Record:
        """Read one record that must be in use."""
        return self._read_record(self.extents, number)

    def read(self) -> Iterator[tuple[int, bytes]]:
        """Yield (number, records) for each piece of the table, the size of a record apart."""
        size = self._boot.record_size
        number, rest = 0, b""
        for piece in plain(
            _Patient(self._device, self.damage), self.extents, self.size, self.size, PIECE
        ):
            data = rest + piece if rest else piece
            full = len(data) - len(data) % size
            # Where a record is larger than a cluster, it may go on in the next extent.
            rest = data[full:]
            yield number, data[:full] if rest else data
            number += full // size

    def _first_record(self) -> Record:
        boot = self._boot
        try:
            return self._record_at(boot.mft * boot.cluster_size, 0)
        except NtfsError as why:
            try:
                record = self._record_at(boot.mirror * boot.cluster_size, 0)
            except NtfsError:
                raise NtfsError(f"the $MFT's own record: {why}; nor is its mirror") from why
            self.damage.append(Damage(0, f"{why}; its mirror was read"))
            return record

    def _record_at(self, place: int, number: int) -> Record:
        if place + self._boot.record_size > self._boot.backup:
            raise NtfsError(f"file record {number} lies outside of the volume")
        record = unpack_record(self._device.read_at(place, self._boot.record_size), number)
        if record is None:
            raise NtfsError(f"file record {number} is not in use")
        return record

    def _extensions(self, found: Sequence[Attribute]) -> list[Attribute]:
        """Return what the $MFT's attribute list leads to.

        A record that tells where a later part of the table lies is itself in a part that an earlier
        one told of; so the rows are followed in the order of their lowest cluster.
        """
        lists = [each for each in found if each.type == Type.ATTRIBUTE_LIST]
        if not lists:
            return []
        wanted: dict[int, ListEntry] = {}
        rows = sorted(
            list_entries(self.value(lists, LARGEST_LIST)), key=lambda row: (row.lowest, row.record)
        )
        for row in rows:
            if row.record:
                wanted.setdefault(row.record, row)
        known = Joiner(self._boot)
        for each in found:
            if _is(each, Type.DATA) and isinstance(each, NonResident):
                known.add(each)
        more: list[Attribute] = []
        for number, row in wanted.items():
            record = self._read_record(known.extents, number)
            if record.base != 0 or not record.base_sequence or record.sequence != row.sequence:
                raise NtfsError(f"record {number} does not extend the $MFT, which says so")
            for each in attributes(record):
                more.append(each)
                if _is(each, Type.DATA) and isinstance(each, NonResident):
                    known.add(each)
        return more

    def _read_record(self, extents: Sequence[Extent], number: int) -> Record:
        size = self._boot.record_size
        offset = number * size
        data = b""
        # A record that is larger than a cluster may go on in the next extent.
        for extent in extents[max(bisect_right(extents, offset, key=_start) - 1, 0) :]:
            skip = offset + len(data) - extent.start
            if not 0 <= skip < extent.length:
                break
            take = min(size - len(data), extent.length - skip)
            data += self._device.read_at(extent.place + skip, take)
            if len(data) == size:
                break
        if len(data) < size:
            raise NtfsError(f"file record {number} lies outside of the $MFT")
        record = unpack_record(data, number)
        if record is None:
            raise NtfsError(f"file record {number} is not in use")
        return record

    def _read_bitmap(self, found: Sequence[Attribute]) -> bytes:
        pieces = [each for each in found if _is(each, Type.BITMAP)]
        return self.value(pieces, _LARGEST_BITMAP) if pieces else b""

    def value(self, pieces: Sequence[Attribute], limit: int) -> bytes:
        """Return the whole value of an attribute that is metadata, wherever it lies."""
        first = pieces[0]
        if isinstance(first, Resident):
            return first.value
        runs = [piece for piece in pieces if isinstance(piece, NonResident)]
        return whole(self._device, self._boot, runs, limit)


class _Patient:
    """A device of which a part that cannot be read is zeros and damage, for the rest is wanted."""

    block_length = 512

    def __init__(self, device: Device, damage: list[Damage]) -> None:
        self._device, self._damage = device, damage
        self.size = device.size

    def read_at(self, offset: int, length: int) -> bytes:
        """See Device. Errors that are not the medium's go through."""
        try:
            return self._device.read_at(offset, length)
        except (CheckCondition, OSError) as why:
            if not _is_of_the_medium(why):
                raise
            if length <= _GRAIN:
                self._damage.append(
                    Damage(None, f"the $MFT at bytes {offset} to {offset + length}: {why}")
                )
                return bytes(length)
        # Quarters: a few sectors of a large piece are found in a few steps.
        step = max(-(-length // 4 // _GRAIN) * _GRAIN, _GRAIN)
        return b"".join(
            self.read_at(offset + at, min(step, length - at)) for at in range(0, length, step)
        )


def _is_of_the_medium(why: Exception) -> bool:
    if isinstance(why, CheckCondition):
        return why.sense.key == SenseKey.MEDIUM_ERROR
    return isinstance(why, OSError) and why.errno == errno.EIO


def _start(extent: Extent) -> int:
    return extent.start


def _is(attribute: Attribute, kind: Type) -> bool:
    return attribute.type == kind and not attribute.name


@dataclass(slots=True)
class Scan:
    """What one reading of the table has brought: base records and what extends them."""

    records: dict[int, Record] = field(default_factory=dict)
    extensions: dict[int, list[Record]] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)
    broken: dict[int, str] = field(default_factory=dict)
    """Base records that miss a part, and why."""

    def extending(self, record: Record) -> Sequence[Record]:
        """Return the records that go on where this one is full."""
        return self.extensions.get(record.number, ())


def scan(table: MasterFileTable, record_size: int) -> Scan:
    """Read all records. Those that are torn or none at all are damage, and the rest goes on."""
    found = Scan()
    records, extensions = found.records, found.extensions
    for first, piece in table.read():
        for at in range(0, len(piece), record_size):
            number = first + at // record_size
            try:
                record = unpack_record(piece[at : at + record_size], number)
            except NtfsError as why:
                if table.in_use(number):
                    _damaged(found, Damage(number, str(why)))
                    found.broken.setdefault(
                        base_of(piece[at : at + record_size]),
                        f"its extension record {number} cannot be read",
                    )
                continue
            if record is None:
                continue
            # Only the $MFT itself has number 0: an extension of it still has a sequence number.
            if record.base_sequence or record.base:
                extensions.setdefault(record.base, []).append(record)
            else:
                records[number] = record
    _match(found)
    return found


def _match(found: Scan) -> None:
    """Keep of the extensions those whose base is there and of the same age."""
    for base, extending in list(found.extensions.items()):
        record = found.records.get(base)
        kept = []
        for each in extending:
            if record is not None and each.base_sequence == record.sequence:
                kept.append(each)
            else:
                _damaged(found, Damage(each.number, f"extends file record {base}, which is gone"))
        if kept:
            found.extensions[base] = kept
        else:
            del found.extensions[base]


def _damaged(found: Scan, damage: Damage) -> None:
    if len(found.damage) < _MOST_DAMAGE:
        found.damage.append(damage)
    elif len(found.damage) == _MOST_DAMAGE:
        found.damage.append(Damage(None, f"and more than {_MOST_DAMAGE} others"))
