"""`serverfree ls`: the files in a backup."""

import argparse
from collections.abc import Iterator

from serverfree.backup.archive.member import Kind
from serverfree.backup.catalog.facts import Backup, Entry
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.commands.tables import add_catalog, entry_facts, moment, print_table
from serverfree.initiator.commands.common import (
    DONE,
    Subparsers,
    add_json,
    add_verb,
    print_json,
)
from serverfree.initiator.sizes import format_size

_LETTERS = {
    Kind.FILE: "-",
    Kind.DIRECTORY: "d",
    Kind.HARD_LINK: "h",
    Kind.SYMBOLIC_LINK: "l",
    Kind.IMAGE: "i",
    Kind.CATALOG: "c",
    Kind.OTHER: "?",
}


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb and its arguments."""
    parser = add_verb(subparsers, "ls", "list the files in a backup", run)
    parser.add_argument("id", metavar="ID", help="of the backup, or `latest`")
    parser.add_argument("path", nargs="?", default="", metavar="PATH", help="a folder or file")
    parser.add_argument("-r", "--recursive", action="store_true", help="and all below it")
    parser.add_argument(
        "--where", action="store_true", help="show on which tape, block and byte the content lies"
    )
    add_catalog(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """List a folder, or a file with its streams."""
    with Catalog.open(args.catalog, make=False) as catalog:
        backup = catalog.backup(args.id)
        if args.recursive:
            entries = list(catalog.members(backup, [args.path] if args.path else ()))
            folders = []
        else:
            entries = list(catalog.list(backup, args.path))
            known = {entry.member.path for entry in entries}
            folders = [each for each in catalog.folders(backup, args.path) if each not in known]
        if args.json:
            facts = [{"backup": backup.id, "path": each, "kind": "directory"} for each in folders]
            for entry in entries:
                where = {"where": list(_where(catalog, entry))} if args.where else {}
                facts.append(entry_facts(entry) | where)
            print_json(facts)
        elif args.where:
            print_table(
                ("TAPE", "PARTITION>", "BLOCK>", "BYTE>", "START>", "LENGTH>", "PATH"),
                _where_lines(catalog, entries),
            )
        else:
            lines = [("d", "", "", f"{each}/") for each in folders]
            print_table(("KIND", "SIZE>", "MODIFIED", "PATH"), [*lines, *map(_line, entries)])
    return DONE


def _line(entry: Entry) -> tuple[str, ...]:
    member = entry.member
    shown = entry.shown
    if member.kind is Kind.DIRECTORY and not member.stream:
        shown += "/"
    if member.link_target:
        shown += f" -> {member.link_target}"
    if member.damage:
        shown += f"  [{member.damage}]"
    size = "" if member.kind is Kind.DIRECTORY else format_size(member.size)
    return _LETTERS[member.kind], size, moment(member.modified, short=True), shown


def _where(catalog: Catalog, entry: Entry) -> Iterator[dict[str, object]]:
    for backup, data in catalog.pieces(entry):
        block, byte = _place(backup, data.archive_offset)
        yield {
            "tape": backup.facts.medium_serial,
            "partition": backup.facts.partition,
            "block": block,
            "byte": byte,
            "start": data.start,
            "length": data.length,
        }


def _where_lines(catalog: Catalog, entries: list[Entry]) -> Iterator[tuple[str, ...]]:
    for entry in entries:
        for each in _where(catalog, entry):
            yield (*map(str, each.values()), entry.shown)


def _place(backup: Backup, archive_offset: int) -> tuple[int, int]:
    facts = backup.facts
    blocks, byte = divmod(archive_offset, facts.tape_block or 512)
    return facts.first_block + blocks, byte
