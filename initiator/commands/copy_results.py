"""`serverfree copy-results`: what a copy manager can do, and what it remembers of a copy."""

import argparse
from typing import Any

from serverfree.initiator.commands.common import (
    DONE,
    NUMBER,
    UNIT_URL,
    Subparsers,
    add_json,
    add_verb,
    argument,
    show,
    unit_of,
)
from serverfree.initiator.copy import CopyManager
from serverfree.initiator.copy_facts import DECODERS
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.sense import Asc, SenseKey

_WHAT = tuple(dict.fromkeys(what for what, _ in DECODERS))
_OF_A_COPY = ("status", "data", "failure", "tokens")


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb and its arguments."""
    parser = add_verb(subparsers, "copy-results", "ask a copy manager about its copies", run)
    parser.epilog = (
        "A copy manager keeps what it knows of a copy for the session that asked for it, so "
        "status, data and failure tell of copies of other sessions only where it keeps more than "
        "it must. --decode reads a response that was captured elsewhere."
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--mover", type=UNIT_URL, metavar="URL", help="the copy manager's unit")
    source.add_argument(
        "--decode", type=argument(bytes.fromhex), metavar="HEX", help="a response, in hexadecimal"
    )
    parser.add_argument("what", choices=_WHAT)
    parser.add_argument("--list-id", type=NUMBER, default=1, metavar="N", help="default 1")
    parser.add_argument(
        "--lid4",
        action="store_true",
        help="the list identifier is one of 32 bits (status, data; that of tokens always is)",
    )
    parser.set_defaults(wrong=parser.error)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print one of the answers."""
    args.lid4 |= args.what == "tokens"
    question = args.what, args.lid4
    if question not in DECODERS:
        args.wrong(f"{args.what} has no form for list identifiers of 32 bits")
    response = _ask(args) if args.decode is None else args.decode
    show(args, DECODERS[question](response))
    return DONE


def _ask(args: argparse.Namespace) -> Any:
    with unit_of(args.mover) as device:
        try:
            return CopyManager(device).response(args.what, args.list_id, lid4=args.lid4)
        except CheckCondition as error:
            if (
                error.sense.key is SenseKey.ILLEGAL_REQUEST
                and error.sense.asc is not Asc.INVALID_COMMAND_OPERATION_CODE
                and args.what in _OF_A_COPY
            ):
                raise ValueError(
                    f"{device} knows no copy with list identifier {args.list_id} for this "
                    f"session ({error.sense})"
                ) from error
            raise
