"""`serverfree read`: blocks of a disk into a file or to standard output."""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from serverfree.initiator.commands.common import (
    DONE,
    NUMBER,
    Subparsers,
    add_url,
    add_verb,
    intermix,
    unit_of,
)
from serverfree.initiator.disk import Disk
from serverfree.scsi.inquiry import DeviceType


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb and its arguments."""
    parser = add_verb(subparsers, "read", "read blocks of a disk", run)
    add_url(parser)
    add_range(parser)
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: stdout")
    intermix(parser)


def add_range(parser: argparse.ArgumentParser) -> None:
    """Which blocks."""
    parser.add_argument("--lba", type=NUMBER, default=0, metavar="N", help="first block, from 0")
    parser.add_argument("--blocks", type=NUMBER, required=True, metavar="N", help="how many")


def run(args: argparse.Namespace) -> int:
    """Copy the blocks out; the file is only made when the disk has been reached."""
    with unit_of(args.url) as device, ExitStack() as opened:
        disk = Disk(device)
        disk.expect(DeviceType.DISK)
        disk.capacity()
        out = sys.stdout.buffer
        if args.file is not None:
            out = opened.enter_context(args.file.open("wb"))
        for chunk in disk.chunks(args.lba, args.blocks):
            out.write(chunk)
        out.flush()
    return DONE
