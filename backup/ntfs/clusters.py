"""Content that lies in clusters, read in bounded pieces."""

from collections.abc import Iterable, Iterator, Sequence

from serverfree.backup.device import Device
from serverfree.backup.files import Extent, Stream
from serverfree.backup.ntfs.attribute import NonResident
from serverfree.backup.ntfs.boot import Boot
from serverfree.backup.ntfs.errors import NtfsError
from serverfree.backup.ntfs.lznt1 import decompress
from serverfree.backup.ntfs.runs import join

PIECE = 1 << 20
_ZEROS = bytes(PIECE)


def plain(
    device: Device, extents: Iterable[Extent], size: int, valid: int, piece: int = PIECE
) -> Iterator[bytes]:
    """Yield the `size` bytes of a stream, holes and what is not valid as zeros."""
    position = 0
    for extent in extents:
        length = min(extent.length, valid - extent.start)
        if length <= 0:
            break
        yield from _zeros(extent.start - position)
        position = extent.start + length
        for at in range(0, length, piece):
            yield device.read_at(extent.place + at, min(piece, length - at))
    yield from _zeros(size - position)


def _zeros(length: int) -> Iterator[bytes]:
    while length > 0:
        yield _ZEROS[:length] if length < PIECE else _ZEROS
        length -= PIECE


def compressed(device: Device, stream: Stream) -> Iterator[bytes]:
    """Yield the content of a compressed stream, a compression unit at a time.

    A unit with all of its clusters holds its content as it is, one with none is zeros, and one with
    some holds LZNT1 in them.
    """
    unit, position = stream.compression_unit, 0
    pending = list(reversed(stream.extents))
    limit = min(stream.valid, stream.size)
    while position < limit:
        if pending and pending[-1].start >= position + unit:
            # No cluster before the next extent: zeros up to the unit that it begins in.
            gap = min((pending[-1].start - position) // unit * unit, limit - position)
            yield from _zeros(gap)
            position += gap
            continue
        if not pending:
            break
        parts: list[bytes] = []
        held = 0
        while pending and pending[-1].start < position + unit:
            extent = pending.pop()
            length = min(extent.length, position + unit - extent.start)
            parts.append(device.read_at(extent.place, length))
            held += length
            if length < extent.length:
                pending.append(
                    Extent(extent.start + length, extent.length - length, extent.place + length)
                )
        data = b"".join(parts)
        content = data if held == unit else decompress(data, unit)
        take = min(unit, limit - position)
        yield content if take == unit else content[:take]
        position += take
    yield from _zeros(stream.size - position)


def whole(device: Device, boot: Boot, pieces: Sequence[NonResident], limit: int) -> bytes:
    """Return all of an attribute that is metadata, of at most `limit` bytes."""
    first = min(pieces, key=lambda piece: piece.lowest)
    if first.size > limit:
        raise NtfsError(f"attribute {first.type:#x} of {first.size} bytes where {limit} are most")
    extents = join(pieces, boot)
    return b"".join(plain(device, extents, first.size, min(first.valid, first.size)))
