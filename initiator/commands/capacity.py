"""`serverfree capacity`: how large a disk is."""

import argparse
from dataclasses import asdict

from serverfree.initiator.commands.common import (
    DONE,
    Subparsers,
    add_json,
    add_url,
    add_verb,
    show,
    unit_of,
)
from serverfree.initiator.disk import Disk
from serverfree.scsi.inquiry import DeviceType


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb and its arguments."""
    parser = add_verb(subparsers, "capacity", "show the size of a disk", run)
    add_url(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print blocks, block lengths and bytes."""
    with unit_of(args.url) as device:
        disk = Disk(device)
        disk.expect(DeviceType.DISK)
        capacity = disk.capacity()
    show(args, asdict(capacity) | {"size": capacity.size})
    return DONE
