"""The PDUs of RFC 7143: one class each, the 48-byte header packed and unpacked beside its fields.

`pack` gives the basic header segment, with the length of `data` in it; the sender puts header,
data and padding on the wire (`framing`). `unpack` takes a complete header and trusts that framing
has found the data segment. Objects are plain slots (0.65 us to make, frozen ones 2.2): nothing
changes them after `unpack`.

Field names are the RFC's. LUNs are the 8 bytes as one number; tags and numbers are 32 bits.
"""

from serverfree.iscsi.pdu_initiator import (
    DataOut,
    LoginRequest,
    LogoutRequest,
    NopOut,
    ScsiCommand,
    SnackRequest,
    TaskManagementRequest,
    TextRequest,
)
from serverfree.iscsi.pdu_target import (
    R2T,
    AsyncMessage,
    DataIn,
    LoginResponse,
    LogoutResponse,
    NopIn,
    Reject,
    ScsiResponse,
    TaskManagementResponse,
    TextResponse,
)
from serverfree.scsi.device import Buffer

__all__ = [
    "BY_OPCODE",
    "R2T",
    "AsyncMessage",
    "Buffer",
    "DataIn",
    "DataOut",
    "InitiatorPdu",
    "LoginRequest",
    "LoginResponse",
    "LogoutRequest",
    "LogoutResponse",
    "NopIn",
    "NopOut",
    "Pdu",
    "Reject",
    "ScsiCommand",
    "ScsiResponse",
    "SnackRequest",
    "TargetPdu",
    "TaskManagementRequest",
    "TaskManagementResponse",
    "TextRequest",
    "TextResponse",
]

InitiatorPdu = (
    NopOut
    | ScsiCommand
    | TaskManagementRequest
    | DataOut
    | TextRequest
    | LoginRequest
    | LogoutRequest
    | SnackRequest
)
TargetPdu = (
    NopIn
    | ScsiResponse
    | TaskManagementResponse
    | DataIn
    | R2T
    | AsyncMessage
    | TextResponse
    | LoginResponse
    | LogoutResponse
    | Reject
)
Pdu = InitiatorPdu | TargetPdu

BY_OPCODE: dict[int, type[Pdu]] = {
    cls.OPCODE: cls
    for cls in (
        NopOut,
        ScsiCommand,
        TaskManagementRequest,
        DataOut,
        TextRequest,
        LoginRequest,
        LogoutRequest,
        SnackRequest,
        NopIn,
        ScsiResponse,
        TaskManagementResponse,
        DataIn,
        R2T,
        AsyncMessage,
        TextResponse,
        LoginResponse,
        LogoutResponse,
        Reject,
    )
}
