"""What RECEIVE COPY RESULTS answers about one copy, and what is let go of once it is told."""

from collections.abc import Callable

from serverfree.datamover.copies import Copy
from serverfree.scsi.cdb.copy import (
    ExtendedCopy,
    ReceiveCopyData,
    ReceiveCopyDataLid4,
    ReceiveCopyFailureDetails,
    ReceiveCopyStatus,
    ReceiveCopyStatusLid4,
    ReceiveRodTokenInformation,
)
from serverfree.scsi.copy_results import CopyCommandStatus, CopyOperationStatus, pack_held_data
from serverfree.scsi.errors import invalid_field_in_cdb

LIST_IDENTIFIER_FIELD = 2
"""The byte of the CDBs that name a copy."""


def _lid1_status(copy: Copy, allocation_length: int) -> bytes:
    if not copy.status_kept:
        raise invalid_field_in_cdb(LIST_IDENTIFIER_FIELD)
    response = copy.lid1_status()
    if response.status != CopyCommandStatus.IN_PROGRESS:
        copy.status_kept = False  # told once, after the end (6.25 a)
    return response.pack()


def _lid1_data(copy: Copy, allocation_length: int) -> bytes:
    if copy.running:
        raise invalid_field_in_cdb(LIST_IDENTIFIER_FIELD)
    response = pack_held_data(copy.held.bytes())
    _fetched(copy, response, allocation_length)
    return response


def _lid1_failure(copy: Copy, allocation_length: int) -> bytes:
    if copy.running or copy.origin != ExtendedCopy.SERVICE_ACTION:
        raise invalid_field_in_cdb(LIST_IDENTIFIER_FIELD)
    response = copy.lid1_failure().pack()
    if not allocation_length or allocation_length >= len(response):
        copy.failure_kept = False  # fetched whole, or declined (6.23 a, b)
    return response


def _lid4_status(copy: Copy, allocation_length: int) -> bytes:
    return copy.lid4_status().pack()


def _lid4_data(copy: Copy, allocation_length: int) -> bytes:
    answer = copy.lid4_status()
    answer.held_data_discarded = copy.held.discarded
    ended_well = copy.status is CopyOperationStatus.COMPLETED
    answer.data = copy.held.bytes() if ended_well else b""
    response = answer.pack()
    # What a copy that failed has held is told to nobody; it can be declined all the same.
    if ended_well or (not copy.running and not allocation_length):
        _fetched(copy, response, allocation_length)
    return response


def _token_information(copy: Copy, allocation_length: int) -> bytes:
    answer = copy.lid4_status()
    told = (CopyOperationStatus.COMPLETED, CopyOperationStatus.PARTIAL_TOKEN)
    tokens = copy.tokens if copy.status in told else []
    answer.data = b"".join(cscd_id.to_bytes(2, "big") + token for cscd_id, token in tokens)
    response = answer.pack()
    if not allocation_length or allocation_length >= len(response):
        copy.tokens = []  # fetched, or declined (6.26 a, b)
    return response


def _fetched(copy: Copy, response: bytes, allocation_length: int) -> None:
    """Let go of held data that has been fetched whole, or declined (5.17.4.5 a, b)."""
    if not allocation_length or allocation_length >= len(response):
        copy.held.drop()


RESPONSES: dict[int, Callable[[Copy, int], bytes]] = {
    int(kind.SERVICE_ACTION or 0): respond
    for kind, respond in (
        (ReceiveCopyStatus, _lid1_status),
        (ReceiveCopyData, _lid1_data),
        (ReceiveCopyFailureDetails, _lid1_failure),
        (ReceiveCopyStatusLid4, _lid4_status),
        (ReceiveCopyDataLid4, _lid4_data),
        (ReceiveRodTokenInformation, _token_information),
    )
}
"""Whole responses by service action, of a copy that is known, for an allocation length."""
