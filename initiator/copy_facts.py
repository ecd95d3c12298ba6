"""What RECEIVE COPY RESULTS and VPD page 8Fh say, as facts with names: from bytes, whosever."""

from collections.abc import Callable
from dataclasses import asdict
from enum import IntEnum
from typing import Any

from serverfree.initiator.copy_listing import words_of
from serverfree.scsi.copy_cscd import CSCD_TYPES, IdentificationCscd
from serverfree.scsi.copy_page import RodFeatures, ThirdPartyCopyPage
from serverfree.scsi.copy_results import (
    BLOCKS,
    UPDATE_DELAY_ENDED,
    UPDATE_DELAY_UNKNOWN,
    CopyCommandStatus,
    CopyOperationStatus,
    CopyStatus,
    FailureDetails,
    OperatingParameters,
    OperationStatus,
)
from serverfree.scsi.copy_segments import SEGMENT_TYPES
from serverfree.scsi.rod_token import MANAGEMENT_TOKEN_LENGTH, RodToken, RodType
from serverfree.scsi.sense import Sense
from serverfree.scsi.status import Status
from serverfree.scsi.vpd import HEADER_LENGTH

Facts = dict[str, Any]
_NO_UPDATE = {UPDATE_DELAY_ENDED: "ended", UPDATE_DELAY_UNKNOWN: "unknown"}


def status_facts(response: bytes) -> Facts:
    """RECEIVE COPY STATUS(LID1) (SPC-4 6.25)."""
    status = CopyStatus.unpack(_whole(response))
    return {
        "status": _name(CopyCommandStatus, status.status),
        "segments_processed": status.segments_processed,
        "bytes_transferred": status.bytes_transferred,
        "held_data_discarded": status.held_data_discarded,
    }


def operation_facts(response: bytes) -> Facts:
    """RECEIVE COPY STATUS(LID4) (6.24)."""
    return _operation(OperationStatus.unpack(response))


def operation_data_facts(response: bytes) -> Facts:
    """RECEIVE COPY DATA(LID4) (6.20)."""
    operation = OperationStatus.unpack(response, with_data=True)
    return _operation(operation) | _data(operation.data or b"")


def data_facts(response: bytes) -> Facts:
    """RECEIVE COPY DATA(LID1) (6.21)."""
    return _data(held_data(response))


def held_data(response: bytes) -> bytes:
    """Return the data of RECEIVE COPY DATA(LID1); ValueError if it is cut short."""
    return _whole(response)[4:]


def failure_facts(response: bytes) -> Facts:
    """RECEIVE COPY FAILURE DETAILS(LID1) (6.23)."""
    details = FailureDetails.unpack(response)
    if details.status is None:
        return {"status": None, "sense": None}
    return {"status": _name(Status, details.status), "sense": _sense(details.sense)}


def parameter_facts(response: bytes) -> Facts:
    """RECEIVE COPY OPERATING PARAMETERS (6.22)."""
    return _parameters(OperatingParameters.unpack(response))


def page_facts(page: bytes) -> Facts:
    """VPD page 8Fh (7.8.17)."""
    if len(page) < HEADER_LENGTH + int.from_bytes(page[2:HEADER_LENGTH], "big"):
        raise ValueError(f"{len(page)} bytes are not all of the page")
    parsed = ThirdPartyCopyPage.unpack(page)
    commands = [
        f"{opcode:02X}h/{action:02X}h"
        for opcode, actions in parsed.commands.items()
        for action in actions
    ]
    cscd_ids = [f"{one:04X}h" for one in parsed.cscd_ids]
    facts = {"commands": commands, "cscd_ids": cscd_ids} | _parameters(parsed.parameters)
    return facts if parsed.rods is None else facts | _rods(parsed.rods)


def token_facts(response: bytes) -> Facts:
    """RECEIVE ROD TOKEN INFORMATION (6.26)."""
    operation = OperationStatus.unpack(response, with_data=True)
    tokens = [
        {"cscd": cscd_id, **_token(token), "token": token.hex()}
        for cscd_id, token in operation.tokens
    ]
    facts = _operation(operation)
    if operation.transfer_count_units == BLOCKS:
        facts["blocks_transferred"] = operation.transfer_count
    return facts | {"tokens": tokens}


def all_token_facts(response: bytes) -> Facts:
    """REPORT ALL ROD TOKENS (6.31): what is told of each, which is not enough to use it."""
    body = _whole(response)[8:]
    if len(body) % MANAGEMENT_TOKEN_LENGTH:
        raise ValueError(f"{len(body)} bytes are not whole ROD management tokens")
    starts = range(0, len(body), MANAGEMENT_TOKEN_LENGTH)
    return {"tokens": [_token(body[at : at + MANAGEMENT_TOKEN_LENGTH]) for at in starts]}


def rod_type_name(code: int) -> str:
    """Return a ROD type with what it is: `00800002h persistent`."""
    try:
        return f"{code:08X}h {RodType(code).name.lower().replace('_', ' ')}"
    except ValueError:
        return f"{code:08X}h"


def _token(raw: bytes) -> Facts:
    token = RodToken.unpack(raw)
    try:
        creator = str(IdentificationCscd.unpack(token.creator).designator)
    except ValueError:
        creator = "unknown"
    return {
        "rod_type": rod_type_name(token.type),
        "identifier": token.identifier.hex(),
        "creator": creator,
        "bytes_represented": token.bytes_represented,
    }


DECODERS: dict[tuple[str, bool], Callable[[bytes], Facts]] = {
    ("status", False): status_facts,
    ("status", True): operation_facts,
    ("data", False): data_facts,
    ("data", True): operation_data_facts,
    ("failure", False): failure_facts,
    ("tokens", True): token_facts,
    ("all-tokens", False): all_token_facts,
    ("parameters", False): parameter_facts,
    ("capabilities", False): page_facts,
}
"""By what is asked, and whether the list identifier has 32 bits (LID4)."""


def descriptor_name(code: int) -> str:
    """Return a descriptor type code with what it is: `02h block to block`."""
    kind = SEGMENT_TYPES.get(code)
    if kind is not None:
        return f"{code:02X}h {words_of(kind.__name__)}"
    cscd = CSCD_TYPES.get(code)
    if cscd is None:
        return f"{code:02X}h"
    return f"{code:02X}h {words_of(cscd.__name__.removesuffix('Cscd'))} CSCD"


def _operation(operation: OperationStatus) -> Facts:
    delay = operation.update_delay
    return {
        "status": _name(CopyOperationStatus, operation.status),
        "response_to_service_action": f"{operation.response_to:02X}h",
        "operation_counter": operation.operation_counter,
        "update_delay_ms": _NO_UPDATE.get(delay, delay),
        "completion_status": _name(Status, operation.completion_status),
        "sense": _sense(operation.sense),
        "segments_processed": operation.segments_processed,
        "bytes_transferred": operation.bytes_transferred,
        "held_data_discarded": operation.held_data_discarded,
    }


def _rods(rods: RodFeatures) -> Facts:
    return {
        "maximum_token_ranges": rods.maximum_ranges,
        "default_token_inactivity": rods.default_inactivity,
        "maximum_token_inactivity": rods.maximum_inactivity,
        "minimum_token_lifetime": rods.minimum_lifetime,
        "maximum_token_lifetime": rods.maximum_lifetime,
        "rod_types": {
            rod_type_name(code): [
                word
                for word, has in zip(("internal", "token in", "token out"), can, strict=True)
                if has
            ]
            for code, can in sorted(rods.types.items())
        },
    }


def _parameters(parameters: OperatingParameters) -> Facts:
    facts = asdict(parameters)
    facts["descriptor_types"] = [descriptor_name(code) for code in parameters.descriptor_types]
    return facts


def _whole(response: bytes) -> bytes:
    """Return as much of the response as its first field, AVAILABLE DATA, says that there is."""
    end = 4 + int.from_bytes(response[:4], "big")
    if len(response) < max(4, end):
        raise ValueError(f"{len(response)} bytes are not all of a response")
    return response[:end]


def _data(data: bytes) -> Facts:
    return {"bytes": len(data), "data": data.hex(" ")}


def _sense(raw: bytes) -> str | None:
    return str(Sense.unpack(raw)) if raw else None


def _name(kind: type[IntEnum], code: int) -> str:
    try:
        return kind(code).name.lower().replace("_", " ")
    except ValueError:
        return f"{code:02X}h"
