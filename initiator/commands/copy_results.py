"""`serverfree copy-results`: what a copy manager can do, and what it remembers of a copy."""

import argparse
from dataclasses import asdict
from typing import Any

from serverfree.initiator.commands.common import (
    DONE,
    NUMBER,
    UNIT_URL,
    Subparsers,
    add_json,
    add_verb,
    show,
    unit_of,
)
from serverfree.initiator.copy import CopyManager
from serverfree.scsi.copy_results import CopyCommandStatus
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.sense import Sense, SenseKey
from serverfree.scsi.status import Status


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb and its arguments."""
    parser = add_verb(subparsers, "copy-results", "ask a copy manager about its copies", run)
    parser.epilog = (
        "A copy manager keeps what it knows of a copy for the session that asked for it, so "
        "status and failure tell of copies of other sessions only where it keeps more than it must."
    )
    parser.add_argument(
        "--mover", type=UNIT_URL, required=True, metavar="URL", help="the copy manager's unit"
    )
    parser.add_argument("what", choices=("status", "parameters", "failure"))
    parser.add_argument("--list-id", type=NUMBER, default=1, metavar="N", help="default 1")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print one of the three answers."""
    with unit_of(args.mover) as device:
        manager = CopyManager(device)
        if args.what == "parameters":
            facts = asdict(manager.operating_parameters())
            facts["descriptor_types"] = [f"{code:02X}h" for code in facts["descriptor_types"]]
        else:
            facts = _about_copy(manager, args)
    show(args, facts)
    return DONE


def _about_copy(manager: CopyManager, args: argparse.Namespace) -> dict[str, Any]:
    try:
        return _status(manager, args.list_id) if args.what == "status" else _failure(manager, args)
    except CheckCondition as error:
        if error.sense.key is SenseKey.ILLEGAL_REQUEST:
            raise ValueError(
                f"{manager.device} knows no copy with list identifier {args.list_id} for this "
                f"session ({error.sense})"
            ) from error
        raise


def _status(manager: CopyManager, list_identifier: int) -> dict[str, Any]:
    status = manager.status(list_identifier)
    known = status.status in CopyCommandStatus.__members__.values()
    name = CopyCommandStatus(status.status).name if known else f"{status.status:02X}h"
    return {
        "status": name.lower().replace("_", " "),
        "segments_processed": status.segments_processed,
        "bytes_transferred": status.bytes_transferred,
        "held_data_discarded": status.held_data_discarded,
    }


def _failure(manager: CopyManager, args: argparse.Namespace) -> dict[str, Any]:
    details = manager.failure(args.list_id)
    if details.status is None:
        return {"status": None, "sense": None}
    known = details.status in Status.__members__.values()
    return {
        "status": Status(details.status).name if known else f"{details.status:02X}h",
        "sense": str(Sense.unpack(details.sense)) if details.sense else None,
    }
