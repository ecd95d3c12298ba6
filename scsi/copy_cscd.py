"""CSCD descriptors: the copy sources and copy destinations of a parameter list (SPC-4 6.4.5)."""

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
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
        Padding(2),  # LU ID TYPE, ignored in E4h and FEh
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
        if raw[_DESIGNATION_AT + 3] > MAX_DESIGNATOR and header.device_type in PARAMETERS:
            raise InvalidField(_DESIGNATION_AT + 3)
        parameters = _unpack_parameters(header.device_type, raw)
        designator = replace(Designator.unpack(raw[_DESIGNATION_AT:_PARAMETERS_AT]), protocol=None)
        return cls(designator, parameters, header.device_type, header.relative_initiator_port)


def _unpack_parameters(device_type: int, raw: bytes) -> DeviceParameters:
    """Read the device type specific parameters of a descriptor's first 32 bytes."""
    kind = PARAMETERS.get(device_type)
    if kind is None:
        raise InvalidField(1, 4)
    parameters = kind.unpack(raw[_PARAMETERS_AT : _PARAMETERS_AT + 4])
    if isinstance(parameters, BlockParameters):
        if device_type and not parameters.block_length:
            raise InvalidField(29)
    elif isinstance(parameters, StreamParameters) and parameters.fixed != bool(
        parameters.block_length
    ):
        raise InvalidField(28, 0) if parameters.fixed else InvalidField(29)
    return parameters


def _require_lun(raw: bytes) -> None:
    """Raise InvalidField unless LU IDENTIFIER is a LUN: proxy tokens are optional (table 133)."""
    if raw[1] >> 6:
        raise InvalidField(1, 7)


TCP = 6
_ALIAS = Struct(">8s8s8x")  # from byte 4 on
_IPV4 = Struct(">8s4s6xH2xH")  # from byte 4 on
_IPV6 = Struct(">8s16s")
_IPV6_EXTENSION = Struct(">BxHH26x")
EXTENSION = 0xFF


@dataclass(frozen=True, slots=True)
class Ipv4Cscd:
    """E5h: the unit with a LUN behind an IPv4 portal (SPC-4 7.6.3.8).

    `lun` is the 8-byte field. No target is named: see `datamover.fabric`.
    """

    TYPE: ClassVar[int] = 0xE5
    LENGTH: ClassVar[int] = 32

    lun: bytes
    address: IPv4Address
    port: int
    parameters: DeviceParameters
    device_type: int
    relative_initiator_port: int = 0
    protocol: int = TCP

    def pack(self) -> bytes:
        """The 32 bytes on the wire."""
        return (
            _Header(self.TYPE, self.device_type, self.relative_initiator_port).pack()
            + _IPV4.pack(self.lun, self.address.packed, self.port, self.protocol)
            + self.parameters.pack()
        )

    @classmethod
    def unpack(cls, data: Buffer) -> "Ipv4Cscd":
        """Read the 32 bytes. Raises InvalidField, also for a protocol other than TCP."""
        raw = bytes(data[: cls.LENGTH])
        _require_lun(raw)
        header = _Header.unpack(raw)
        lun, address, port, protocol = _IPV4.unpack_from(raw, 4)
        if protocol != TCP:
            raise InvalidField(26)
        return cls(
            lun,
            IPv4Address(address),
            port,
            _unpack_parameters(header.device_type, raw),
            header.device_type,
            header.relative_initiator_port,
        )


@dataclass(frozen=True, slots=True)
class Ipv6Cscd:
    """EAh: the unit with a LUN behind an IPv6 portal (SPC-4 7.6.3.9).

    64 bytes, and so two CSCD DESCRIPTOR IDs: in a list an `Extension` has the second one. Where
    byte 32 is not FFh, `extended` is False and the descriptor good for nothing (6.4.5.2).
    """

    TYPE: ClassVar[int] = 0xEA
    LENGTH: ClassVar[int] = 64

    lun: bytes
    address: IPv6Address
    port: int
    parameters: DeviceParameters
    device_type: int
    relative_initiator_port: int = 0
    protocol: int = TCP
    extended: bool = True

    def pack(self) -> bytes:
        """The 64 bytes on the wire."""
        return (
            _Header(self.TYPE, self.device_type, self.relative_initiator_port).pack()
            + _IPV6.pack(self.lun, self.address.packed)
            + self.parameters.pack()
            + _IPV6_EXTENSION.pack(EXTENSION if self.extended else 0, self.port, self.protocol)
        )

    @classmethod
    def unpack(cls, data: Buffer) -> "Ipv6Cscd":
        """Read the 64 bytes. Raises InvalidField, also for a protocol other than TCP."""
        raw = bytes(data[: cls.LENGTH])
        _require_lun(raw)
        header = _Header.unpack(raw)
        lun, address = _IPV6.unpack_from(raw, 4)
        extension, port, protocol = _IPV6_EXTENSION.unpack_from(raw, 32)
        if protocol != TCP and extension == EXTENSION:
            raise InvalidField(36)
        return cls(
            lun,
            IPv6Address(address),
            port,
            _unpack_parameters(header.device_type, raw),
            header.device_type,
            header.relative_initiator_port,
            protocol,
            extension == EXTENSION,
        )


@dataclass(frozen=True, slots=True)
class AliasCscd:
    """E6h: the unit with a LUN of the target that an alias stands for (table 141)."""

    TYPE: ClassVar[int] = 0xE6
    LENGTH: ClassVar[int] = 32

    lun: bytes
    alias: bytes
    parameters: DeviceParameters
    device_type: int
    relative_initiator_port: int = 0

    def pack(self) -> bytes:
        """The 32 bytes on the wire."""
        return (
            _Header(self.TYPE, self.device_type, self.relative_initiator_port).pack()
            + _ALIAS.pack(self.lun, self.alias)
            + self.parameters.pack()
        )

    @classmethod
    def unpack(cls, data: Buffer) -> "AliasCscd":
        """Read the 32 bytes. Raises InvalidField."""
        raw = bytes(data[: cls.LENGTH])
        _require_lun(raw)
        header = _Header.unpack(raw)
        lun, alias = _ALIAS.unpack_from(raw, 4)
        return cls(
            lun,
            alias,
            _unpack_parameters(header.device_type, raw),
            header.device_type,
            header.relative_initiator_port,
        )


@dataclass(frozen=True, slots=True)
class Extension:
    """The second half of a descriptor of 64 bytes; nothing may name it."""

    LENGTH: ClassVar[int] = 32

    parameters: DeviceParameters = field(default_factory=BlockParameters)
    device_type: int = 0

    def pack(self) -> bytes:
        """Nothing: its bytes come with the first half."""
        return b""


ROD_FROM_TOKEN = 0xF800
"""ROD PRODUCER CSCD DESCRIPTOR ID: whichever copy manager made the token (tables 144, 148)."""
_ROD = Struct(">HxxIIIxxBBI")  # from byte 4 on


@dataclass(frozen=True, slots=True)
class RodCscd:
    """FEh: a representation of data (table 143).

    With `rod_type` 0 it is that of the token `token_offset` bytes into the inline data; with any
    other the list's segments BEh and BFh populate it, and `return_token` asks for a token of it.
    `lifetime` and `inactivity` are in seconds. `parameters` is of no use to a reader.
    """

    TYPE: ClassVar[int] = 0xFE
    LENGTH: ClassVar[int] = 32

    producer: int
    rod_type: int
    lifetime: int = 0
    inactivity: int = 0
    return_token: bool = False
    delete_token: bool = False
    token_offset: int = 0
    device_type: int = 0
    parameters: DeviceParameters = field(default_factory=BlockParameters)
    relative_initiator_port: int = 0

    def pack(self) -> bytes:
        """The 32 bytes on the wire."""
        return (
            _Header(self.TYPE, self.device_type, self.relative_initiator_port).pack()
            + _ROD.pack(
                self.producer,
                self.rod_type,
                self.lifetime,
                self.inactivity,
                self.return_token,
                self.delete_token,
                self.token_offset,
            )
            + self.parameters.pack()
        )

    @classmethod
    def unpack(cls, data: Buffer) -> "RodCscd":
        """Read the 32 bytes. Raises InvalidField, for a device type that there is not.

        Of a token's ROD the token says the device type; the descriptor's is ignored.
        """
        raw = bytes(data[: cls.LENGTH])
        header = _Header.unpack(raw)
        producer, rod_type, lifetime, inactivity, returns, deletes, offset = _ROD.unpack_from(
            raw, 4
        )
        device_type = header.device_type if rod_type else 0
        return cls(
            producer,
            rod_type,
            lifetime,
            inactivity,
            bool(returns & 1),
            bool(deletes & 1),
            offset,
            device_type,
            _unpack_parameters(device_type, raw),
            header.relative_initiator_port,
        )


AddressCscd = Ipv4Cscd | Ipv6Cscd | AliasCscd
Cscd = IdentificationCscd | AddressCscd | RodCscd | Extension
CSCD_LENGTH = 32
CSCD_TYPES: dict[int, type[IdentificationCscd | AddressCscd | RodCscd]] = {
    IdentificationCscd.TYPE: IdentificationCscd,
    Ipv4Cscd.TYPE: Ipv4Cscd,
    AliasCscd.TYPE: AliasCscd,
    Ipv6Cscd.TYPE: Ipv6Cscd,
    RodCscd.TYPE: RodCscd,
}
"""The descriptors that can be read, by DESCRIPTOR TYPE CODE (SPC-4 table 131)."""
