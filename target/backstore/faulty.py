"""A store over another that fails and dawdles where it is told to: how hosts meet bad media."""

import errno
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from threading import Lock

from serverfree.scsi.device import Buffer
from serverfree.target.backstore.base import BlockStore, ReadError, Stored


class FaultyStore:
    """The bytes of another store, some of which cannot be read, after a delay.

    `bad` are (first byte, byte behind the last) ranges: reading any of their bytes fails with EIO
    and says where. Writing makes bytes good, as it does on a disk whose medium was written badly.
    `delay` is seconds before every read and write.
    """

    def __init__(
        self, store: BlockStore, bad: Iterable[tuple[int, int]] = (), delay: float = 0
    ) -> None:
        self.store = store
        self.readonly, self.can_discard = store.readonly, store.can_discard
        self.granularity = store.granularity
        self.slow = store.slow or delay > 0
        self._delay = delay
        self._bad = sorted(bad)
        self._lock = Lock()

    @property
    def size(self) -> int:
        """See BlockStore."""
        return self.store.size

    def view(self, offset: int, length: int) -> Buffer:
        """See BlockStore."""
        self._before_read(offset, length)
        return self.store.view(offset, length)

    def pread(self, offset: int, length: int) -> bytes:
        """See BlockStore."""
        self._before_read(offset, length)
        return self.store.pread(offset, length)

    def write(self, offset: int, data: Buffer) -> None:
        """See BlockStore."""
        self._wait()
        self.store.write(offset, data)
        self._heal(offset, offset + len(data))

    def take(self, offset: int, data: Stored) -> None:
        """See BlockStore."""
        self._wait()
        self.store.take(offset, data)
        self._heal(offset, offset + data.length)

    def shared(self, offset: int, length: int) -> AbstractContextManager[tuple[int, int] | None]:
        """See BlockStore. What is to fail or to dawdle is to be read."""
        return nullcontext() if self._bad or self._delay else self.store.shared(offset, length)

    def flush(self) -> None:
        """See BlockStore."""
        self.store.flush()

    def discard(self, offset: int, length: int) -> None:
        """See BlockStore."""
        self._wait()
        self.store.discard(offset, length)
        self._heal(offset, offset + length)

    def zero(self, offset: int, length: int) -> None:
        """See BlockStore."""
        self._wait()
        self.store.zero(offset, length)
        self._heal(offset, offset + length)

    def prefetch(self, offset: int, length: int) -> None:
        """See BlockStore."""
        self.store.prefetch(offset, length)

    def evict(self, offset: int, length: int) -> None:
        """See BlockStore."""
        self.store.evict(offset, length)

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """See BlockStore."""
        return self.store.extents(offset, length)

    def grow(self) -> bool:
        """See BlockStore."""
        return self.store.grow()

    def give_up_map(self) -> None:
        """See BlockStore."""
        self.store.give_up_map()

    def close(self) -> None:
        """See BlockStore."""
        self.store.close()

    def _wait(self) -> None:
        if self._delay:
            time.sleep(self._delay)

    def _before_read(self, offset: int, length: int) -> None:
        self._wait()
        for start, end in self._bad:
            if start < offset + length and offset < end:
                error = ReadError(errno.EIO, os.strerror(errno.EIO))
                error.offset = max(start, offset)
                raise error

    def _heal(self, offset: int, end: int) -> None:
        if not self._bad:
            return
        with self._lock:
            left = []
            for start, behind in self._bad:
                left += [
                    piece
                    for piece in ((start, min(behind, offset)), (max(start, end), behind))
                    if piece[0] < piece[1]
                ]
            self._bad = sorted(left)
