"""What a planner tells the engine to do: a step for a segment, or extents for many of them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from serverfree.datamover.buffers import Slabs
from serverfree.datamover.digests import Digests
from serverfree.datamover.endpoints import Disk, Run
from serverfree.datamover.held import HeldData
from serverfree.datamover.residue import Move


@dataclass(slots=True)
class Progress:
    """How far a copy has come; RECEIVE COPY STATUS reads it from another thread.

    `segments_processed` counts the segment under way, `bytes_written` what destinations have
    acknowledged, in the order of the segments.
    """

    segments_processed: int = 0
    bytes_written: int = 0


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a copy function that moves its own data works with."""

    slabs: Slabs
    progress: Progress
    held: HeldData
    digests: Digests
    check: Callable[[], None]
    """Raises Aborted where the copy is to end."""


@dataclass(slots=True)
class Step:
    """What one segment does.

    `function` does it all by itself; else `move` says what is read, processed and written,
    `source` and `destination` where, `data` what joins from the parameter list. `apart` keeps
    residual data out of it; where `settled` nothing behind it is looked at before it is done;
    `holds` keeps a copy of what is processed, or only its digest where
    there is a `digest`. `read` and `written` count the bytes asked for and the bytes known to have
    arrived.
    """

    number: int
    move: Move
    source: Run | None = None
    destination: Run | None = None
    data: memoryview | None = None
    function: Callable[[Workshop], None] | None = None
    apart: bool = False
    counted: bool = True
    settled: bool = False
    holds: bool = False
    digest: "hashlib._Hash | None" = None
    read: int = 0
    written: int = 0
    to_read: int = field(init=False)
    to_write: int = field(init=False)

    def __post_init__(self) -> None:
        self.to_read = 0 if self.source is None else self.source.length
        self.to_write = 0 if self.destination is None else self.destination.length

    @property
    def residual(self) -> int | None:
        """INFORMATION of an error in this segment.

        None where nothing has been written, or the segment has no transfer count (`counted`).
        """
        if self.destination is None or not self.written or not self.counted:
            return None
        return self.destination.residual(self.to_write - self.written)


@dataclass(frozen=True, slots=True)
class Extents:
    """Consecutive segments that copy whole blocks from one disk to another, and no more.

    `extents` has source LBA, destination LBA and number of blocks of each, from segment `first` on.
    """

    source: Disk
    destination: Disk
    first: int
    extents: list[tuple[int, int, int]]
