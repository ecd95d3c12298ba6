"""Logical unit numbers (SAM-5 4.7) and the parameter data of REPORT LUNS (SPC-4 6.33)."""

from collections.abc import Iterable
from struct import Struct

from serverfree.scsi.device import Buffer

LUN_LENGTH = 8
_PERIPHERAL, _FLAT = 0b00, 0b01
_LARGEST_FLAT = 0x3FFF
_LIST_HEADER = Struct(">I4x")


def pack_lun(lun: int) -> bytes:
    """A single-level LUN: peripheral device addressing below 256, flat space from there."""
    if not 0 <= lun <= _LARGEST_FLAT:
        raise ValueError(f"LUN {lun} does not fit flat space addressing")
    method = _PERIPHERAL if lun <= 0xFF else _FLAT
    return (method << 14 | lun).to_bytes(2, "big") + bytes(6)


def unpack_lun(field: Buffer) -> int | None:
    """Return the number of a single-level LUN; None for any other (it names nothing here).

    Both addressing methods are read for any number, and a bus identifier other than 0 or bytes
    behind the first level make it another LUN.
    """
    raw = bytes(field)
    if len(raw) != LUN_LENGTH or any(raw[2:]):
        return None
    method, number = raw[0] >> 6, int.from_bytes(raw[:2], "big") & _LARGEST_FLAT
    if method == _FLAT or (method == _PERIPHERAL and number <= 0xFF):
        return number
    return None


def pack_lun_list(luns: Iterable[int]) -> bytes:
    """The parameter data of REPORT LUNS."""
    packed = b"".join(pack_lun(lun) for lun in luns)
    return _LIST_HEADER.pack(len(packed)) + packed


def unpack_lun_list(data: Buffer) -> list[int]:
    """Return the single-level LUNs of REPORT LUNS parameter data, as far as it is present."""
    raw = bytes(data)
    if len(raw) < _LIST_HEADER.size:
        return []
    end = min(len(raw), _LIST_HEADER.size + _LIST_HEADER.unpack_from(raw)[0])
    luns = (
        unpack_lun(raw[at : at + LUN_LENGTH])
        for at in range(_LIST_HEADER.size, end - LUN_LENGTH + 1, LUN_LENGTH)
    )
    return [lun for lun in luns if lun is not None]


def lun_list_length(data: Buffer) -> int:
    """Return how many bytes the whole parameter data has, from its first four."""
    return _LIST_HEADER.size + int.from_bytes(data[:4], "big")
