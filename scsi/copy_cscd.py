"""CSCD descriptors: the copy sources and copy destinations of a parameter list (SPC-4 6.4.5)."""

from dataclasses import dataclass, replace
from typing import ClassVar

from construct import BitsInteger, BitStruct, Flag, Padding

from serverfree.scsi.designator import Designator
from serverfree.scsi.device import Buffer
from serverfree.scsi.structure import Structure


@dataclass(frozen=True)
class BlockParameters(Structure):
    """Device type specific parameters of a disk (table 136); length 0: ask READ CAPACITY."""

    block_length: int = 0
    pad: bool = False

    LAYOUT = BitStruct(Padding(5), "pad" / Flag, Padding(2), "block_length" / BitsInteger(24))


@dataclass(frozen=True)
class StreamParameters(Structure):
    """Device type specific parameters of a tape (table 137).

    With `fixed` each command moves STREAM DEVICE TRANSFER LENGTH blocks of `block_length` bytes,
    without it (and a `block_length` of 0) one block of that many bytes.
    """

    block_length: int = 0
    fixed: bool = False
    pad: bool = False

    LAYOUT = BitStruct(
        Padding(5), "pad" / Flag, Padding(1), "fixed" / Flag, "block_length" / BitsInteger(24)
    )


@dataclass(frozen=True)
class ProcessorParameters(Structure):
    """Device type specific parameters of a processor device (table 139)."""

    pad: bool = False

    LAYOUT = BitStruct(Padding(5), "pad" / Flag, Padding(2), Padding(24))


DeviceParameters = BlockParameters | StreamParameters | ProcessorParameters

PARAMETERS: dict[int, type[DeviceParameters]] = {
    0x00: BlockParameters,
    0x01: StreamParameters,
    0x03: ProcessorParameters,
    0x04: BlockParameters,
    0x05: BlockParameters,
    0x07: BlockParameters,
    0x0E: BlockParameters,
}
"""What PERIPHERAL DEVICE TYPE makes of a descriptor's last four bytes (table 134)."""

MAX_DESIGNATOR = 20
_DESIGNATION_AT = 4
_PARAMETERS_AT = 28


class InvalidField(ValueError):
    """A field of a descriptor: its byte there, and its leftmost bit where it is no whole byte."""

    def __init__(self, byte: int, bit: int | None = None) -> None:
        super().__init__(f"byte {byte} of the descriptor is wrong")
        self.byte = byte
        self.bit = bit


@dataclass(frozen=True)
class _Header(Structure):
    """The four bytes that every CSCD descriptor begins with (table 132)."""

    type: int
    device_type: int
    relative_initiator_port: int = 0

    LAYOUT = BitStruct(
        "type" / BitsInteger(8),
        Padding(2),  # LU ID TYPE, ignored in E4h
        Padding(1),  # obsolete NUL
        "device_type" / BitsInteger(5),
        "relative_initiator_port" / BitsInteger(16),
    )


@dataclass(frozen=True, slots=True)
class IdentificationCscd:
    """E4h: the unit that shows this designator in its VPD page 83h (table 140).

    `device_type` is the PERIPHERAL DEVICE TYPE and decides the class of `parameters`. Bytes 4 to
    27 are a designation descriptor (7.8.6.1) padded with zeros.
    """

    TYPE: ClassVar[int] = 0xE4
    LENGTH: ClassVar[int] = 32

    designator: Designator
    parameters: DeviceParameters
    device_type: int
    relative_initiator_port: int = 0

    def pack(self) -> bytes:
        """The 32 bytes on the wire. ValueError for a designator of more than 20 bytes."""
        if len(self.designator.identifier) > MAX_DESIGNATOR:
            raise ValueError(f"designator {self.designator} is too long for a CSCD descriptor")
        designation = replace(self.designator, protocol=None).pack()
        return (
            _Header(self.TYPE, self.device_type, self.relative_initiator_port).pack()
            + designation.ljust(_PARAMETERS_AT - _DESIGNATION_AT, b"\0")
            + self.parameters.pack()
        )

    @classmethod
    def unpack(cls, data: Buffer) -> "IdentificationCscd":
        """Read the 32 bytes. Raises InvalidField for the first field that cannot be as it is.

        Reserved device types (table 134), a designator beyond 20 bytes, a disk block length left
        to READ CAPACITY by what is no type 00h (6.4.5.3), FIXED at odds with STREAM BLOCK LENGTH
        (table 138).
        """
        raw = bytes(data[: cls.LENGTH])
        header = _Header.unpack(raw)
        kind = PARAMETERS.get(header.device_type)
        if kind is None:
            raise InvalidField(1, 4)
        if raw[_DESIGNATION_AT + 3] > MAX_DESIGNATOR:
            raise InvalidField(_DESIGNATION_AT + 3)
        parameters = kind.unpack(raw[_PARAMETERS_AT:])
        if isinstance(parameters, BlockParameters):
            if header.device_type and not parameters.block_length:
                raise InvalidField(29)
        elif isinstance(parameters, StreamParameters) and parameters.fixed != bool(
            parameters.block_length
        ):
            raise InvalidField(28, 0) if parameters.fixed else InvalidField(29)
        designator = replace(Designator.unpack(raw[_DESIGNATION_AT:_PARAMETERS_AT]), protocol=None)
        return cls(designator, parameters, header.device_type, header.relative_initiator_port)
