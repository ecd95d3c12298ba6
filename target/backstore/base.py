"""What a block unit needs of the storage under it: bytes by offset. No CDB, no sense."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from serverfree.scsi.device import Buffer


class StoreError(ValueError):
    """A store cannot be opened or made; the message names it, says what is wrong and what to do."""


class ReadError(OSError):
    """The storage could not deliver bytes it holds (an OSError on the way in).

    `offset` is the first byte that could not be read, None where that is not known.
    """

    offset: int | None = None


class Guard(Protocol):
    """Who knows whether bytes of a store are what they were."""

    @property
    def valid(self) -> bool:
        """Whether they are; to be asked when they have been read."""

    def minds(self, offset: int, length: int) -> bool:
        """Whether they will not be when this range of the store is written."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes where they are stored: read, as it were, but not looked at yet."""

    store: "BlockStore"
    offset: int
    length: int
    guard: Guard | None = None

    @property
    def valid(self) -> bool:
        """Whether they are still what they were meant to be; to be asked when they are taken."""
        return self.guard is None or self.guard.valid

    def may_go_to(self, store: "BlockStore", offset: int) -> bool:
        """Whether to write them there changes nothing that they are read from."""
        if store is not self.store:
            return True
        apart = abs(offset - self.offset) >= self.length
        return apart and (self.guard is None or not self.guard.minds(offset, self.length))


class BlockStore(Protocol):
    """Storage of a fixed number of bytes, read and written at offsets.

    Whoever calls keeps offset and length within `size`. All methods may be called from several
    threads at once; overlapping writes land in some order, whole pages at a time. Failures are
    OSError with the errno of the operating system; reading fails as ReadError.
    """

    readonly: bool
    can_discard: bool
    """Whether `discard` gives space back."""
    slow: bool
    """Whether reading and writing may take long enough to hold up others."""
    granularity: int
    """Bytes in which the storage allocates and frees."""

    @property
    def size(self) -> int:
        """Bytes that the store holds; more after `grow`, never fewer."""

    def view(self, offset: int, length: int) -> Buffer:
        """Return bytes to be sent: maybe a window on the storage, of which only the kernel may
        read (SIGBUS otherwise, if the storage fails), and which shows later writes."""

    def pread(self, offset: int, length: int) -> bytes:
        """Return a copy of the bytes, to be looked at."""

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of `data`; it is durable after the next `flush` only."""

    def take(self, offset: int, data: Stored) -> None:
        """Write bytes of this or another store without their coming to this process.

        What gives no data there takes no more room here than it must: holes stay holes where this
        store is thin, and where both are, a file system that can lets them share their space. If
        it raises OSError, for whichever side, part of the range is written. What lies in `data`
        must not overlap what is written.
        """

    def shared(self, offset: int, length: int) -> AbstractContextManager[tuple[int, int] | None]:
        """Within the block, say in which file these bytes lie, as (descriptor, offset).

        None where they do not, or where the file is not to share its space with others.
        """

    def flush(self) -> None:
        """Put all that was written on stable storage."""

    def discard(self, offset: int, length: int) -> None:
        """Give space back; the bytes read as zeros from now on. Needs `can_discard`."""

    def zero(self, offset: int, length: int) -> None:
        """Make the bytes zeros, without giving up their space where they have some."""

    def prefetch(self, offset: int, length: int) -> None:
        """Hint that the bytes will be read soon."""

    def evict(self, offset: int, length: int) -> None:
        """Forget cached copies of flushed bytes, as far as may be: the medium is asked next."""

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """Yield (offset, length, holds data) runs that cover the range in order.

        Bytes of a run without data read as zeros.
        """

    def grow(self) -> bool:
        """Look whether the storage has become longer; if so, take that in as `size`."""

    def give_up_map(self) -> None:
        """The kernel could not read a window: have `view` return copies from now on."""

    def close(self) -> None:
        """Flush and let go. Windows that are out stay readable."""
