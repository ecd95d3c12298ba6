"""SHA-256 of what each destination of a copy is given, for segments C1h."""

import hashlib
from collections.abc import Iterable

from serverfree.datamover.buffers import ByteQueue
from serverfree.datamover.units import AttachedUnit


class Digests:
    """Digests of the streams of one copy's destinations; does nothing unless `wanted`.

    `waiting` is the residual destination data, which belongs to the stream of `destination`, that
    of the last segment that had one.
    """

    def __init__(self, wanted: bool, waiting: ByteQueue) -> None:
        self.wanted = wanted
        self.destination: AttachedUnit | None = None
        self._waiting = waiting
        self._streams: dict[int, hashlib._Hash] = {}
        # How many bytes at the front of `waiting` a stream's last digest has had already.
        self._told: dict[int, int] = {}

    def put(self, unit: AttachedUnit, views: Iterable[memoryview], pad: int, apart: bool) -> None:
        """A destination is given these bytes, of which the last `pad` are padding.

        They come from the front of the residual destination data, unless `apart`.
        """
        if not self.wanted:
            return
        pieces = list(views)
        size = sum(map(len, pieces)) - pad
        skip = 0
        if not apart:
            skip = self._told.get(id(unit), 0)
            self._told = {stream: max(0, told - size) for stream, told in self._told.items()}
        self._update(self._stream(unit), pieces, skip, size)

    def take(self, unit: AttachedUnit) -> bytes:
        """Return the digest of a destination's stream, and begin a new one."""
        digest = self._streams.pop(id(unit), None) or hashlib.sha256()
        if unit is self.destination:
            told = self._told.get(id(unit), 0)
            self._update(digest, self._waiting.views(), told, self._waiting.length)
            self._told[id(unit)] = self._waiting.length
        return digest.digest()

    def drop(self) -> None:
        """Residual destination data is let go of."""
        self._told.clear()

    def _stream(self, unit: AttachedUnit) -> "hashlib._Hash":
        return self._streams.setdefault(id(unit), hashlib.sha256())

    @staticmethod
    def _update(digest: "hashlib._Hash", views: Iterable[memoryview], begin: int, end: int) -> None:
        at = 0
        for view in views:
            wanted = view[max(0, begin - at) : max(0, end - at)]
            at += len(view)
            if wanted:
                digest.update(wanted)
