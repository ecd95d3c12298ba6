"""Logical block protection: four bytes that travel behind a block and say that it is whole.

Method 01h is the Reed-Solomon CRC of ECMA-319, most significant byte first, 02h CRC32C, least
significant byte first (SSC-4 8.3.9; IBM GA32-0928-06 annex D; so do LTFS and IBM's drives).
"""

from collections.abc import Iterator

import google_crc32c

from serverfree.scsi.device import Buffer
from serverfree.scsi.tape_mode import PROTECTION_LENGTH, ProtectionMethod

_FIELD = 0x11D  # GF(256) by x^8 + x^4 + x^3 + x^2 + 1
_PERIOD = 255  # symbols: every non-zero element of the field to this power is 1
_ROOTS = range(126, 130)  # of the generator polynomial, as exponents of x


def protection_information(method: int, block: Buffer) -> bytes:
    """Return what follows a block of a `method` other than NONE."""
    data = block if type(block) is bytes else bytes(block)
    if method == ProtectionMethod.CRC32C:
        return int(google_crc32c.value(data)).to_bytes(PROTECTION_LENGTH, "little")
    return _reed_solomon(data)


def _reed_solomon(data: bytes) -> bytes:
    """Return the remainder of the block, taken as a polynomial of bytes and multiplied by x^4.

    x^255 + 1 has all four roots, so 255 bytes on it is the same polynomial again: the chunks of
    the block can be added up (XOR, by halves, as big integers) before any byte is looked at.
    """
    chunks = -(-len(data) // _PERIOD)
    if chunks > 1:
        total = int.from_bytes(data, "big")
        while chunks > 1:
            chunks = (chunks + 1) // 2
            width = chunks * _PERIOD * 8
            total = total >> width ^ total & (1 << width) - 1
        data = total.to_bytes(_PERIOD, "big")
    remainder = 0
    for symbol in data:
        remainder = (remainder & 0xFFFFFF) << 8 ^ _MULTIPLES[symbol ^ remainder >> 24]
    return remainder.to_bytes(PROTECTION_LENGTH, "big")


def _powers() -> Iterator[int]:
    """Yield the powers of x, which are all the elements of the field but 0."""
    power = 1
    for _ in range(_PERIOD):
        yield power
        power = power << 1 ^ (_FIELD if power & 0x80 else 0)


def _multiples_of_generator() -> list[int]:
    """By its leading coefficient, the rest of each multiple of the generator: four symbols."""
    powers = list(_powers())
    exponents = {power: exponent for exponent, power in enumerate(powers)}

    def product(a: int, b: int) -> int:
        return powers[(exponents[a] + exponents[b]) % _PERIOD] if a and b else 0

    generator = [1]
    for root in _ROOTS:  # times x + root
        shifted = [0, *(product(powers[root], coefficient) for coefficient in generator)]
        generator = [a ^ b for a, b in zip([*generator, 0], shifted, strict=True)]
    return [
        int.from_bytes(bytes(product(leading, each) for each in generator[1:]), "big")
        for leading in range(256)
    ]


_MULTIPLES = _multiples_of_generator()
