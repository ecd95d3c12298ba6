"""`serverfree backups`: what the catalog has."""

import argparse

from serverfree.backup.catalog.facts import Backup
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.commands.tables import add_catalog, backup_facts, moment, print_table
from serverfree.initiator.commands.common import (
    DONE,
    Subparsers,
    add_json,
    add_verb,
    print_json,
)
from serverfree.initiator.sizes import format_size


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb and its arguments."""
    parser = add_verb(subparsers, "backups", "list the backups in the catalog", run)
    parser.add_argument(
        "id", nargs="?", metavar="ID", help="only this one, and all that is known of it"
    )
    parser.add_argument(
        "--forget",
        action="store_true",
        help="take it out of the catalog; its tape keeps it, and a scan finds it again",
    )
    add_catalog(parser)
    add_json(parser)
    parser.set_defaults(wrong=parser.error)


def run(args: argparse.Namespace) -> int:
    """List backups, the oldest first."""
    if args.forget and args.id is None:
        args.wrong("say which backup to forget, by its ID")
    with Catalog.open(args.catalog, make=False) as catalog:
        found = catalog.backups() if args.id is None else [catalog.backup(args.id)]
        if args.forget:
            catalog.remove(found[0])
    if args.json:
        print_json([backup_facts(each) for each in found])
    elif args.id is not None:
        facts = backup_facts(found[0])
        report, warnings = facts.pop("report"), facts.pop("warnings")
        lines = [(name.replace("_", " "), _plain(value)) for name, value in facts.items()]
        lines += [
            (f"report: {name.replace('_', ' ')}", _plain(each)) for name, each in report.items()
        ]
        lines += [("warning", each) for each in warnings]
        print_table(("", ""), lines)
    elif found:
        columns = (
            "ID",
            "CREATED",
            "MODE",
            "STATE",
            "SIZE>",
            "TAPE",
            "FILE>",
            "CONSISTENCY",
            "OF",
            "NAME",
        )
        print_table(columns, map(_line, found))
    else:
        print("the catalog is empty")
    return DONE


def _line(backup: Backup) -> tuple[str, ...]:
    facts = backup.facts
    return (
        backup.id,
        moment(facts.created, short=True),
        facts.mode.value,
        backup.state.value,
        format_size(backup.size) if backup.size else "",
        facts.medium_serial,
        "" if facts.file is None else str(facts.file),
        facts.consistency,
        f"since {facts.parent[:8]}" if facts.parent else "all",
        facts.name,
    )


def _plain(value: object) -> str:
    return "" if value is None else str(value)
