"""What a restore came to: by whom the bytes were moved, what passed through here and why."""

from dataclasses import dataclass, field, fields
from typing import Any

from serverfree.initiator.sizes import format_size


@dataclass(slots=True)
class RestoreReport:
    """The facts of a restore. Sizes are bytes, times seconds.

    `moved_bytes` went from tape to disk past this machine. What of the content came through it is
    `server_bytes`, and why: `server_reasons`. Counted apart is what was read and written of the
    target's own metadata. `socket_bytes` is everything that passed, iSCSI headers and all.
    """

    backup: str = ""
    onto: str = ""
    mode: str = ""
    content_bytes: int = 0
    moved_bytes: int = 0
    server_bytes: int = 0
    server_reasons: dict[str, int] = field(default_factory=dict)
    metadata_read: int = 0
    metadata_written: int = 0
    socket_bytes: int = 0
    free_space: str = ""
    """Of a whole volume: what became of its free clusters."""
    files: int = 0
    directories: int = 0
    streams: int = 0
    extents: int = 0
    commands: int = 0
    segments: int = 0
    compared_bytes: int = 0
    compared: str = ""
    """Of a trial: what was held against what."""
    seconds: float = 0.0
    moving_seconds: float = 0.0
    skipped: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def through_server(self, why: str, length: int) -> None:
        """Count content that passes through this machine."""
        self.server_bytes += length
        self.server_reasons[why] = self.server_reasons.get(why, 0) + length

    @property
    def server_share(self) -> float:
        """Which part of the content passed through this machine."""
        return self.server_bytes / self.content_bytes if self.content_bytes else 0.0

    def facts(self) -> dict[str, Any]:
        """Return everything by name."""
        known = {each.name: getattr(self, each.name) for each in fields(self)}
        return known | {"server_share": self.server_share}

    def lines(self) -> list[tuple[str, str]]:
        """Return what a person wants to know, as names and values."""
        rate = self.moved_bytes / self.moving_seconds if self.moving_seconds else 0
        reasons = ", ".join(f"{why} {size}" for why, size in self.server_reasons.items() if size)
        rows = [
            ("restored", f"{self.backup} ({self.mode}) onto {self.onto}"),
            (
                "files",
                f"{self.files}, {self.directories} directories, {self.streams} streams"
                if self.files or self.directories
                else "",
            ),
            ("moved by the copy manager", f"{self.moved_bytes} bytes, {format_size(rate)}/s"),
            (
                "content through this machine",
                f"{self.server_bytes} bytes ({self.server_share:.4%})"
                + (f": {reasons}" if reasons else ""),
            ),
            (
                "metadata of the target",
                f"{self.metadata_read} bytes read, {self.metadata_written} written"
                if self.metadata_read or self.metadata_written
                else "",
            ),
            ("free space", self.free_space),
            ("at our sockets", f"{self.socket_bytes} bytes in all"),
            (
                "extents, segments, commands",
                f"{self.extents}, {self.segments}, {self.commands}" if self.commands else "",
            ),
            ("compared", f"{self.compared_bytes} bytes, {self.compared}" if self.compared else ""),
            ("time", f"{self.seconds:.1f} s, {self.moving_seconds:.1f} s of it moving"),
        ]
        rows += [("skipped", each) for each in self.skipped]
        rows += [("warning", each) for each in self.warnings]
        return [(name, value) for name, value in rows if value]
