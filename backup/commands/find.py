"""`serverfree find`: in which backups a file is."""

import argparse

from serverfree.backup.catalog.store import Catalog
from serverfree.backup.commands.tables import add_catalog, entry_facts, moment, print_table
from serverfree.initiator.commands.common import (
    DONE,
    FAILED,
    Subparsers,
    add_json,
    add_verb,
    print_json,
)
from serverfree.initiator.sizes import format_size


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb and its arguments."""
    parser = add_verb(subparsers, "find", "find files in the backups, by name or path", run)
    parser.epilog = (
        "Case does not count. A pattern without / is held against names, one with / against whole "
        "paths; `find FOLDER/FILE` so shows the versions of a file. Exit code 1 if there is none."
    )
    parser.add_argument("pattern", metavar="PATTERN", help="a name, or with *, ? and [...]")
    parser.add_argument("--backup", metavar="ID", help="only in this one; `latest` is one too")
    add_catalog(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Show what matches, the oldest backup first."""
    with Catalog.open(args.catalog, make=False) as catalog:
        backups = None if args.backup is None else [catalog.backup(args.backup)]
        found = list(catalog.find(args.pattern, backups))
    if args.json:
        print_json([entry_facts(entry) for entry in found])
    elif found:
        print_table(
            ("BACKUP", "CREATED", "STATE", "SIZE>", "MODIFIED", "PATH"),
            (
                (
                    entry.backup.id,
                    moment(entry.backup.facts.created, short=True),
                    entry.backup.state.value,
                    format_size(entry.member.size),
                    moment(entry.member.modified, short=True),
                    entry.shown,
                )
                for entry in found
            ),
        )
    return DONE if found else FAILED
