"""Whoever brings content from the archives to a disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from serverfree.backup.pieces import ToDisk


@dataclass(frozen=True, slots=True)
class Lost:
    """A piece that the tape does not give any more, and what the drive says."""

    piece: ToDisk
    why: str


class Mover(Protocol):
    """A copy manager, or this machine in its place."""

    def move(self, wanted: Sequence[ToDisk]) -> Sequence[Lost]:
        """Copy pieces; they are on the disk when this returns, but for those that are lost."""
