"""CRC32C, the digest of RFC 7143 (12.1, 13.1): by a library that has the processor do it."""

from collections.abc import Iterable

import google_crc32c

from serverfree.scsi.device import Buffer

DIGEST_LENGTH = 4


def crc32c(parts: Iterable[Buffer]) -> bytes:
    """Return the digest of these bytes in a row, as it goes over the wire.

    The library takes bytes only: anything else costs a copy, at a fifth of what the CRC is worth.
    """
    crc = 0
    for part in parts:
        crc = google_crc32c.extend(crc, part if type(part) is bytes else bytes(part))
    return crc.to_bytes(DIGEST_LENGTH, "little")
