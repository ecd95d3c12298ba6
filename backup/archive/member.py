"""What a member of an archive is: what its writer made of a file, what a scan found again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from serverfree.backup.errors import BackupError


class ArchiveError(BackupError):
    """What was read is no tar archive here, or what is to be written cannot be kept in one."""


class Kind(Enum):
    """What a member stands for."""

    FILE = "file"
    DIRECTORY = "directory"
    HARD_LINK = "hard link"
    SYMBOLIC_LINK = "symbolic link"
    """Of foreign archives; a reparse point of NTFS is a FILE or DIRECTORY with its attribute."""
    IMAGE = "image"
    CATALOG = "catalog"
    OTHER = "other"
    """Devices, FIFOs and what else a foreign archive may hold."""


class Reason(Enum):
    """Why content of a member went through the server."""

    RESIDENT = "resident"
    """It lies in the file's record, not in blocks."""
    COMPRESSED = "compressed"
    """Its blocks hold something else."""
    CATALOG = "catalog"


@dataclass(frozen=True, slots=True)
class Data:
    """`length` bytes of a member's content, from its byte `start` on: where in the archive."""

    start: int
    length: int
    archive_offset: int


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """`length` bytes of a stream, from its byte `start` on, that lie at `disk_offset` of the disk
    and that an image of changes does not hold: one of those before it does.
    """

    start: int
    length: int
    disk_offset: int


@dataclass(slots=True)
class Member:
    """One member. Offsets are bytes of the archive; what of `size` no `data` covers is zeros.

    `path` is without the stream's name: the header says `path:stream`. The root directory has the
    path "". `header_offset` is where its first header lies, `end_offset` where the next member
    begins. `attributes` are those of `File.attributes` (`ntfs_acl`, ...), kept with the file or
    directory itself, not with its other streams and links.
    """

    path: str
    kind: Kind
    size: int = 0
    modified: int = 0
    """Nanoseconds since 1970, UTC."""
    stream: str = ""
    header_offset: int = 0
    end_offset: int = 0
    data: tuple[Data, ...] = ()
    link_target: str = ""
    """The path of the member that a hard link is another name of; the text of a symbolic one."""
    attributes: Mapping[str, bytes] = field(default_factory=dict)
    number: int | None = None
    """Of the source's file record, with its `sequence`; None where a foreign archive has none."""
    sequence: int | None = None
    server_bytes: int = 0
    """How much of the content went through the server; headers, maps and padding not counted."""
    reason: Reason | None = None
    """Why, where any did."""
    damage: str = ""
    """What of the content could not be had, known when its pieces have been used up."""
    resident: bytes | None = None
    """Of a file inside an image: its content, where no block of the image holds it as it is."""
    compression_unit: int = 0
    """Of a file inside an image: not 0 where `data` are whole clusters of a compressed stream
    (`Stream.compression_unit`); from its byte `valid` on the stream is zeros."""
    valid: int | None = None
    elsewhere: tuple[Elsewhere, ...] = ()
    """Of a file inside an image of changes: what of its content this archive does not hold."""
