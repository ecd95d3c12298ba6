"""A store over another that keeps points in time of it, and remembers what changed since."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event
from typing import Any

from serverfree.target.backstore.base import BlockStore
from serverfree.target.backstore.quiet import QUIET, TIMEOUT, QuietGate, Quietness


class SnapshotError(ValueError):
    """A snapshot cannot be made or found; the message says why."""


class Snapshot:
    """A point in time of a disk."""

    name: str
    created: float
    """Seconds since the epoch."""
    generation: int
    """Grows with every snapshot of the disk; never used twice."""
    size: int
    notes: Mapping[str, Any]
    """JSON values that were given to `create`, kept with it."""

    @property
    def valid(self) -> bool:
        """Whether it can be read."""
        raise NotImplementedError

    @property
    def invalid_because(self) -> str:
        """Why it cannot be read, empty if it can."""
        raise NotImplementedError

    @property
    def used(self) -> int:
        """Bytes that it takes on the storage."""
        raise NotImplementedError

    def open(self) -> BlockStore:
        """Return it as a read-only store, for a LUN; reading fails once it is invalid or deleted."""
        raise NotImplementedError


class SnapshotOrigin:  # and a BlockStore
    """A disk's store through which all changes go."""

    def __init__(
        self,
        store: BlockStore,
        folder: Path,
        *,
        source: Path | None = None,
        chunk: int = 64 << 10,
        limit: int | None = None,
        keep: int = 16,
        clone: bool = True,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[Event, float], bool] | None = None,
    ) -> None:
        """`source` is the file that the store is over, `folder` is made when it is needed."""
        self.quiet_gate = QuietGate(clock)

    def create(
        self,
        name: str,
        quiet: float = QUIET,
        timeout: float = TIMEOUT,
        *,
        cancelled: Event | None = None,
        progress: Callable[[Quietness], None] | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> Snapshot:
        """Wait for the quiet period, then take the snapshot.

        Raises NotQuiet, Cancelled, SnapshotError for a name that is taken, OSError.
        """
        raise NotImplementedError

    def snapshots(self) -> list[Snapshot]:
        """Return those there are, the oldest first."""
        raise NotImplementedError

    def delete(self, name: str) -> None:
        """Remove a snapshot; its space is given back as far as no older one needs it."""
        raise NotImplementedError

    def changes(self, since: int, name: str) -> tuple[list[tuple[int, int]], bool]:
        """Return the (offset, length) that changed from generation `since` to a snapshot.

        False says that it is not known, and that the extents are all of the disk.
        """
        raise NotImplementedError
