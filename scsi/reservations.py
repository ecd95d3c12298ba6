"""Persistent reservations on the wire: types, parameter lists and data (SPC-4 6.15, 6.16)."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from serverfree.scsi.device import Buffer
from serverfree.scsi.transport_id import TransportId

LU_SCOPE = 0
_NO_TYPE = 0


class ReservationType(IntEnum):
    """TYPE of a persistent reservation (6.15.3.4, table 206)."""

    WRITE_EXCLUSIVE = 0x1
    EXCLUSIVE_ACCESS = 0x3
    WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 0x5
    EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 0x6
    WRITE_EXCLUSIVE_ALL_REGISTRANTS = 0x7
    EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 0x8

    @property
    def exclusive_access(self) -> bool:
        """Whether reading too is restricted."""
        return self in _EXCLUSIVE_ACCESS

    @property
    def admits_registrants(self) -> bool:
        """Whether every registered nexus may do what the holder may."""
        return self in _REGISTRANTS

    @property
    def all_registrants(self) -> bool:
        """Whether every registered nexus is a holder."""
        return self in _ALL_REGISTRANTS


_ALL_REGISTRANTS = (
    ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS,
    ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
)
_REGISTRANTS = (
    ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
    ReservationType.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY,
    *_ALL_REGISTRANTS,
)
_EXCLUSIVE_ACCESS = (
    ReservationType.EXCLUSIVE_ACCESS,
    ReservationType.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY,
    ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
)

_HEADER = Struct(">II")
_RESERVATION = Struct(">Q4xxB2x")
_CAPABILITIES = Struct(">HBBHxx")
_STATUS = Struct(">Q4xBB4xHI")
_BASIC = Struct(">QQ4xB3x")
_MOVE = Struct(">QQxBHI")
BASIC_LENGTH = MOVE_LENGTH = 24

_CRH, _SIP_C, _ATP_C, _PTPL_C = 0x10, 0x08, 0x04, 0x01
_TMV, _PTPL_A = 0x80, 0x01
_ALLOWS_ALL_OF_TABLE_65 = 0b100 << 4  # ALLOW COMMANDS, 6.15.4 table 208
_TYPE_MASK = 0xEA01  # all six types, table 209


def pack_keys(generation: int, keys: Iterable[int]) -> bytes:
    """Parameter data of READ KEYS."""
    body = b"".join(key.to_bytes(8, "big") for key in keys)
    return _HEADER.pack(generation, len(body)) + body


def pack_reservation(generation: int, held: tuple[int, int] | None) -> bytes:
    """Parameter data of READ RESERVATION; `held` is the holder's key (0: all) and the type."""
    body = b"" if held is None else _RESERVATION.pack(held[0], LU_SCOPE << 4 | held[1])
    return _HEADER.pack(generation, len(body)) + body


def pack_capabilities(*, can_persist: bool, persists: bool) -> bytes:
    """Parameter data of REPORT CAPABILITIES."""
    return _CAPABILITIES.pack(
        _CAPABILITIES.size,
        _CRH | _SIP_C | _ATP_C | (_PTPL_C if can_persist else 0),
        _TMV | _ALLOWS_ALL_OF_TABLE_65 | (_PTPL_A if persists else 0),
        _TYPE_MASK,
    )


@dataclass(frozen=True, slots=True)
class FullStatus:
    """One full status descriptor; `type` None where the nexus holds no reservation."""

    key: int
    initiator_port: str
    relative_port: int
    all_target_ports: bool = False
    type: ReservationType | None = None

    def pack(self) -> bytes:
        """The descriptor."""
        name = TransportId.of_port(self.initiator_port).pack()
        holds = self.type is not None
        return (
            _STATUS.pack(
                self.key,
                self.all_target_ports << 1 | holds,
                LU_SCOPE << 4 | (self.type or _NO_TYPE),
                self.relative_port,
                len(name),
            )
            + name
        )


def pack_full_status(generation: int, descriptors: Iterable[FullStatus]) -> bytes:
    """Parameter data of READ FULL STATUS."""
    body = b"".join(each.pack() for each in descriptors)
    return _HEADER.pack(generation, len(body)) + body


@dataclass(frozen=True, slots=True)
class ReserveOutList:
    """The parameter list of every service action but REGISTER AND MOVE (6.16.3)."""

    key: int
    action_key: int
    specify_initiator_ports: bool = False
    all_target_ports: bool = False
    persist: bool = False  # APTPL
    initiator_ports: tuple[TransportId, ...] = ()

    def pack(self) -> bytes:
        """The list."""
        flags = self.specify_initiator_ports << 3 | self.all_target_ports << 2 | self.persist
        body = _BASIC.pack(self.key, self.action_key, flags)
        if self.specify_initiator_ports:
            names = b"".join(each.pack() for each in self.initiator_ports)
            body += len(names).to_bytes(4, "big") + names
        return body

    @classmethod
    def unpack(cls, data: Buffer) -> "ReserveOutList":
        """Read a list. Raises ValueError where it is cut short or holds no TransportIDs."""
        raw = bytes(data)
        if len(raw) < _BASIC.size:
            raise ValueError(f"parameter list of {len(raw)} bytes")
        key, action_key, flags = _BASIC.unpack_from(raw)
        names: list[TransportId] = []
        if flags & 0x08:
            rest = raw[_BASIC.size :]
            length = int.from_bytes(rest[:4], "big")
            if len(rest) < 4 or len(rest) - 4 < length:
                raise ValueError(f"TransportIDs of {length} bytes in a list of {len(raw)}")
            rest = rest[4 : 4 + length]
            while rest:
                name, used = TransportId.unpack(rest)
                names.append(name)
                rest = rest[used:]
        return cls(
            key, action_key, bool(flags & 0x08), bool(flags & 0x04), bool(flags & 0x01), (*names,)
        )


@dataclass(frozen=True, slots=True)
class MoveList:
    """The parameter list of REGISTER AND MOVE (6.16.4)."""

    key: int
    action_key: int
    initiator_port: TransportId
    relative_port: int
    unregister: bool = False
    persist: bool = False  # APTPL

    def pack(self) -> bytes:
        """The list."""
        name = self.initiator_port.pack()
        flags = self.unregister << 1 | self.persist
        return _MOVE.pack(self.key, self.action_key, flags, self.relative_port, len(name)) + name

    @classmethod
    def unpack(cls, data: Buffer) -> "MoveList":
        """Read a list. Raises ValueError where it is cut short or names no port."""
        raw = bytes(data)
        if len(raw) < _MOVE.size:
            raise ValueError(f"parameter list of {len(raw)} bytes")
        key, action_key, flags, port, length = _MOVE.unpack_from(raw)
        if length != len(raw) - _MOVE.size:
            raise ValueError(f"TransportID of {length} bytes in a list of {len(raw)}")
        name, _ = TransportId.unpack(raw[_MOVE.size :])
        return cls(key, action_key, name, port, bool(flags & 0x02), bool(flags & 0x01))
