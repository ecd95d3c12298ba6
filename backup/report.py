"""What a job came to: by whom the bytes were moved, what passed through here and why."""

from dataclasses import dataclass, field, fields
from typing import Any

from serverfree.initiator.sizes import format_size


@dataclass(slots=True)
class JobReport:
    """The facts of a backup. Sizes are bytes, times seconds.

    Content is what the files hold. What of it has gone through this machine is `server_bytes`, and
    why: `server_reasons`. Apart from it are counted what was read of the file system's metadata to
    find the content, and what was sent along with it (`inline_bytes`: headers, maps and padding of
    the archive, its catalog, and the content that went through here). `socket_bytes` is everything
    that passed, iSCSI headers and all.
    """

    backup: str = ""
    uuid: str = ""
    name: str = ""
    mode: str = ""
    through: str = "copy manager"
    """By whom the content was moved: `copy manager` or `server`."""
    state: str = "running"
    disk: str = ""
    tape: str = ""
    cartridge: str = ""
    partition: int = 0
    file: int | None = None
    first_block: int = 0
    blocks: int = 0
    tape_block: int = 0
    archive_bytes: int = 0
    content_bytes: int = 0
    """What the members of the archive hold, without holes."""
    moved_bytes: int = 0
    """What of it came to the tape from the disk, past this machine."""
    server_bytes: int = 0
    server_reasons: dict[str, int] = field(default_factory=dict)
    metadata_bytes: int = 0
    inline_bytes: int = 0
    socket_bytes: int = 0
    members: int = 0
    extents: int = 0
    commands: int = 0
    segments: int = 0
    digests: int = 0
    consistency: str = "none"
    snapshot: str = ""
    snapshot_waited: float = 0.0
    generation: int | None = None
    parent: str = ""
    seconds: float = 0.0
    moving_seconds: float = 0.0
    skipped: list[str] = field(default_factory=list)
    """What of the files could not be had, and why."""
    warnings: list[str] = field(default_factory=list)

    @property
    def server_share(self) -> float:
        """Which part of the content passed through this machine."""
        return self.server_bytes / self.content_bytes if self.content_bytes else 0.0

    @property
    def rate(self) -> float:
        """Bytes of the archive that were put on tape in a second."""
        return self.archive_bytes / self.moving_seconds if self.moving_seconds else 0.0

    def facts(self) -> dict[str, Any]:
        """Return everything by name, for `--json` and for the catalog."""
        known = {each.name: getattr(self, each.name) for each in fields(self)}
        return known | {"server_share": self.server_share, "rate": self.rate}

    def lines(self) -> list[tuple[str, str]]:
        """Return what a person wants to know, as names and values."""
        place = f"block {self.first_block}"
        if self.file is not None:
            place = f"file {self.file}, {place}"
        if self.partition:
            place = f"partition {self.partition}, {place}"
        reasons = ", ".join(f"{why} {size}" for why, size in self.server_reasons.items() if size)
        rows = [
            ("backup", f"{self.backup} ({self.mode}, {self.state}) of {self.disk}"),
            ("on tape", f"{self.cartridge or self.tape}, {place}, {self.blocks} blocks"),
            ("consistency", self._consistency()),
            ("archive", f"{format_size(self.archive_bytes)}, {self.members} members"),
            (
                f"moved by the {self.through}",
                f"{self.moved_bytes} bytes, {format_size(self.rate)}/s",
            ),
            (
                "content through this machine",
                f"{self.server_bytes} bytes ({self.server_share:.4%})"
                + (f": {reasons}" if reasons else ""),
            ),
            ("metadata read", f"{self.metadata_bytes} bytes of the file system"),
            ("sent along", f"{self.inline_bytes} bytes: headers, maps, catalog, small content"),
            ("at our sockets", f"{self.socket_bytes} bytes in all"),
            (
                "extents, segments, commands",
                f"{self.extents}, {self.segments}, {self.commands}; {self.digests} digests kept",
            ),
            ("time", f"{self.seconds:.1f} s, {self.moving_seconds:.1f} s of it moving"),
        ]
        if self.parent:
            rows.insert(1, ("changes since", self.parent))
        rows += [("skipped", each) for each in self.skipped]
        rows += [("warning", each) for each in self.warnings]
        return rows

    def _consistency(self) -> str:
        if not self.snapshot:
            return f"{self.consistency} (no snapshot was taken)"
        return f"{self.consistency} (snapshot {self.snapshot}, waited {self.snapshot_waited:.1f} s)"


@dataclass(slots=True)
class Estimate:
    """What a backup would come to: nothing is snapshot, written or moved to learn it."""

    archive_bytes: int = 0
    moved_bytes: int = 0
    server_bytes: int = 0
    metadata_bytes: int = 0
    inline_bytes: int = 0
    tape_blocks: int = 0
    members: int = 0
    extents: int = 0
    commands: int = 0
    segments: int = 0
    skipped: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """Return everything by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}
