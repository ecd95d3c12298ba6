"""`serverfree raw`: any CDB, with data in or out, as it is; nothing is retried."""

import argparse
import sys
from pathlib import Path
from typing import Any

from serverfree.initiator.commands.common import (
    DONE,
    FAILED,
    SIZE,
    Subparsers,
    add_json,
    add_url,
    add_verb,
    argument,
    print_json,
    unit_of,
)
from serverfree.initiator.copy_listing import hex_dump
from serverfree.scsi.device import Result
from serverfree.scsi.status import Status

_MAX_CDB = 260


def _cdb(text: str) -> bytes:
    try:
        cdb = bytes.fromhex(text.replace(":", " ").replace(",", " "))
    except ValueError:
        raise ValueError(f"{text!r} is not a CDB in hexadecimal") from None
    if not 6 <= len(cdb) <= _MAX_CDB:
        raise ValueError(f"a CDB has 6 to {_MAX_CDB} bytes, not {len(cdb)}")
    return cdb


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb and its arguments."""
    parser = add_verb(subparsers, "raw", "send any CDB", run)
    add_url(parser)
    parser.add_argument("cdb", type=argument(_cdb), metavar="CDBHEX", help='as "12 00 00 00 24 00"')
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--in", type=SIZE, dest="data_in", metavar="N", help="take up to N bytes")
    data.add_argument("--out", type=Path, metavar="FILE", help="send the content of a file")
    parser.add_argument("--binary", action="store_true", help="print the bytes that come, only")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print status, sense and data; exit 0 only if the status is GOOD."""
    data_out = b"" if args.out is None else args.out.read_bytes()
    buffer = memoryview(bytearray(args.data_in)) if args.data_in else None
    with unit_of(args.url) as device:
        result = device.submit(args.cdb, data_out=data_out, data_in=buffer).wait()
    data = bytes(buffer[: result.transferred]) if buffer is not None else b""
    if args.binary:
        sys.stdout.buffer.write(data)
    elif args.json:
        print_json(_facts(result, data))
    else:
        print(f"status {result.status.name}")
        if result.sense is not None:
            print(f"sense {result.sense}")
        for line in hex_dump(data):
            print(line)
    return DONE if result.status in (Status.GOOD, Status.CONDITION_MET) else FAILED


def _facts(result: Result, data: bytes) -> dict[str, Any]:
    sense = result.sense
    return {
        "status": result.status.name,
        "sense": None
        if sense is None
        else {
            "key": sense.key.name,
            "asc": sense.asc >> 8,
            "ascq": sense.asc & 0xFF,
            "text": str(sense),
            "information": sense.information,
            "raw": sense.raw.hex(),
        },
        "data": data.hex(),
    }
