"""Names and paths: every $FILE_NAME leads to a directory, and so up to the root."""

from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct

from serverfree.backup.ntfs.attribute import Resident, Type, attributes, text
from serverfree.backup.ntfs.errors import NtfsError
from serverfree.backup.ntfs.record import NUMBER_MASK, Record

ROOT, EXTEND = 5, 11
FIRST_OF_USERS = 24
LONGEST_PATH = 32_767
# Reference of the parent; four times, two sizes, flags and a reparse tag; length and namespace.
_FILE_NAME = Struct("<Q56xBB")
_CACHE = 64 << 20


@dataclass(slots=True)
class Name:
    """A name in a directory. `space`: 0 POSIX, 1 Windows, 2 DOS, 3 Windows and DOS in one."""

    parent: int
    sequence: int
    name: str
    space: int

    @property
    def is_dos_only(self) -> bool:
        """Whether it is a second name for one that is there in full."""
        return self.space == 2


def unpack_name(value: bytes) -> Name:
    """Decode a $FILE_NAME. NtfsError where it could not be one part of a path."""
    if len(value) < _FILE_NAME.size:
        raise NtfsError("a file name is too short")
    reference, length, space = _FILE_NAME.unpack_from(value)
    data = value[_FILE_NAME.size : _FILE_NAME.size + 2 * length]
    if not length or len(data) < 2 * length:
        raise NtfsError("a file name ends outside of its attribute")
    name = text(data)
    if name in (".", "..") or "/" in name or "\0" in name:
        raise NtfsError(f"has the name {name!r}")
    return Name(reference & NUMBER_MASK, reference >> 48, name, space)


@dataclass(slots=True)
class _Directory:
    sequence: int
    name: Name | None


class SystemPath(Exception):
    """The way up leads through $Extend: a file of the file system's own."""


class Tree:
    """The directories of a volume, and the way from each to the root."""

    def __init__(self, directories: Iterable[tuple[Record, Iterable[Record]]]) -> None:
        self._directories: dict[int, _Directory] = {}
        self._known: dict[int, str] = {ROOT: ""}
        self._lost: dict[int, Exception] = {}
        self._characters = 0
        for record, extensions in directories:
            try:
                name = _first_name([record, *extensions])
            except NtfsError:
                name = None
            self._directories[record.number] = _Directory(record.sequence, name)

    def path(self, name: Name) -> str:
        """Return the path of a file of this name. SystemPath, or NtfsError where none leads up."""
        parent = self._directory_path(name.parent, name.sequence)
        path = f"{parent}/{name.name}" if parent else name.name
        if len(path) > LONGEST_PATH:
            raise NtfsError(f"its path is longer than {LONGEST_PATH} characters")
        return path

    def _directory_path(self, number: int, sequence: int) -> str:
        way: dict[int, str] = {}
        try:
            path = self._climb(number, sequence, way)
        except (NtfsError, SystemPath) as why:
            # Whoever comes this way again must not go all of it: there may be a million of them.
            self._lost.update(dict.fromkeys(way, why))
            raise
        for step, part in reversed(way.items()):
            path = f"{path}/{part}" if path else part
            if len(path) > LONGEST_PATH:
                raise NtfsError(f"its path is longer than {LONGEST_PATH} characters")
            self._remember(step, path)
        return path

    def _climb(self, number: int, sequence: int, way: dict[int, str]) -> str:
        """Return the path of the first directory upwards whose path is known, `way` leads there."""
        while True:
            directory = self._directories.get(number)
            if directory is None:
                raise NtfsError(f"lies in file record {number}, which is no directory")
            if sequence != directory.sequence:
                raise NtfsError(f"lies in directory {number}, which is gone")
            path = self._known.get(number)
            if path is not None:
                return path
            if number in self._lost:
                raise self._lost[number]
            if number == EXTEND:
                raise SystemPath
            name = directory.name
            if name is None:
                raise NtfsError(f"lies in directory {number}, which has no name")
            if number in way or len(way) > LONGEST_PATH:
                raise NtfsError(f"lies below directory {number}, which lies in itself")
            way[number] = name.name
            number, sequence = name.parent, name.sequence

    def _remember(self, number: int, path: str) -> None:
        self._characters += len(path)
        if self._characters > _CACHE:
            self._known = {ROOT: ""}
            self._characters = len(path)
        self._known[number] = path


def _first_name(records: Iterable[Record]) -> Name | None:
    """Return the name under which a directory is found; there is one beside the DOS name."""
    for record in records:
        for attribute in attributes(record):
            if attribute.type == Type.FILE_NAME and isinstance(attribute, Resident):
                name = unpack_name(attribute.value)
                if not name.is_dos_only:
                    return name
    return None
