"""Vital product data of a tape drive (SSC-4 8.6), and the TapeAlert flags that it may raise."""

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from serverfree.scsi.tape_mode import PROTECTION_LENGTH, ProtectionMethod
from serverfree.scsi.vpd import pack_page


class TapeAlert(IntEnum):
    """TapeAlert flags (SSC-4 annex A)."""

    HARD_ERROR = 3
    READ_FAILURE = 5
    WRITE_FAILURE = 6
    WRITE_PROTECT = 9
    NO_REMOVAL = 10
    LOADING_FAILURE = 55
    WORM_OVERWRITE_ATTEMPTED = 60


@dataclass(frozen=True, slots=True)
class SequentialCapabilities:
    """Page B0h: whether the drive honours WORM media."""

    PAGE_CODE: ClassVar[int] = 0xB0
    worm: bool = False

    def pack(self) -> bytes:
        """The whole page."""
        return pack_page(self.PAGE_CODE, bytes((self.worm, 0)))


@dataclass(frozen=True, slots=True)
class ManufacturerSerialNumber:
    """Page B1h."""

    PAGE_CODE: ClassVar[int] = 0xB1
    serial: str

    def pack(self) -> bytes:
        """The whole page."""
        return pack_page(self.PAGE_CODE, self.serial.encode("ascii"))


@dataclass(frozen=True, slots=True)
class SupportedAlerts:
    """Page B2h: a bit for each TapeAlert flag that can come, flag 1 first."""

    PAGE_CODE: ClassVar[int] = 0xB2
    flags: tuple[int, ...]

    def pack(self) -> bytes:
        """The whole page."""
        bits = sum(1 << (64 - flag) for flag in self.flags)
        return pack_page(self.PAGE_CODE, bits.to_bytes(8, "big"))


BLOCK_PROTECTION = 0b001  # SPT of page 86h where a tape has logical block protection


@dataclass(frozen=True, slots=True)
class BlockProtection:
    """Page B5h: the logical block protection methods."""

    PAGE_CODE: ClassVar[int] = 0xB5
    methods: tuple[ProtectionMethod, ...]

    def pack(self) -> bytes:
        """The whole page. LBP_W_C and LBP_R_C: for writes and reads."""
        return pack_page(
            self.PAGE_CODE,
            bytes(4)
            + b"".join(bytes((3, method, PROTECTION_LENGTH, 0xC0)) for method in self.methods),
        )
