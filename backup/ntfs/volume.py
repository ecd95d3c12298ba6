"""A volume: what it says of itself, its files, its clusters."""

from collections.abc import Iterator
from functools import cached_property
from struct import Struct

from serverfree.backup.device import Device, Part
from serverfree.backup.files import Damage, Extent, File, Stream, VolumeFacts
from serverfree.backup.ntfs.assembly import Assembler, Group, group, runs_of
from serverfree.backup.ntfs.attribute import Attribute, Resident, Type
from serverfree.backup.ntfs.bitmap import MOST_RUNS, at_most, runs_of_ones
from serverfree.backup.ntfs.boot import LENGTH, Boot
from serverfree.backup.ntfs.clusters import compressed, plain
from serverfree.backup.ntfs.errors import NtfsError
from serverfree.backup.ntfs.index import rows
from serverfree.backup.ntfs.journal import LENGTH as JOURNAL_LENGTH
from serverfree.backup.ntfs.journal import is_clean
from serverfree.backup.ntfs.mft import MasterFileTable, Scan, scan
from serverfree.backup.ntfs.names import EXTEND, FIRST_OF_USERS, ROOT, SystemPath, Tree, unpack_name
from serverfree.backup.ntfs.record import NUMBER_MASK, Record
from serverfree.backup.ntfs.runs import join
from serverfree.backup.ntfs.security import descriptors

LOGFILE, VOLUME, BITMAP, BAD_CLUSTERS, SECURE = 2, 3, 6, 8, 9
_VERSION = Struct("<8xBBH")
_DIRTY = 0x0001
_OBJECT_ID = Struct("<Q48s")
_LAST_OF_EXTEND = 256  # what lies in $Extend is made with the volume, right behind its own files
_LARGEST_INDEX = 64 << 20
_LARGEST_SECURE = 256 << 20


class Volume:
    """An NTFS volume on a device. Everything is read when it is asked for, the $MFT once.

    NtfsError tells in one line what is not as it has to be; the device's own errors go through.
    """

    def __init__(self, device: Device, start: int = 0) -> None:
        if not 0 <= start <= device.size - LENGTH:
            raise NtfsError(f"no volume begins at byte {start} of {device.size}")
        self.boot = Boot.unpack(device.read_at(start, LENGTH))
        if self.boot.backup > device.size - start:
            raise NtfsError(
                f"a volume of {self.boot.backup} bytes on {device.size - start} of the device"
            )
        self.start = start
        self._device = Part(device, start, min(self.boot.size, device.size - start))
        self.table = MasterFileTable(self._device, self.boot)
        self._walked: dict[int, Damage] = {}
        self.facts = self._facts()

    @classmethod
    def open(cls, device: Device, start: int = 0) -> "Volume":
        """Open the volume that begins at that byte of the device."""
        return cls(device, start)

    def files(self) -> Iterator[File]:
        """Yield the files and directories of the users, in the order of their records.

        Not the root itself, and nothing of the file system's own. What cannot be read whole is left
        out and in `damage`. A directory may come after what lies in it.
        """
        found = self._scan
        assembler = self._assembler
        for number, record in found.records.items():
            if number < FIRST_OF_USERS:
                continue
            file = self._file(assembler, found, record)
            if file is not None:
                yield file

    def _file(self, assembler: Assembler, found: Scan, record: Record) -> File | None:
        try:
            if record.number in found.broken:
                raise NtfsError(found.broken[record.number])
            return assembler.file(record, found.extending(record))
        except NtfsError as why:
            self._walked[record.number] = Damage(record.number, str(why))
            return None

    @property
    def damage(self) -> list[Damage]:
        """What could not be read, as far as the files have been walked."""
        found = self._scan.damage  # the scan itself finds damage of the table
        return [*self.table.damage, *found, *self._walked.values()]

    def used(self) -> list[tuple[int, int]]:
        """Return (place, length) of all that is in use, in order, and the backup boot sector.

        Where there are more than a million, the smallest gaps between them count as used.
        """
        content = self._content(BITMAP, "", -(-self.boot.clusters // 8))
        cluster = self.boot.cluster_size
        found = [
            (first * cluster, count * cluster)
            for first, count in at_most(runs_of_ones(content, self.boot.clusters), MOST_RUNS)
        ]
        if self.boot.size <= self._device.size:
            place, length = found[-1] if found else (0, 0)
            if place + length == self.boot.backup:
                found[-1] = place, length + self.boot.sector_size
            else:
                found.append((self.boot.backup, self.boot.sector_size))
        return found

    def metadata(self) -> list[tuple[int, int]]:
        """Return (place, length) of all clusters that are not users' streams, in order, merged.

        That is everything but the $DATA of files that are the users': on a copy of only these a
        file system driver finds each name, attribute and free cluster. With the backup boot sector.
        """
        found: list[tuple[int, int]] = []
        if self.boot.size <= self._device.size:
            found.append((self.boot.backup, self.boot.sector_size))
        scan = self._scan
        for record in scan.records.values():
            try:
                attributes = group([record, *scan.extending(record)])
                own = record.number < FIRST_OF_USERS or self._is_system(attributes)
                for (kind, name), pieces in attributes.items():
                    if isinstance(pieces[0], Resident) or (kind == Type.DATA and not own):
                        continue
                    if record.number == BAD_CLUSTERS and name:
                        continue
                    extents = join(runs_of(pieces), self.boot)
                    found += [(extent.place, extent.length) for extent in extents]
            except NtfsError as why:
                self._walked.setdefault(record.number, Damage(record.number, str(why)))
        return _merged(found)

    def read_stream(self, file: File, stream: Stream) -> Iterator[bytes]:
        """Yield the content of a stream of a file, pieces of at most 1 MiB, holes as zeros.

        Compressed streams come out as their content. NtfsError where that cannot be, as for an
        encrypted one, whose key lies elsewhere.
        """
        if stream.encrypted:
            raise NtfsError(f"{file.path}: stream {stream.name!r} is encrypted")
        if stream.resident is not None:
            return iter((stream.resident,))
        if stream.compressed:
            return compressed(self._device, stream)
        return plain(self._device, stream.extents, stream.size, stream.valid)

    @cached_property
    def root(self) -> File:
        """The root directory: its path is empty."""
        record = self.table.record(ROOT)
        return self._assembler.root(record, self._scan.extending(record))

    @cached_property
    def _scan(self) -> Scan:
        return scan(self.table, self.boot.record_size)

    @cached_property
    def _tree(self) -> Tree:
        found = self._scan
        return Tree(
            (record, found.extending(record))
            for record in found.records.values()
            if record.is_directory
        )

    @cached_property
    def _assembler(self) -> Assembler:
        return Assembler(
            self.boot, self._tree, self.table.value, self._descriptors(), self._object_ids()
        )

    def _is_system(self, attributes: Group) -> bool:
        for attribute in attributes.get((Type.FILE_NAME, ""), ()):
            if isinstance(attribute, Resident):
                try:
                    self._tree.path(unpack_name(attribute.value))
                except SystemPath:
                    return True
                except NtfsError:
                    continue
        return False

    def _facts(self) -> VolumeFacts:
        boot = self.boot
        attributes = group([self.table.record(VOLUME)])
        label = b""
        for each in attributes.get((Type.VOLUME_NAME, ""), ()):
            label = each.value if isinstance(each, Resident) else b""
        for each in attributes.get((Type.VOLUME_INFORMATION, ""), ()):
            if isinstance(each, Resident) and len(each.value) >= _VERSION.size:
                major, minor, flags = _VERSION.unpack_from(each.value)
                break
        else:
            raise NtfsError("the volume does not tell its version")
        if major != 3:
            raise NtfsError(f"the volume is of NTFS version {major}.{minor}; 3.0 and 3.1 are read")
        return VolumeFacts(
            "ntfs", self.start, boot.size, boot.sector_size, boot.cluster_size,
            label.decode("utf-16-le", "replace"), f"{boot.serial:016X}",
            bool(flags & _DIRTY) or not self._journal_is_clean(),
        )  # fmt: skip

    def _journal_is_clean(self) -> bool:
        pieces = group([self.table.record(LOGFILE)]).get((Type.DATA, ""))
        if not pieces or isinstance(pieces[0], Resident):
            return False
        first = runs_of(pieces)[:1]
        extents = join(first, self.boot)
        size = min(first[0].size, JOURNAL_LENGTH)
        return is_clean(b"".join(plain(self._device, extents, size, min(first[0].valid, size))))

    def _content(self, number: int, name: str, limit: int) -> Iterator[bytes]:
        """Yield a stream of one of the file system's own files, at most so many bytes."""
        record = self.table.record(number)
        extensions = self._scan.extending(record) if self._has_list(record) else ()
        pieces = group([record, *extensions]).get((Type.DATA, name))
        if not pieces:
            raise NtfsError(f"file record {number} has no stream {name!r}")
        first = pieces[0]
        if isinstance(first, Resident):
            return iter((first.value,))
        runs = runs_of(pieces)
        first = min(runs, key=lambda piece: piece.lowest)
        extents: tuple[Extent, ...] = join(runs, self.boot)
        size = min(first.size, limit)
        return plain(self._device, extents, size, min(first.valid, size))

    def _has_list(self, record: Record) -> bool:
        return (Type.ATTRIBUTE_LIST, "") in group([record])

    def _descriptors(self) -> dict[int, bytes]:
        try:
            return descriptors(self._content(SECURE, "$SDS", _LARGEST_SECURE))
        except NtfsError as why:
            self._walked[SECURE] = Damage(SECURE, f"security descriptors: {why}")
            return {}

    def _object_ids(self) -> dict[int, bytes]:
        """Return by file record what belongs to its object id: birth volume, birth id, domain.

        It lies in the index of $Extend/$ObjId only.
        """
        found: dict[int, bytes] = {}
        try:
            for _, data in self._object_id_rows():
                if len(data) >= _OBJECT_ID.size:
                    reference, births = _OBJECT_ID.unpack_from(data)
                    found[reference & NUMBER_MASK] = births
        except NtfsError as why:
            self._walked[EXTEND] = Damage(EXTEND, f"object ids: {why}")
        return found

    def _object_id_rows(self) -> Iterator[tuple[bytes, bytes]]:
        for number in range(FIRST_OF_USERS, _LAST_OF_EXTEND):
            record = self._scan.records.get(number)
            if record is None:
                continue
            attributes = group([record, *self._scan.extending(record)])
            root = attributes.get((Type.INDEX_ROOT, "$O"))
            names = attributes.get((Type.FILE_NAME, ""), ())
            if not root or not any(_is_called(name, "$ObjId") for name in names):
                continue
            value = self.table.value
            parts = [
                value(pieces, _LARGEST_INDEX) if pieces else b""
                for pieces in (
                    attributes.get((kind, "$O"))
                    for kind in (Type.INDEX_ROOT, Type.INDEX_ALLOCATION, Type.BITMAP)
                )
            ]
            yield from rows(parts[0], parts[1], parts[2], self.boot.index_size)


def _is_called(attribute: Attribute, wanted: str) -> bool:
    if not isinstance(attribute, Resident):
        return False
    name = unpack_name(attribute.value)
    return name.parent == EXTEND and name.name == wanted


def _merged(extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for place, length in sorted(extents):
        if found and place <= found[-1][0] + found[-1][1]:
            first = found[-1][0]
            found[-1] = first, max(found[-1][1], place + length - first)
        else:
            found.append((place, length))
    return found
