"""The tape data encryption security protocol, 20h (SSC-4 8.5): pages in and out."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

SECURITY_PROTOCOL_INFORMATION = 0x00
TAPE_DATA_ENCRYPTION = 0x20


class InPage(IntEnum):
    """SECURITY PROTOCOL SPECIFIC of SECURITY PROTOCOL IN."""

    IN_SUPPORT = 0x0000
    OUT_SUPPORT = 0x0001
    CAPABILITIES = 0x0010
    KEY_FORMATS = 0x0011
    MANAGEMENT_CAPABILITIES = 0x0012
    STATUS = 0x0020
    NEXT_BLOCK_STATUS = 0x0021


class OutPage(IntEnum):
    """SECURITY PROTOCOL SPECIFIC of SECURITY PROTOCOL OUT."""

    SET_DATA_ENCRYPTION = 0x0010


class Scope(IntEnum):
    """For whom data encryption parameters are."""

    PUBLIC = 0  # the nexus has none of its own and uses those for all
    LOCAL = 1  # of the nexus
    ALL_NEXUSES = 2


class EncryptionMode(IntEnum):
    DISABLE = 0
    EXTERNAL = 1
    ENCRYPT = 2


class DecryptionMode(IntEnum):
    DISABLE = 0
    RAW = 1
    DECRYPT = 2
    MIXED = 3


class KadType(IntEnum):
    """What a key-associated data descriptor holds."""

    UNAUTHENTICATED = 0
    AUTHENTICATED = 1
    NONCE = 2
    METADATA = 3


class BlockStatus(IntEnum):
    """ENCRYPTION STATUS of the next block."""

    UNKNOWN = 1
    NOT_A_BLOCK = 2
    NOT_ENCRYPTED = 3
    OTHER_ALGORITHM = 4
    ENCRYPTED_AND_READABLE = 5
    ENCRYPTED_NO_KEY = 6


_PAGE = Struct(">HH")
_KAD = Struct(">BBH")
_SET = Struct(">BBBBBBB7xH")  # what follows the page header up to the key
_STATUS = Struct(">BBBBIBBH8x")
_NEXT = Struct(">QBBBB")
AES_256_GCM = 0x00010014  # SECURITY ALGORITHM CODE, SPC-4 table 99


@dataclass(frozen=True, slots=True)
class Kad:
    """A key-associated data descriptor. `authenticated` is its field of that name."""

    type: int
    data: bytes
    authenticated: int = 0

    def pack(self) -> bytes:
        """The descriptor."""
        return _KAD.pack(self.type, self.authenticated, len(self.data)) + self.data


@dataclass(frozen=True, slots=True)
class SetDataEncryption:
    """The Set Data Encryption page (8.5.3.2)."""

    scope: int
    lock: bool
    clear_on_demount: bool  # CKOD
    other_controls: int  # CEEM, RDMC, SDK, CKORP, CKORL in their places
    encryption: int
    decryption: int
    algorithm: int
    key_format: int
    kad_format: int
    key: bytes
    kads: tuple[Kad, ...]

    @classmethod
    def unpack(cls, raw: bytes) -> "SetDataEncryption":
        """Read the page. Raises ValueError where its lengths do not fit together."""
        if len(raw) < _PAGE.size + _SET.size:
            raise ValueError(f"a page of {len(raw)} bytes")
        code, length = _PAGE.unpack_from(raw)
        if code != OutPage.SET_DATA_ENCRYPTION or length != len(raw) - _PAGE.size:
            raise ValueError(f"page {code:04X}h of {length} bytes in {len(raw)}")
        control, flags, encryption, decryption, algorithm, key_format, kad_format, key_length = (
            _SET.unpack_from(raw, _PAGE.size)
        )
        at = _PAGE.size + _SET.size
        key = raw[at : at + key_length]
        if len(key) < key_length:
            raise ValueError("the key ends behind the page")
        return cls(
            scope=control >> 5,
            lock=bool(control & 1),
            clear_on_demount=bool(flags & 0x04),
            other_controls=flags & ~0x04,
            encryption=encryption,
            decryption=decryption,
            algorithm=algorithm,
            key_format=key_format,
            kad_format=kad_format,
            key=key,
            kads=_unpack_kads(raw, at + key_length),
        )


def _unpack_kads(raw: bytes, at: int) -> tuple[Kad, ...]:
    kads = []
    while at < len(raw):
        if at + _KAD.size > len(raw):
            raise ValueError("a descriptor ends behind the page")
        kind, authenticated, length = _KAD.unpack_from(raw, at)
        at += _KAD.size
        if at + length > len(raw):
            raise ValueError("a descriptor ends behind the page")
        kads.append(Kad(kind, raw[at : at + length], authenticated & 7))
        at += length
    return tuple(kads)


def pack_page(code: int, body: bytes) -> bytes:
    """A page: its header and its body."""
    return _PAGE.pack(code, len(body)) + body


def pack_page_codes(code: InPage, codes: Sequence[int]) -> bytes:
    """A page that lists page codes."""
    return pack_page(code, b"".join(each.to_bytes(2, "big") for each in codes))


def pack_status(
    *,
    nexus_scope: int,
    key_scope: int,
    encryption: int,
    decryption: int,
    algorithm: int,
    key_instance: int,
    kad_format: int,
    kads: Sequence[Kad],
) -> bytes:
    """The Data Encryption Status page (8.5.2.7)."""
    # PARAMETERS CONTROL 001b: they are set by this protocol. RDMD=1: raw reading is not offered.
    flags = 0b001 << 4 | 1
    body = _STATUS.pack(
        nexus_scope << 5 | key_scope,
        encryption,
        decryption,
        algorithm,
        key_instance & 0xFFFFFFFF,
        flags,
        kad_format,
        0,
    )
    return pack_page(InPage.STATUS, body + b"".join(kad.pack() for kad in kads))


def pack_next_block_status(
    block: int, compression: int, status: int, algorithm: int, kad_format: int, kads: Sequence[Kad]
) -> bytes:
    """The Next Block Encryption Status page (8.5.2.8)."""
    # RDMDS=1: an encrypted block cannot be read raw.
    body = _NEXT.pack(block, compression << 4 | status, algorithm, bool(algorithm), kad_format)
    return pack_page(InPage.NEXT_BLOCK_STATUS, body + b"".join(kad.pack() for kad in kads))


_ALGORITHM = Struct(">BxHBBHHHBBHHxxI")
_CAPABILITIES = Struct(">B15x")


def pack_capabilities(
    algorithm: int, *, valid_here: bool, maximum_u_kad: int, maximum_a_kad: int, key_length: int
) -> bytes:
    """The Data Encryption Capabilities page (8.5.2.4) of a drive with one algorithm."""
    # EXTDECC=01b: not capable of external control. CFG_P=01b: the configuration can be changed.
    body = _CAPABILITIES.pack(0b01 << 2 | 0b01)
    body += _ALGORITHM.pack(
        algorithm,
        20,
        # AVFMV, MAC_C, DELB_C; DECRYPT_C and ENCRYPT_C 01b: in software, as this is
        valid_here << 7 | 1 << 5 | 1 << 4 | 0b01 << 2 | 0b01,
        # AVFCLP 10b: valid at any position; NONCE_C 01b: the drive makes them; KADF_C
        (0b10 if valid_here else 0) << 6 | 0b01 << 4 | 1 << 3,
        maximum_u_kad,
        maximum_a_kad,
        key_length,
        # DKAD_C 11b: KAD may be there or not; EEMC_C 01b: no external mode; RDMC_C 1h: no raw
        # reading; EAREM: the log records that a block is encrypted
        0b11 << 6 | 0b01 << 4 | 0x1 << 1 | 1,
        0,
        0,
        0,
        AES_256_GCM,
    )
    return pack_page(InPage.CAPABILITIES, body)
