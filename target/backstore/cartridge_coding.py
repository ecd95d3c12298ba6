"""What is done to a block before it goes to the log: compression, then encryption.

Both are the cartridge's own, per record, and undone when the block is read. A compressed block is
a Zstandard frame, kept only where it is shorter. An encrypted block is

    version 1, KAD format, length of U-KAD, length of A-KAD    4 bytes
    nonce                                                     12 bytes
    key check                                                 16 bytes
    U-KAD, A-KAD                                              as long as said
    AES-256-GCM of the (compressed) block, its tag last

where everything before the ciphertext, and the place of the block on its cartridge, is
authenticated too: no encrypted block can stand in for another. Keys are never stored. The key
check, a MAC of a constant under the key, tells a wrong key from a damaged block.
"""

import hmac
import os
from dataclasses import dataclass
from functools import cached_property
from struct import Struct

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from serverfree.scsi.device import Buffer
from serverfree.target.backstore.cartridge_errors import DamagedRecord, EncryptedBlock, WrongKey
from serverfree.target.backstore.cartridge_log import MAX_RECORD, Coding, StoredBlock

_ENVELOPE = Struct(">BBBB12s16s")
_VERSION = 1
_PLACE = Struct(">16sBQIB")  # cartridge, partition, block, plain length, coding
_CHECKED = b"serverfree tape key check"
KEY_LENGTH = 32
MAX_U_KAD, MAX_A_KAD = 32, 60
_LEVEL = 1  # keeps up with a network; what it leaves is within a tenth of the default's


def compressed(block: Buffer) -> StoredBlock:
    """Return a block compressed, or as it is where that does not make it shorter."""
    # Without the content size in the frame, what a frame may grow to is for the reader to say.
    frame = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=False).compress(block)
    if len(frame) < len(block):
        return StoredBlock(frame, len(block), Coding.COMPRESSED)
    return StoredBlock(block, len(block))


def decoded(stored: StoredBlock) -> memoryview:
    """Return a block that is not encrypted as it was written.

    Raises EncryptedBlock if it is, DamagedRecord if what comes out is not of the length recorded.
    """
    payload, length, coding = stored
    if not coding:
        return memoryview(payload)
    if coding & Coding.ENCRYPTED:
        raise EncryptedBlock("the block is encrypted")
    try:
        if length > MAX_RECORD or zstandard.frame_content_size(payload) != -1:
            raise zstandard.ZstdError("not a frame of ours")
        plain = zstandard.ZstdDecompressor().decompress(payload, max_output_size=length)
    except zstandard.ZstdError as error:
        raise DamagedRecord(f"a compressed block: {error}") from error
    if len(plain) != length:
        raise DamagedRecord(f"a compressed block has {len(plain)} bytes, {length} were written")
    return memoryview(plain)


@dataclass(frozen=True, slots=True)
class Place:
    """Where on which cartridge a block lies."""

    cartridge: bytes
    partition: int
    block: int

    def pack(self, length: int, coding: int) -> bytes:
        """The bytes that encryption binds a block to."""
        return _PLACE.pack(self.cartridge, self.partition, self.block, length, coding)


@dataclass(frozen=True)
class Key:
    """A data encryption key and what a host wants stored beside each block encrypted with it.

    `kad_format` says how the U-KAD (unauthenticated key-associated data) is to be read.
    """

    key: bytes
    u_kad: bytes = b""
    a_kad: bytes = b""
    kad_format: int = 0

    def __repr__(self) -> str:
        return "Key(...)"  # never in a log

    @cached_property
    def check(self) -> bytes:
        """What tells the key from others and says nothing else about it."""
        return hmac.digest(self.key, _CHECKED, "sha256")[:16]

    @cached_property
    def _cipher(self) -> AESGCM:
        return AESGCM(self.key)

    def sealed(self, block: StoredBlock, place: Place) -> StoredBlock:
        """Return a block encrypted for its place."""
        nonce = os.urandom(12)
        envelope = _ENVELOPE.pack(
            _VERSION, self.kad_format, len(self.u_kad), len(self.a_kad), nonce, self.check
        )
        envelope += self.u_kad + self.a_kad
        coding = block.coding | Coding.ENCRYPTED
        bound = envelope + place.pack(block.length, coding)
        payload = envelope + self._cipher.encrypt(nonce, bytes(block.payload), bound)
        return StoredBlock(payload, block.length, coding)

    def opened(self, block: StoredBlock, place: Place) -> StoredBlock:
        """Return an encrypted block decrypted.

        Raises WrongKey if it is another key's, DamagedRecord if it is not what was written there.
        """
        envelope = Envelope.unpack(block)
        if not hmac.compare_digest(envelope.check, self.check):
            raise WrongKey("the block is encrypted with another key")
        raw = bytes(block.payload)
        bound = raw[: envelope.length] + place.pack(block.length, block.coding)
        try:
            plain = self._cipher.decrypt(envelope.nonce, raw[envelope.length :], bound)
        except InvalidTag:
            raise DamagedRecord("an encrypted block is not what was written there") from None
        return StoredBlock(plain, block.length, block.coding & ~Coding.ENCRYPTED)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What anyone may know of an encrypted block."""

    kad_format: int
    nonce: bytes
    check: bytes
    u_kad: bytes
    a_kad: bytes

    @property
    def length(self) -> int:
        """Bytes before the ciphertext."""
        return _ENVELOPE.size + len(self.u_kad) + len(self.a_kad)

    @classmethod
    def unpack(cls, block: StoredBlock) -> "Envelope":
        """Read the envelope of an encrypted block. Raises DamagedRecord."""
        raw = bytes(block.payload[: _ENVELOPE.size + 2 * 0xFF])
        if len(raw) < _ENVELOPE.size or raw[0] != _VERSION:
            raise DamagedRecord("an encrypted block without its envelope")
        _, kad_format, u_length, a_length, nonce, check = _ENVELOPE.unpack_from(raw)
        at = _ENVELOPE.size
        u_kad, a_kad = raw[at : at + u_length], raw[at + u_length : at + u_length + a_length]
        return cls(kad_format, nonce, check, u_kad, a_kad)
