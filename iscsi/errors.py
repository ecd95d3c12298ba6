"""What goes wrong on an iSCSI connection, with what the wire says of it."""

from serverfree.iscsi.codes import LoginStatus, RejectReason


class ProtocolError(Exception):
    """The peer broke RFC 7143 in a way that ends the connection (or its login)."""


class RejectPdu(ProtocolError):
    """The peer's PDU is answered with a Reject (11.17); the connection lives on."""

    def __init__(self, reason: RejectReason, why: str) -> None:
        super().__init__(f"{reason.name.lower()}: {why}")
        self.reason = reason


class DataDigestError(ProtocolError):
    """A data segment is not what was sent; its PDU, whose header is good, is in `pdu` (7.8)."""

    def __init__(self, pdu: tuple[memoryview, memoryview, memoryview]) -> None:
        super().__init__("wrong data digest")
        self.pdu = pdu


class LoginFailure(ProtocolError):
    """A login is refused with this status (11.13.5); on the initiator, the target refused it."""

    def __init__(self, status: LoginStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class SessionLost(ProtocolError):
    """The connection is gone and with it every command under way."""
