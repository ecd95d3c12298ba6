"""Parameter lists of asymmetric logical unit access (SPC-4 6.37, 6.45)."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from serverfree.scsi.device import Buffer

_DESCRIPTOR = Struct(">BBHxBxB")
_PORT = Struct(">2xH")
_SET = Struct(">BxH")
_EXTENDED_HEADER = bytes((0x10, 0, 0, 0))  # no implicit transitions: no time is given
_SUPPORTED = 0x0F  # U_SUP, S_SUP, AN_SUP, AO_SUP


class AccessState(IntEnum):
    """ASYMMETRIC ACCESS STATE (6.37, table 306)."""

    ACTIVE_OPTIMIZED = 0x0
    ACTIVE_NON_OPTIMIZED = 0x1
    STANDBY = 0x2
    UNAVAILABLE = 0x3


class Cause(IntEnum):
    """STATUS CODE: what the last change was due to (table 308)."""

    NONE = 0
    SET_TARGET_PORT_GROUPS = 1


@dataclass(frozen=True, slots=True)
class PortGroup:
    """A target port group descriptor."""

    group: int
    state: AccessState
    ports: tuple[int, ...]
    cause: Cause = Cause.NONE

    def pack(self) -> bytes:
        """The descriptor."""
        return _DESCRIPTOR.pack(
            self.state, _SUPPORTED, self.group, self.cause, len(self.ports)
        ) + b"".join(_PORT.pack(port) for port in self.ports)


def pack_port_groups(groups: Iterable[PortGroup], *, extended: bool) -> bytes:
    """Parameter data of REPORT TARGET PORT GROUPS."""
    body = (_EXTENDED_HEADER if extended else b"") + b"".join(each.pack() for each in groups)
    return len(body).to_bytes(4, "big") + body


def unpack_set_port_groups(data: Buffer) -> list[tuple[int, int]]:
    """Return the (group, state) pairs of SET TARGET PORT GROUPS.

    Raises ValueError where the list is cut short.
    """
    raw = bytes(data)
    if len(raw) < 4 or len(raw) % 4:
        raise ValueError(f"parameter list of {len(raw)} bytes")
    return [(group, first & 0x0F) for first, group in _SET.iter_unpack(raw[4:])]
