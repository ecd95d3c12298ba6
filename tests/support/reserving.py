"""Persistent reservations by hand: CDBs and parameter lists as bytes, and nexuses to send them."""

from serverfree.scsi.status import Status
from serverfree.target.units.base import Unit
from serverfree.target.units.command import Nexus, Reply
from support.disk import Host

TARGET = "iqn.2026-11.com.example:t"
IN, OUT = 0x5E, 0x5F
REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, IGNORE, MOVE = range(8)
WE, EA, WE_RO, EA_RO, WE_AR, EA_AR = 1, 3, 5, 6, 7, 8
TYPES = (WE, EA, WE_RO, EA_RO, WE_AR, EA_AR)


def nexus(name: str, port: int = 1) -> Nexus:
    """A nexus of the initiator of this short name."""
    return Nexus(f"iqn.2026-11.com.example:{name},i,0x400001370000", f"{TARGET},t,0x{port:04x}")


def transport_id(name: str) -> bytes:
    """The TransportID of that initiator's port (SPC-4 7.6.4.6)."""
    text = f"iqn.2026-11.com.example:{name},i,0x400001370000".encode() + b"\0"
    text += bytes(-len(text) % 4)
    return b"\x45\0" + len(text).to_bytes(2, "big") + text


class Member(Host):
    """An initiator of a cluster at a unit, with the key that it has registered."""

    def __init__(self, unit: Unit, name: str, port: int = 1) -> None:
        super().__init__(unit, nexus(name, port))
        self.key = 0

    def out(
        self,
        action: int,
        *,
        kind: int = 0,
        key: int | None = None,
        new: int = 0,
        flags: int = 0,
        scope: int = 0,
        more: bytes = b"",
    ) -> Reply:
        """PERSISTENT RESERVE OUT with a basic parameter list and what follows it."""
        key = self.key if key is None else key
        data = key.to_bytes(8, "big") + new.to_bytes(8, "big") + bytes(4)
        data += bytes((flags, 0, 0, 0)) + more
        cdb = bytes((OUT, action, scope << 4 | kind, 0, 0)) + len(data).to_bytes(4, "big") + b"\0"
        return self(cdb, data)

    def register(self, key: int, flags: int = 0) -> None:
        """Register a key, or another one."""
        assert self.out(REGISTER, new=key, flags=flags).status is Status.GOOD
        self.key = key

    def reserve(self, kind: int) -> Status:
        """RESERVE; return the status."""
        return self.out(RESERVE, kind=kind).status

    def move(self, name: str, new: int, *, kind: int, port: int = 1, flags: int = 0) -> Reply:
        """REGISTER AND MOVE to a port of another initiator."""
        identifier = transport_id(name)
        data = self.key.to_bytes(8, "big") + new.to_bytes(8, "big")
        data += bytes((0, flags)) + port.to_bytes(2, "big") + len(identifier).to_bytes(4, "big")
        data += identifier
        cdb = bytes((OUT, MOVE, kind, 0, 0)) + len(data).to_bytes(4, "big") + b"\0"
        return self(cdb, data)

    def report(self, action: int) -> bytes:
        """PERSISTENT RESERVE IN: the whole parameter data."""
        return self.good(bytes((IN, action, 0, 0, 0, 0, 0, 0x10, 0, 0)))

    def keys(self) -> list[int]:
        """READ KEYS."""
        data = self.report(0)[8:]
        return [int.from_bytes(data[at : at + 8], "big") for at in range(0, len(data), 8)]

    def reservation(self) -> tuple[int, int] | None:
        """READ RESERVATION: the holder's key and the type."""
        data = self.report(1)[8:]
        return (int.from_bytes(data[:8], "big"), data[13]) if data else None

    def writes(self) -> bool:
        """Whether WRITE(10) of one block is let through."""
        return self._passes(bytes.fromhex("2a 00 00 00 00 00 00 00 01 00"), bytes(512))

    def reads(self) -> bool:
        """Whether READ(10) of one block is let through."""
        return self._passes(bytes.fromhex("28 00 00 00 00 00 00 00 01 00"))

    def _passes(self, cdb: bytes, data: bytes = b"") -> bool:
        status = self(cdb, data).status
        assert status in (Status.GOOD, Status.RESERVATION_CONFLICT)
        return status is Status.GOOD
