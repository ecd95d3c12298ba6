"""From the attributes of a file record, and of those that extend it, to a File."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct

from serverfree.backup.files import File, Stream
from serverfree.backup.ntfs.attribute import (
    COMPRESSED,
    COMPRESSION_MASK,
    ENCRYPTED,
    SPARSE,
    Attribute,
    NonResident,
    Resident,
    Type,
    attributes,
    list_entries,
)
from serverfree.backup.ntfs.boot import Boot
from serverfree.backup.ntfs.errors import NtfsError
from serverfree.backup.ntfs.mft import LARGEST_LIST
from serverfree.backup.ntfs.names import SystemPath, Tree, unpack_name
from serverfree.backup.ntfs.record import Record
from serverfree.backup.ntfs.runs import join

Group = Mapping[tuple[int, str], Sequence[Attribute]]
"""The attributes of a file by type and name: pieces, or as many file names as there are."""

# Created, modified, record changed, read; file attributes; and since NTFS 3.0, where the attribute
# is long enough, the number of the security descriptor.
_STANDARD = Struct("<QQQQI")
_TIMES = Struct("<QQQQ")
_SECURITY_ID = Struct("<I")
_SECURITY_ID_AT = 0x34
_UINT32 = Struct("<I")
_DIRECTORY, _NORMAL, _REPARSE_POINT = 0x10, 0x80, 0x400
_EPOCH = 116_444_736_000_000_000  # 1970 in 100 ns since 1601
_LARGEST_UNIT = 1 << 20  # bytes of compression: Windows makes them of 16 clusters of at most 4 KiB
_LARGEST_METADATA = 1 << 20  # bytes: twice what NTFS lets any of them have

_STREAM = int(Type.DATA)
_LIST = int(Type.ATTRIBUTE_LIST)
_NAME = int(Type.FILE_NAME)
_KEPT = {
    (int(Type.SECURITY_DESCRIPTOR), ""): "ntfs_acl",
    (int(Type.REPARSE_POINT), ""): "ntfs_reparse_data",
    (int(Type.EA), ""): "ntfs_ea",
    (int(Type.OBJECT_ID), ""): "ntfs_object_id",
}


def group(records: Iterable[Record]) -> dict[tuple[int, str], list[Attribute]]:
    """Return what the records of one file hold, by type and name."""
    found: dict[tuple[int, str], list[Attribute]] = {}
    for record in records:
        for attribute in attributes(record):
            key = attribute.type, attribute.name
            if key in found:
                found[key].append(attribute)
            else:
                found[key] = [attribute]
    return found


def runs_of(pieces: Sequence[Attribute]) -> list[NonResident]:
    """Return the pieces of an attribute that must lie in clusters, all of them."""
    found = [piece for piece in pieces if isinstance(piece, NonResident)]
    if len(found) != len(pieces):
        raise NtfsError(f"attribute {pieces[0].type:#x} is there twice")
    return found


def stream(name: str, pieces: Sequence[Attribute], boot: Boot) -> Stream:
    """Return a stream from the pieces of its $DATA attribute."""
    first = pieces[0]
    if isinstance(first, Resident):
        if len(pieces) > 1:
            raise NtfsError(f"stream {name!r} is there twice")
        size = len(first.value)
        flags = first.flags
        return Stream(
            name, size, size, first.value,
            encrypted=bool(flags & ENCRYPTED), sparse=bool(flags & SPARSE),
        )  # fmt: skip
    runs = runs_of(pieces)
    if len(runs) > 1:
        first = min(runs, key=lambda piece: piece.lowest)
    try:
        extents = join(runs, boot)
    except NtfsError as why:
        raise NtfsError(f"stream {name!r}: {why}") from why
    size, flags = first.size, first.flags
    last = max(piece.highest for piece in runs) + 1 & 0xFFFFFFFFFFFFFFFF
    if size > last * boot.cluster_size:
        raise NtfsError(f"stream {name!r} is larger than its clusters")
    compressed = flags & COMPRESSION_MASK
    unit = boot.cluster_size << min(first.unit, 32) if compressed else 0
    if compressed > COMPRESSED or unit > _LARGEST_UNIT:
        raise NtfsError(f"stream {name!r} is compressed in a way that NTFS does not know")
    return Stream(
        name, size, min(first.valid, size), None, extents,
        bool(compressed), bool(flags & ENCRYPTED), bool(flags & SPARSE),
        unit,
    )  # fmt: skip


@dataclass(slots=True)
class Assembler:
    """What is the same for all files of a volume: where values are read, what numbers mean."""

    boot: Boot
    tree: Tree
    value: Callable[[Sequence[Attribute], int], bytes]
    descriptors: Mapping[int, bytes]
    object_ids: Mapping[int, bytes]

    def file(self, record: Record, extensions: Sequence[Record]) -> File | None:
        """Return the file of a record, or None where it is the file system's own.

        NtfsError where any part of it is not what it should be: half a file is none.
        """
        found = group([record, *extensions])
        try:
            paths, dos_name = self._names(found)
        except SystemPath:
            return None
        return self._file(record, extensions, found, paths, dos_name)

    def root(self, record: Record, extensions: Sequence[Record]) -> File:
        """Return the root directory, whose path is empty."""
        return self._file(record, extensions, group([record, *extensions]), ("",), None)

    def _file(
        self,
        record: Record,
        extensions: Sequence[Record],
        found: Group,
        paths: tuple[str, ...],
        dos_name: str | None,
    ) -> File:
        if (_LIST, "") in found:
            self._all_there(record, extensions, found)
        standard = found.get((Type.STANDARD_INFORMATION, ""))
        if not standard or not isinstance(standard[0], Resident):
            raise NtfsError("it has no standard information")
        information = standard[0].value
        if len(information) < _STANDARD.size:
            raise NtfsError("its standard information is too short")
        created, modified, changed, read, flags = _STANDARD.unpack_from(information)
        streams = []
        for (kind, name), pieces in found.items():
            if kind == _STREAM:
                streams.append(stream(name, pieces, self.boot))
        if len(streams) > 1:
            streams.sort(key=_stream_name)
        return File(
            record.number,
            record.sequence,
            record.is_directory,
            paths,
            (modified - _EPOCH) * 100,
            tuple(streams),
            self._kept(record, found, information, dos_name, flags)
            | {"ntfs_times": _TIMES.pack(created, modified, read, changed)},
        )

    def _kept(
        self, record: Record, found: Group, information: bytes, dos_name: str | None, flags: int
    ) -> dict[str, bytes]:
        flags = flags | _DIRECTORY if record.is_directory else flags & ~_DIRECTORY
        kept = {"ntfs_attrib": _UINT32.pack(flags or _NORMAL)}
        for key, name in _KEPT.items():
            if key in found:
                kept[name] = self.value(found[key], _LARGEST_METADATA)
        if "ntfs_reparse_data" in kept and not flags & _REPARSE_POINT:
            del kept["ntfs_reparse_data"]
        if len(information) >= _SECURITY_ID_AT + 4:
            number = _SECURITY_ID.unpack_from(information, _SECURITY_ID_AT)[0]
            # A file may have both after a check of the volume: the shared one holds.
            if number in self.descriptors:
                kept["ntfs_acl"] = self.descriptors[number]
        if len(kept.get("ntfs_object_id", b"")) == 16:
            kept["ntfs_object_id"] += self.object_ids.get(record.number, b"")
        if dos_name is not None:
            kept["ntfs_dos_name"] = dos_name.encode("utf-8", "surrogateescape")
        return kept

    def _names(self, found: Group) -> tuple[tuple[str, ...], str | None]:
        paths: list[str] = []
        dos_name = None
        for attribute in found.get((_NAME, ""), ()):
            if not isinstance(attribute, Resident):
                raise NtfsError("it has a name that is not resident")
            name = unpack_name(attribute.value)
            if name.space & 2:
                dos_name = name.name
            if not name.is_dos_only:
                paths.append(self.tree.path(name))
        if not paths:
            raise NtfsError("it has no name")
        return tuple(paths), dos_name

    def _all_there(self, record: Record, extensions: Sequence[Record], found: Group) -> None:
        """Hold the records that were found to those that the attribute list names."""
        there = {record.number, *(each.number for each in extensions)}
        for row in list_entries(self.value(found[_LIST, ""], LARGEST_LIST)):
            if row.record not in there:
                raise NtfsError(f"its extension record {row.record} is not there")


def _stream_name(stream: Stream) -> str:
    return stream.name
