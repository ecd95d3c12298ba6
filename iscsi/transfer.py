"""How a command's data is cut into PDUs: pure plans, both directions (RFC 7143 4.2.5, 13.13)."""

from collections.abc import Iterator


def data_in_pdus(
    length: int, max_send_data_segment_length: int, max_burst_length: int
) -> Iterator[tuple[int, int, bool]]:
    """Yield (offset, length, final) for each Data-In PDU of a read.

    `final` marks the end of each sequence of at most MaxBurstLength bytes (13.13), so also the
    last PDU of all.
    """
    offset = 0
    burst_end = min(max_burst_length, length)
    while offset < length:
        size = min(max_send_data_segment_length, burst_end - offset)
        offset += size
        yield offset - size, size, offset == burst_end
        if offset == burst_end:
            burst_end = min(burst_end + max_burst_length, length)


class BufferPool:
    """Memory for the data that commands bring, lent out again when they are done.

    A fresh 256 KiB bytearray costs its page faults each time; a used one costs nothing. At most
    `keep` bytes lie idle.
    """

    def __init__(self, keep: int) -> None:
        self._idle: dict[int, list[bytearray]] = {}
        self._idle_bytes = 0
        self._keep = keep

    def take(self, length: int) -> bytearray:
        """Return memory of at least `length` bytes, its content undefined."""
        size = _size_class(length)
        stack = self._idle.get(size)
        if stack:
            self._idle_bytes -= size
            return stack.pop()
        return bytearray(size)

    def give_back(self, memory: bytearray) -> None:
        """The memory is no longer used by anyone."""
        size = len(memory)
        if self._idle_bytes + size <= self._keep:
            self._idle_bytes += size
            self._idle.setdefault(size, []).append(memory)


def _size_class(length: int) -> int:
    """Return the power of two, at least a page, that holds `length` bytes."""
    return max(4096, 1 << (length - 1).bit_length())
