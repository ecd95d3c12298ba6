"""Log pages: header, parameters (SPC-4 7.3)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import Struct

from serverfree.scsi.device import Buffer

_PAGE = Struct(">BBH")
_PARAMETER = Struct(">HBB")
ALL_SUBPAGES = 0xFF
_SUBPAGE_FORMAT = 0x40

COUNTER = 0x02  # FORMAT AND LINKING 10b: bounded data counter, 7.3.2.2.2
BINARY = 0x03  # 11b: a binary list


@dataclass(frozen=True, slots=True)
class LogParameter:
    """A log parameter: its code, its value, its control byte."""

    code: int
    value: bytes
    control: int = BINARY

    def pack(self) -> bytes:
        """The parameter."""
        return _PARAMETER.pack(self.code, self.control, len(self.value)) + self.value


def counter(code: int, value: int) -> LogParameter:
    """A counter of eight bytes."""
    return LogParameter(code, min(value, (1 << 64) - 1).to_bytes(8, "big"), COUNTER)


def pack_log_page(code: int, subpage: int, body: bytes) -> bytes:
    """A log page."""
    form = _SUBPAGE_FORMAT if subpage else 0
    return _PAGE.pack(form | code, subpage, len(body)) + body


def pack_parameters(parameters: Iterable[LogParameter], first: int) -> bytes:
    """The parameters with a code of at least `first` (PARAMETER POINTER), in order of code."""
    return b"".join(
        each.pack() for each in sorted(parameters, key=lambda one: one.code) if each.code >= first
    )


def unpack_log_page(data: Buffer) -> tuple[int, int, Sequence[LogParameter]]:
    """Return code, subpage and parameters of a page, those present. Raises ValueError."""
    raw = bytes(data)
    if len(raw) < _PAGE.size:
        raise ValueError(f"log page of {len(raw)} bytes")
    first, subpage, length = _PAGE.unpack_from(raw)
    raw, found = raw[_PAGE.size : _PAGE.size + length], []
    while len(raw) >= _PARAMETER.size:
        code, control, size = _PARAMETER.unpack_from(raw)
        found.append(LogParameter(code, raw[_PARAMETER.size : _PARAMETER.size + size], control))
        raw = raw[_PARAMETER.size + size :]
    return first & 0x3F, subpage if first & _SUBPAGE_FORMAT else 0, found
