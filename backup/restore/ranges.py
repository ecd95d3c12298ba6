"""Ranges of bytes of a volume, to be looked up."""

from bisect import bisect_right
from collections.abc import Iterable

Range = tuple[int, int]
"""A place on the volume, and a length."""


class Ranges:
    """Ranges, those that touch put together."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self.all: list[Range] = []
        for start, length in sorted(ranges):
            if self.all and start <= sum(self.all[-1]):
                first, size = self.all[-1]
                self.all[-1] = first, max(first + size, start + length) - first
            else:
                self.all.append((start, length))
        self._starts = [start for start, _ in self.all]

    def meets(self, place: int, length: int) -> bool:
        """Tell whether any byte of a range is in one of these."""
        index = bisect_right(self._starts, place + length - 1) - 1
        return index >= 0 and sum(self.all[index]) > place

    def covers(self, place: int, length: int) -> bool:
        """Tell whether every byte of a range is in these."""
        index = bisect_right(self._starts, place) - 1
        return index >= 0 and sum(self.all[index]) >= place + length
