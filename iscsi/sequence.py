"""Serial number arithmetic (RFC 1982, 32 bits), as CmdSN, StatSN and their windows use it."""

_MASK = 0xFFFFFFFF
_HALF = 0x80000000


def add(number: int, count: int) -> int:
    """Return `number` advanced by `count` (which may be negative), wrapped to 32 bits."""
    return number + count & _MASK


def distance(start: int, end: int) -> int:
    """Return how far `end` lies ahead of `start`: -2**31 to 2**31 - 1, negative if behind."""
    return ((end - start + _HALF) & _MASK) - _HALF


def in_window(number: int, first: int, last: int) -> bool:
    """Tell whether `number` lies in `first`..`last`, both included; `last` = `first` - 1: empty."""
    return number - first & _MASK <= (last - first & _MASK) != _MASK
