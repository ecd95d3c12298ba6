"""Mode parameters: headers, block descriptors, pages (SPC-4 7.5, SBC-3 6.4)."""

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Self

from construct import BitsInteger, BitStruct, Default, Flag, Padding

from serverfree.scsi.device import Buffer
from serverfree.scsi.structure import Structure

ALL_PAGES = 0x3F
ALL_SUBPAGES = 0xFF

WRITE_PROTECTED = 0x80  # WP in DEVICE-SPECIFIC PARAMETER, SBC-3 table 154 and SSC-4 table 82
DPO_FUA = 0x10  # DPOFUA there, disks only

_HEADER_6 = Struct(">BBBB")  # 7.5.4
_HEADER_10 = Struct(">HBBBxH")  # 7.5.5
_LONG_LBA = 0x01
_SUBPAGE_FORMAT = 0x40


@dataclass(slots=True)
class ModeData:
    """A mode parameter list: header, at most one block descriptor, pages.

    `pages` are whole pages with their headers. `offsets`, filled in by `unpack`, says where in the
    list each page lies, for field pointers.
    """

    medium_type: int = 0
    device_specific: int = 0
    block_descriptor: bytes = b""
    pages: tuple[bytes, ...] = ()
    offsets: tuple[int, ...] = ()

    def pack(self, *, ten: bool) -> bytes:
        """The list as MODE SENSE(10) (`ten`) or MODE SENSE(6) returns it.

        Raises ValueError where MODE DATA LENGTH of the 6-byte header cannot hold it.
        """
        body = self.block_descriptor + b"".join(self.pages)
        descriptor_length = len(self.block_descriptor)
        if ten:
            header = _HEADER_10.pack(
                _HEADER_10.size - 2 + len(body),
                self.medium_type,
                self.device_specific,
                _LONG_LBA if descriptor_length == LongBlockDescriptor.size() else 0,
                descriptor_length,
            )
        else:
            length = _HEADER_6.size - 1 + len(body)
            if length > 0xFF:
                raise ValueError(f"{length} bytes of mode parameters need MODE SENSE(10)")
            header = _HEADER_6.pack(
                length, self.medium_type, self.device_specific, descriptor_length
            )
        return header + body

    @classmethod
    def unpack(cls, data: Buffer, *, ten: bool) -> Self:
        """Read a list from MODE SENSE or for MODE SELECT.

        MODE DATA LENGTH is reserved in MODE SELECT, so the list ends where the data ends. Raises
        ValueError where that is within the header, a block descriptor or a page.
        """
        raw = bytes(data)
        header = _HEADER_10 if ten else _HEADER_6
        if len(raw) < header.size:
            raise ValueError(f"mode parameter header of {len(raw)} bytes")
        if ten:
            _, medium_type, device_specific, _, descriptor_length = header.unpack_from(raw)
        else:
            _, medium_type, device_specific, descriptor_length = header.unpack_from(raw)
        at = header.size + descriptor_length
        if at > len(raw):
            raise ValueError(f"block descriptor ends at {at}, the list at {len(raw)}")
        pages: list[bytes] = []
        offsets: list[int] = []
        while at < len(raw):
            length = _page_length(raw, at)
            if at + length > len(raw):
                raise ValueError(f"mode page at {at} has {length} bytes, the list {len(raw)}")
            pages.append(raw[at : at + length])
            offsets.append(at)
            at += length
        return cls(
            medium_type,
            device_specific,
            raw[header.size : header.size + descriptor_length],
            tuple(pages),
            tuple(offsets),
        )


def _page_length(raw: bytes, at: int) -> int:
    """Bytes of the page that starts here, its header included (7.5.7)."""
    if raw[at] & _SUBPAGE_FORMAT:
        return 4 + int.from_bytes(raw[at + 2 : at + 4].ljust(2, b"\0"), "big")
    return 2 + (raw[at + 1] if at + 1 < len(raw) else 0)


@dataclass
class BlockDescriptor(Structure):
    """The short block descriptor of a disk (SBC-3 6.4.2.2)."""

    blocks: int = 0
    block_length: int = 0

    LAYOUT = BitStruct(
        "blocks" / BitsInteger(32),
        Padding(8),
        "block_length" / BitsInteger(24),
    )


@dataclass
class LongBlockDescriptor(Structure):
    """The long LBA block descriptor (SBC-3 6.4.2.3)."""

    blocks: int = 0
    block_length: int = 0

    LAYOUT = BitStruct(
        "blocks" / BitsInteger(64),
        Padding(32),
        "block_length" / BitsInteger(32),
    )


@dataclass(frozen=True, slots=True)
class ModePage:
    """A mode page as a unit keeps it: whole pages, header included, all of one length.

    A one in `changeable` (its header as in the others) is a bit that MODE SELECT may change.
    MODE SELECT may leave out bytes at the end, down to `shortest` in all, if that is not 0.
    `saved` is None for a page that cannot be saved.
    """

    current: bytes
    changeable: bytes
    default: bytes
    shortest: int = 0
    saved: bytes | None = None

    @property
    def code(self) -> int:
        """PAGE CODE."""
        return self.current[0] & 0x3F

    @property
    def subpage(self) -> int:
        """SUBPAGE CODE; 0 for the page_0 format."""
        return self.current[1] if self.current[0] & _SUBPAGE_FORMAT else 0


class Page(Structure):
    """A mode page of page_0 format whose parameters are a fixed layout."""

    PAGE_CODE: ClassVar[int]

    def pack(self) -> bytes:
        """The whole page, PS=0."""
        body = super().pack()
        return bytes((self.PAGE_CODE, len(body))) + body

    @classmethod
    def unpack(cls, data: Buffer) -> Self:
        """Read a whole page; ValueError if it is not one of these."""
        raw = bytes(data)
        if len(raw) < 2 or raw[0] & (_SUBPAGE_FORMAT | ALL_PAGES) != cls.PAGE_CODE:
            raise ValueError(f"not mode page {cls.PAGE_CODE:02X}h: {raw[:2].hex(' ') or 'no data'}")
        return super().unpack(raw[2 : 2 + raw[1]])


@dataclass
class ReadWriteErrorRecovery(Page):
    """Page 01h (SBC-3 6.4.8). What a file does about errors it does by itself."""

    PAGE_CODE = 0x01
    automatic_write_reallocation: bool = False  # AWRE
    automatic_read_reallocation: bool = False  # ARRE

    LAYOUT = BitStruct(
        "automatic_write_reallocation" / Flag,
        "automatic_read_reallocation" / Flag,
        Padding(6),
        Padding(9 * 8),
    )


@dataclass
class Caching(Page):
    """Page 08h (SBC-3 6.4.5)."""

    PAGE_CODE = 0x08
    write_cache_enabled: bool = False  # WCE
    read_cache_disabled: bool = False  # RCD

    LAYOUT = BitStruct(
        Padding(5),
        "write_cache_enabled" / Flag,
        Padding(1),
        "read_cache_disabled" / Flag,
        Padding(17 * 8),
    )


@dataclass
class Control(Page):
    """Page 0Ah (SPC-4 7.5.10)."""

    PAGE_CODE = 0x0A
    descriptor_sense: bool = False  # D_SENSE
    unrestricted_reordering: bool = False  # QUEUE ALGORITHM MODIFIER 0001b
    software_write_protect: bool = False  # SWP

    LAYOUT = BitStruct(
        Padding(5),
        "descriptor_sense" / Flag,
        Padding(2),
        Padding(3),
        "unrestricted_reordering" / Flag,
        Padding(4),
        Padding(4),
        "software_write_protect" / Flag,
        Padding(3),
        Padding(3 * 8),
        "busy_timeout_period" / Default(BitsInteger(16), 0),
        "extended_self_test_completion_time" / Default(BitsInteger(16), 0),
    )


@dataclass
class InformationalExceptions(Page):
    """Page 1Ch (SPC-4 7.5.11)."""

    PAGE_CODE = 0x1C
    disabled: bool = False  # DEXCPT
    method: int = 0  # MRIE

    LAYOUT = BitStruct(
        Padding(4),
        "disabled" / Flag,
        Padding(3),
        Padding(4),
        "method" / BitsInteger(4),
        Padding(8 * 8),
    )
