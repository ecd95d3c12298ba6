"""$Bitmap: a bit for each cluster, the lowest bit of a byte first."""

import re
from collections.abc import Iterable, Iterator

MOST_RUNS = 1 << 20
_STRETCH = re.compile(rb"\xff+|[^\x00\xff]+")


def _ones(byte: int) -> tuple[tuple[int, int], ...]:
    runs, bit = [], 0
    while bit < 8:
        first = bit
        while bit < 8 and byte >> bit & 1:
            bit += 1
        if bit > first:
            runs.append((first, bit - first))
        bit += 1
    return tuple(runs)


_ONES = tuple(_ones(byte) for byte in range(256))


def runs_of_ones(pieces: Iterable[bytes], bits: int) -> Iterator[tuple[int, int]]:
    """Yield (first, count) for each longest run of ones among the first `bits` bits.

    Bytes that are all zeros or all ones go by in C; only the others are looked at one by one.
    """
    first = count = 0
    for at, ones in _stretches(pieces):
        if at == first + count:
            count += ones
        else:
            if count:
                yield first, count
            first, count = at, ones
        if first + count >= bits:
            break
    count = min(count, bits - first)
    if count > 0:
        yield first, count


def _stretches(pieces: Iterable[bytes]) -> Iterator[tuple[int, int]]:
    base = 0
    for piece in pieces:
        for match in _STRETCH.finditer(piece):
            begin, end = match.span()
            if piece[begin] == 0xFF:
                yield base + 8 * begin, 8 * (end - begin)
                continue
            for at in range(begin, end):
                for bit, ones in _ONES[piece[at]]:
                    yield base + 8 * at + bit, ones
        base += 8 * len(piece)


def at_most(runs: Iterable[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """Return the runs; where they are more than `most`, gaps are filled, the smallest first."""
    gap = 0
    found: list[tuple[int, int]] = []
    for first, count in runs:
        _append(found, first, count, gap)
        while len(found) > most:
            gap = max(2 * gap, 1)
            fewer: list[tuple[int, int]] = []
            for run in found:
                _append(fewer, *run, gap)
            found = fewer
    return found


def _append(found: list[tuple[int, int]], first: int, count: int, gap: int) -> None:
    if found and first - found[-1][0] - found[-1][1] <= gap:
        found[-1] = found[-1][0], first + count - found[-1][0]
    else:
        found.append((first, count))
