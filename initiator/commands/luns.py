"""`serverfree luns`: what logical units a target has."""

import argparse
from typing import Any

from serverfree.initiator.commands.common import (
    DONE,
    URL,
    Subparsers,
    add_json,
    add_verb,
    print_json,
    printable,
    target_of,
)
from serverfree.initiator.disk import Disk
from serverfree.initiator.session import LogicalUnit
from serverfree.initiator.sizes import format_size
from serverfree.scsi.errors import ScsiError
from serverfree.scsi.inquiry import DeviceType


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb and its arguments."""
    parser = add_verb(subparsers, "luns", "list a target's logical units", run)
    parser.add_argument("url", type=URL, metavar="URL", help="iscsi://HOST[:PORT]/TARGET[/LUN]")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print a line for each unit: its URL, what it is, its size."""
    with target_of(args.url) as session:
        facts = [_facts(session.unit(lun)) for lun in session.report_luns()]
    if args.json:
        print_json(facts)
        return DONE
    for one in facts:
        size = "-" if one["size"] is None else format_size(one["size"])
        print(
            one["url"], one["type"], printable(f"{one['vendor']} {one['product']}"), size, sep="\t"
        )
    return DONE


def _facts(unit: LogicalUnit) -> dict[str, Any]:
    disk = Disk(unit)
    inquiry = disk.inquiry()
    size = None
    if inquiry.device_type == DeviceType.DISK:
        try:
            size = disk.capacity().size
        except ScsiError:
            size = None  # not ready: the other facts still count
    return {
        "url": str(unit),
        "lun": unit.lun,
        "type": _type_name(inquiry.device_type),
        "vendor": inquiry.vendor,
        "product": inquiry.product,
        "revision": inquiry.revision,
        "size": size,
    }


def _type_name(code: int) -> str:
    try:
        return DeviceType(code).name.lower().replace("_", "-")
    except ValueError:
        return f"type-{code:02x}h"
