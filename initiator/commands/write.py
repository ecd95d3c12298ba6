"""`serverfree write`: a file or standard input into blocks of a disk."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from serverfree.initiator.commands.common import (
    DONE,
    Subparsers,
    add_url,
    add_verb,
    intermix,
    unit_of,
)
from serverfree.initiator.commands.read import add_range
from serverfree.initiator.disk import Disk
from serverfree.scsi.inquiry import DeviceType


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb and its arguments."""
    parser = add_verb(subparsers, "write", "write blocks of a disk", run)
    add_url(parser)
    add_range(parser)
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: stdin")
    intermix(parser)


def run(args: argparse.Namespace) -> int:
    """Copy the blocks in; they are on stable storage when it ends."""
    with ExitStack() as opened:
        source = sys.stdin.buffer
        if args.file is not None:
            source = opened.enter_context(args.file.open("rb"))
        disk = Disk(opened.enter_context(unit_of(args.url)))
        disk.expect(DeviceType.DISK)
        length = args.blocks * disk.capacity().block_length
        disk.write_chunks(
            args.lba, _pieces(source, length, disk.piece * disk.capacity().block_length)
        )
        disk.flush()
    return DONE


def _pieces(source: BinaryIO, length: int, size: int) -> Iterator[memoryview]:
    while length:
        piece = memoryview(bytearray(min(size, length)))
        filled = 0
        while filled < len(piece):
            count = source.readinto(piece[filled:])  # type: ignore[attr-defined]
            if not count:
                raise ValueError(f"the input ends {length - filled} bytes short of --blocks")
            filled += count
        length -= len(piece)
        yield piece
