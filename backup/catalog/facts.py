"""What a catalog says of a backup as a whole. Facts only, no SQL.

Times are nanoseconds since 1970, UTC. Offsets of an archive are bytes from its beginning: byte
`offset % tape_block` of tape block `first_block + offset // tape_block`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from serverfree.backup.archive.member import Member
from serverfree.backup.errors import BackupError
from serverfree.backup.files import VolumeFacts


class CatalogError(BackupError):
    """The catalog cannot be used, or does not hold what was asked for."""


class BackupNotFound(CatalogError):
    """No backup has this id, or several begin with it."""


class Mode(Enum):
    """What the members of an archive are: the used clusters of a disk, or its files."""

    IMAGE = "image"
    FILES = "files"
    FOREIGN = "foreign"
    """An archive that another program wrote, found by a scan."""


class State(Enum):
    """How far a backup has come."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    ABANDONED = "abandoned"
    """Its process ended without a word."""
    OVERWRITTEN = "overwritten"
    """It was done; a later backup was written where it lay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupFacts:
    """What is known of a backup when it begins. An empty text is something not known."""

    name: str
    mode: Mode
    created: int
    uuid: str = ""
    """Empty: the catalog gives it one. Its first eight digits are the id."""
    disk_designator: str = ""
    disk_serial: str = ""
    disk_url: str = ""
    tape_url: str = ""
    medium_serial: str = ""
    """Of the cartridge, from its memory (MAM 0401h)."""
    drive_serial: str = ""
    partition: int = 0
    file: int | None = None
    """Filemarks before the archive, where the drive tells."""
    first_block: int = 0
    tape_block: int = 0
    volume: VolumeFacts | None = None
    disk_size: int = 0
    consistency: str = ""
    """What the snapshot promises: crash, fs or app; `none` without one."""
    generation: int | None = None
    """Of the snapshot: what changes are counted from."""
    parent: str = ""
    """UUID of the backup that this one holds the changes since."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup in a catalog. `blocks` and `size` (tape blocks, bytes of the archive) are 0 until
    it is done.
    """

    id: str
    facts: BackupFacts
    state: State
    finished: int | None
    blocks: int
    size: int
    report: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def uuid(self) -> str:
        """The whole of the name whose first eight digits are the id."""
        return self.facts.uuid


@dataclass(frozen=True, slots=True)
class Digest:
    """SHA-256 of `length` bytes of an archive from `archive_offset` on."""

    archive_offset: int
    length: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A member as a catalog holds it. `key` names it there.

    Where many are listed, `member.data`, `attributes` and `resident` are left out:
    `Catalog.whole` brings them.
    """

    backup: Backup
    key: int
    member: Member

    @property
    def shown(self) -> str:
        """The path, with the stream's name where it is one of several."""
        member = self.member
        return f"{member.path}:{member.stream}" if member.stream else member.path
