"""Bytes to PDUs, without copies where it matters (RFC 7143 11.1, 11.2).

A connection receives into one fixed buffer and decodes every complete PDU in it. A data segment
that is still arriving may be placed: its owner names the memory where it belongs, and the rest is
received straight into it. So a large write costs one copy, from the kernel into the task's buffer,
and a small one none: it is used where it lies.
"""

from collections.abc import Callable, Sequence
from mmap import mmap
from struct import Struct

from serverfree.iscsi.codes import BHS_LENGTH
from serverfree.iscsi.digest import DIGEST_LENGTH, crc32c
from serverfree.iscsi.errors import DataDigestError, ProtocolError
from serverfree.scsi.device import Buffer

_LENGTHS = Struct(">I")
_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")

# Below this the copy out of the receive buffer is cheaper than a scattered receive.
_WORTH_PLACING = 8192

# Room for a data segment of 1 MiB that cannot be placed, with all its headers; or for a queue of
# small commands at once.
RECEIVE_BUFFER = (1 << 20) + (1 << 16)

Placement = Callable[[memoryview, int], memoryview | None]
RawPdu = tuple[memoryview, memoryview, memoryview]


def padding(length: int) -> bytes:
    """Return the zero bytes that follow a data segment of this length (11.2.3)."""
    return _PAD[length & 3]


class Sender:
    """Puts PDUs into a list of buffers to send, with padding and the digests agreed (11.1, 11.2).

    `plain` where there are none: a caller in a hurry may then put buffers into the list itself.
    """

    __slots__ = ("_data_digest", "_header_digest", "plain")

    def __init__(self, *, header: bool, data: bool) -> None:
        """Tell whether headers and data segments go with a digest."""
        self._header_digest = header
        self._data_digest = data
        self.plain = not (header or data)

    def put(
        self, output: list[Buffer], header: bytes, parts: Sequence[Buffer] = (), length: int = 0
    ) -> None:
        """Add a PDU: its header with the additional ones, and `length` bytes of data in parts.

        With a data digest the data is looked at now, and must not change until it is sent.
        """
        output.append(header)
        if self._header_digest:
            output.append(crc32c((header,)))
        if not length:
            return
        output += parts
        pad = _PAD[length & 3]
        if pad:
            output.append(pad)
        if self._data_digest:
            output.append(crc32c((*parts, pad)))


class Receiver:
    """Where received bytes go, and the PDUs that they make.

    Use: receive into `buffers()`, say how much came with `received(n)`, then take PDUs with
    `next_pdu()` until it says None. The views it hands out are good until `buffers()` is called
    again. Memory is fixed: the receive buffer, whatever the peer sends.
    """

    def __init__(self, max_data_segment_length: int, size: int = RECEIVE_BUFFER) -> None:
        """`max_data_segment_length` is what we declared (8192 until login has said otherwise)."""
        self.max_data_segment_length = max_data_segment_length
        self.place: Placement | None = None
        # Anonymous memory, not a bytearray: pages that an idle connection never uses cost nothing.
        self._memory = memoryview(mmap(-1, size))
        self._start = 0
        self._end = 0
        # A placed segment that is still arriving: its header, all of it, and what is missing.
        self._placed: RawPdu | None = None
        self._missing: memoryview | None = None
        self._tail = 0  # bytes of padding and digest behind it
        self._header_digest = 0  # bytes each takes: 0 or 4
        self._data_digest = 0

    def expect_digests(self, *, header: bool, data: bool) -> None:
        """From the next PDU on, headers and data segments come with these digests (13.1, 13.2)."""
        self._header_digest = DIGEST_LENGTH if header else 0
        self._data_digest = DIGEST_LENGTH if data else 0

    def buffers(self) -> list[memoryview]:
        """Return where the next bytes go, in order; never empty, invalidates earlier views."""
        start, end, memory = self._start, self._end, self._memory
        if start == end:
            self._start = self._end = start = end = 0
        elif start:
            memory[: end - start] = memory[start:end]
            self._start, self._end = 0, end - start
            end -= start
        if self._missing is not None:
            return [self._missing, memory[end:]]
        return [memory[end:]] if end else [memory]

    def received(self, count: int) -> None:
        """`count` bytes have been put into `buffers()`, filling them in order."""
        if self._missing is not None:
            taken = min(count, len(self._missing))
            self._missing = self._missing[taken:] if taken < len(self._missing) else None
            count -= taken
        self._end += count

    def next_pdu(self) -> RawPdu | None:
        """Return header, additional headers and data segment of the next complete PDU.

        Raises ProtocolError where the stream cannot be trusted from there on: a data segment
        longer than was declared, a wrong header digest. Raises DataDigestError, with the PDU, for
        data that is not what was sent; the next call goes on behind it.
        """
        if self._placed is not None:
            return self._finish_placed()
        start, memory = self._start, self._memory
        available = self._end - start
        if available < BHS_LENGTH:
            return None
        (lengths,) = _LENGTHS.unpack_from(memory, start + 4)
        data_length = lengths & 0xFFFFFF
        ahs_end = start + BHS_LENGTH + (lengths >> 24) * 4
        head = ahs_end + self._header_digest
        # A header is believed only once its digest has been seen, its lengths included.
        if self._header_digest:
            if head > self._end:
                return None
            if crc32c((memory[start:ahs_end],)) != memory[ahs_end:head]:
                raise ProtocolError("wrong header digest")
        if data_length > self.max_data_segment_length:
            raise ProtocolError(
                f"data segment of {data_length} bytes, {self.max_data_segment_length} declared"
            )
        data_end = head + data_length
        following = data_end + (-data_length & 3)
        if data_length:
            following += self._data_digest
        if following <= self._end:
            self._start = following
            pdu = (
                memory[start : start + BHS_LENGTH],
                memory[start + BHS_LENGTH : ahs_end],
                memory[head:data_end],
            )
            if self._data_digest and data_length:
                self._check_data(pdu, memory[data_end:following])
            return pdu
        if data_length >= _WORTH_PLACING and self.place is not None and head <= self._end:
            self._begin_placed(start, ahs_end, head, data_length)
        return None

    def _begin_placed(self, start: int, ahs_end: int, head: int, data_length: int) -> None:
        memory = self._memory
        assert self.place is not None
        destination = self.place(memory[start : start + BHS_LENGTH], data_length)
        if destination is None:
            return
        here = min(self._end - head, data_length)
        destination[:here] = memory[head : head + here]
        self._start = head + here
        self._tail = (-data_length & 3) + self._data_digest
        self._missing = destination[here:] if here < data_length else None
        # The header is kept by copy: the receive buffer moves on while the segment arrives.
        self._placed = (
            memoryview(bytes(memory[start : start + BHS_LENGTH])),
            memoryview(bytes(memory[start + BHS_LENGTH : ahs_end])),
            destination,
        )

    def _finish_placed(self) -> RawPdu | None:
        tail = self._memory[self._start : self._start + self._tail]
        if self._missing is not None or self._end - self._start < self._tail:
            return None
        assert self._placed is not None
        self._start += self._tail
        placed, self._placed = self._placed, None
        if self._data_digest:
            self._check_data(placed, tail)
        return placed

    def _check_data(self, pdu: RawPdu, tail: memoryview) -> None:
        """Hold a data segment against the padding and digest that follow it."""
        if crc32c((pdu[2], tail[:-DIGEST_LENGTH])) != tail[-DIGEST_LENGTH:]:
            raise DataDigestError(pdu)
