"""`serverfree scan`: the catalog again, from the cartridge alone."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from serverfree.backup.catalog.scan import TapeFile, scan
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.commands.tables import add_catalog, backup_facts, print_table
from serverfree.initiator.commands.common import (
    DONE,
    FAILED,
    NUMBER,
    UNIT_URL,
    Subparsers,
    add_json,
    add_verb,
    print_json,
    printable,
    unit_of,
)
from serverfree.initiator.sizes import format_size
from serverfree.initiator.tape import Tape
from serverfree.scsi.inquiry import DeviceType

_COLUMNS = (
    "FILE>", "BLOCK>", "BLOCKS>", "BACKUP", "STATE", "SIZE>", "MEMBERS>", "FOUND BY", "NAME",
)  # fmt: skip


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb and its arguments."""
    parser = add_verb(subparsers, "scan", "find the backups on a cartridge, for the catalog", run)
    parser.epilog = (
        "Backups that the catalog has are left as they are. Archives of tar are entered too. "
        "Nothing is written to the tape. Exit code 1 if something on it is damaged."
    )
    parser.add_argument("--tape", type=UNIT_URL, metavar="URL", required=True, help="the drive")
    parser.add_argument(
        "--partition", type=NUMBER, metavar="N", help="default: the one the tape stands in"
    )
    add_catalog(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Scan, and say what each file of the cartridge is."""
    with Catalog.open(args.catalog) as catalog, unit_of(args.tape) as device:
        tape = Tape(device)
        tape.expect(DeviceType.TAPE)
        tape.ready()
        found = list(
            scan(
                tape,
                catalog,
                tape_url=str(args.tape),
                partition=args.partition,
                watch=_watcher(args),
            )
        )
    if args.json:
        print_json([_facts(each) for each in found])
    elif found:
        print_table(_COLUMNS, map(_line, found))
        for each in found:
            for text in each.remarks:
                print(f"file {each.number}: {printable(text)}")
            for text in each.damage:
                print(f"file {each.number}: damaged: {printable(text)}")
    else:
        print("the cartridge is empty")
    return FAILED if any(each.damage for each in found) else DONE


def _watcher(args: argparse.Namespace) -> Callable[[str], None]:
    def watch(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    return (lambda text: None) if args.json else watch


def _line(found: TapeFile) -> tuple[str, ...]:
    backup = found.backup
    return (
        str(found.number),
        str(found.first_block),
        str(found.blocks),
        "-" if backup is None else backup.id,
        "-" if backup is None else backup.state.value,
        "-" if backup is None else format_size(backup.size),
        str(found.members) if found.members else "-",
        found.how,
        "-" if backup is None else backup.facts.name,
    )


def _facts(found: TapeFile) -> dict[str, Any]:
    return {
        "file": found.number,
        "partition": found.partition,
        "first_block": found.first_block,
        "blocks": found.blocks,
        "found_by": found.how,
        "members": found.members,
        "remarks": found.remarks,
        "damage": found.damage,
        "backup": None if found.backup is None else backup_facts(found.backup),
    }
