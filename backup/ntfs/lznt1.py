"""LZNT1: how NTFS compresses, a chunk of 4 KiB at a time."""

from serverfree.backup.ntfs.errors import NtfsError

CHUNK = 4096
_COMPRESSED = 0x8000
_SIZE_MASK = 0x0FFF


def decompress(data: bytes, size: int) -> bytes:
    """Return the `size` bytes that a compression unit holds; what it does not tell of is zeros."""
    out = bytearray()
    at = 0
    while at + 2 <= len(data) and len(out) < size:
        header = data[at] | data[at + 1] << 8
        if not header:
            break
        at += 2
        end = at + (header & _SIZE_MASK) + 1
        if end > len(data):
            raise NtfsError("a compressed chunk ends outside of its unit")
        chunk = _chunk(data, at, end) if header & _COMPRESSED else data[at:end]
        out += chunk
        if len(chunk) < CHUNK:
            out += bytes(CHUNK - len(chunk))
        at = end
    if len(out) > size:
        raise NtfsError("a compression unit holds more than its size")
    return bytes(out) + bytes(size - len(out))


def _chunk(data: bytes, at: int, end: int) -> bytes:
    """Expand one chunk: flag bytes, each before eight literals or references back."""
    out = bytearray()
    while at < end:
        flags = data[at]
        at += 1
        if not flags:
            out += data[at : min(at + 8, end)]
            at += 8
            continue
        for bit in range(8):
            if at >= end:
                break
            if not flags >> bit & 1:
                out.append(data[at])
                at += 1
                continue
            if at + 2 > end or not out:
                raise NtfsError("a compressed chunk refers back to before its beginning")
            token = data[at] | data[at + 1] << 8
            at += 2
            # The further into the chunk, the more of the 16 bits are distance: at least 4 of them.
            shift = 12 - max((len(out) - 1).bit_length() - 4, 0)
            distance = (token >> shift) + 1
            length = (token & (1 << shift) - 1) + 3
            begin = len(out) - distance
            if begin < 0 or len(out) + length > CHUNK:
                raise NtfsError("a compressed chunk refers back to before its beginning")
            if distance >= length:
                out += out[begin : begin + length]
            else:
                pattern = bytes(out[begin:])
                out += (pattern * (length // distance + 1))[:length]
    if len(out) > CHUNK:
        raise NtfsError("a compressed chunk expands to more than 4 KiB")
    return bytes(out)
