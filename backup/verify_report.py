"""What a verification came to."""

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(slots=True)
class BadRange:
    """A range of an archive that is not what was written, and the members that lie in it."""

    archive_offset: int
    length: int
    why: str
    members: list[str] = field(default_factory=list)
    more: int = 0
    """Members beyond those named."""


@dataclass(slots=True)
class VerifyReport:
    """What a verification came to. Sizes are bytes, times seconds."""

    backup: str
    through: str
    """Who read: `copy manager` or `server`."""
    ranges: int = 0
    checked_bytes: int = 0
    headers: int = 0
    """Members whose headers on tape were held against the catalog: by the server only."""
    unchecked_bytes: int = 0
    """What of the archive no digest is known of."""
    socket_bytes: int = 0
    seconds: float = 0.0
    bad: list[BadRange] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.bad

    def facts(self) -> dict[str, Any]:
        """Return everything by name, for `--json`."""
        known = {each.name: getattr(self, each.name) for each in fields(self)}
        known["bad"] = [{f.name: getattr(bad, f.name) for f in fields(bad)} for bad in self.bad]
        return known | {"good": self.good}

    def lines(self) -> list[tuple[str, str]]:
        """Return what a person wants to know, as names and values."""
        rate = self.checked_bytes / self.seconds / 2**20 if self.seconds else 0.0
        rows = [
            ("backup", f"{self.backup}: {'as written' if self.good else 'DAMAGED'}"),
            ("read by the", self.through),
            ("checked", f"{self.checked_bytes} bytes in {self.ranges} ranges, {rate:.0f} MiB/s"),
            ("headers read", f"{self.headers} members" if self.headers else "none"),
            ("at our sockets", f"{self.socket_bytes} bytes in all"),
        ]
        if self.unchecked_bytes:
            rows.append(
                ("not checked", f"{self.unchecked_bytes} bytes, of which no digest is known")
            )
        for bad in self.bad:
            named = ", ".join(bad.members) + (f" and {bad.more} more" if bad.more else "")
            where = f"bytes {bad.archive_offset} to {bad.archive_offset + bad.length}"
            rows.append(("bad", f"{where}: {bad.why}; in it: {named or 'no member'}"))
        return rows
