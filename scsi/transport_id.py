"""TransportID of iSCSI initiators: how a reservation names a port (SPC-4 7.6.4.6)."""

from dataclasses import dataclass
from struct import Struct

from serverfree.scsi.device import Buffer

_HEADER = Struct(">BxH")
_ISCSI = 0x05
_DEVICE, _PORT = 0b00, 0b01  # TPID FORMAT
_SEPARATOR = ",i,0x"
_SHORTEST = 24  # 7.6.4.6: an additional length of at least 20, and a multiple of four
HEADER_LENGTH = _HEADER.size


@dataclass(frozen=True, slots=True)
class TransportId:
    """An iSCSI initiator port name, or with no ISID the name of an initiator device.

    `isid` is the text behind `,i,0x`: hexadecimal digits in lower case.
    """

    name: str
    isid: str | None = None

    @property
    def port_name(self) -> str:
        """The initiator port name as a nexus has it; the device name where there is no ISID."""
        return self.name if self.isid is None else f"{self.name}{_SEPARATOR}{self.isid}"

    @classmethod
    def of_port(cls, port_name: str) -> "TransportId":
        """Return the TransportID of an initiator port name."""
        name, separator, isid = port_name.partition(_SEPARATOR)
        return cls(name, isid if separator else None)

    def pack(self) -> bytes:
        """The TransportID: header, name, and zeros up to a multiple of four bytes."""
        text = self.port_name.encode() + b"\0"
        text = text.ljust(max(_SHORTEST - _HEADER.size, len(text) + -len(text) % 4), b"\0")
        form = _DEVICE if self.isid is None else _PORT
        return _HEADER.pack(form << 6 | _ISCSI, len(text)) + text

    @classmethod
    def unpack(cls, data: Buffer) -> "tuple[TransportId, int]":
        """Read the TransportID that starts here; return it and how many bytes it takes.

        Raises ValueError where it is cut short, of another protocol, or no name.
        """
        raw = bytes(data)
        if len(raw) < _HEADER.size:
            raise ValueError(f"TransportID of {len(raw)} bytes")
        first, length = _HEADER.unpack_from(raw)
        end = _HEADER.size + length
        if length < 20 or length % 4 or end > len(raw):
            raise ValueError(f"TransportID with an additional length of {length}")
        if first & 0x3F != _ISCSI or first >> 6 not in (_DEVICE, _PORT):
            raise ValueError(f"TransportID begins with {first:02X}h")
        text, zero, _ = raw[_HEADER.size : end].partition(b"\0")
        if not zero:
            raise ValueError("iSCSI name without its terminating zero")
        name, separator, isid = text.decode("utf-8", "strict").lower().partition(_SEPARATOR)
        if not name or bool(separator) != (first >> 6 == _PORT):
            raise ValueError("iSCSI name does not fit its TPID FORMAT")
        return cls(name, isid if separator else None), end
