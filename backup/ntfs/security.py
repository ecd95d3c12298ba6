"""$Secure:$SDS: the security descriptors of a volume, each once, by the number that files bear."""

from collections.abc import Iterable
from struct import Struct

# Hash of the descriptor, its number, its place in the stream, its length with this header.
_ENTRY = Struct("<IIQI")
BLOCK = 256 << 10  # descriptors; then as much that mirrors them
LARGEST = 64 << 20


def descriptors(pieces: Iterable[bytes]) -> dict[int, bytes]:
    """Return self-relative descriptors by number, out of the stream's bytes in order.

    The stream is blocks of 256 KiB, each followed by its mirror, which is taken where an entry of
    the block is not what it has to be. At most 64 MiB of them are kept.
    """
    found: dict[int, bytes] = {}
    kept = 0
    for number, block in enumerate(_blocks(pieces)):
        first = BLOCK * 2 * (number // 2)
        for identifier, descriptor in _entries(block, first):
            if identifier not in found and kept < LARGEST:
                found[identifier] = descriptor
                kept += len(descriptor)
    return found


def _blocks(pieces: Iterable[bytes]) -> Iterable[bytes]:
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= BLOCK:
            yield bytes(held[:BLOCK])
            del held[:BLOCK]
    if held:
        yield bytes(held)


def _entries(block: bytes, first: int) -> Iterable[tuple[int, bytes]]:
    at = 0
    while at + _ENTRY.size <= len(block):
        check, identifier, place, length = _ENTRY.unpack_from(block, at)
        if length <= _ENTRY.size or at + length > len(block) or place != first + at:
            return
        descriptor = block[at + _ENTRY.size : at + length]
        if digest(descriptor) == check:
            yield identifier, descriptor
        at += (length + 15) & ~15


def digest(descriptor: bytes) -> int:
    """Return the hash of a descriptor: each word added to the sum turned left by three bits."""
    value = 0
    for (word,) in _WORD.iter_unpack(descriptor[: len(descriptor) & ~3]):
        value = (word + ((value << 3 | value >> 29) & 0xFFFFFFFF)) & 0xFFFFFFFF
    return value


_WORD = Struct("<I")
