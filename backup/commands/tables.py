"""How the verbs of the catalog show what they found: tables for people, JSON for programs.

Names come from disks and tapes of anyone. What a terminal might obey is shown escaped.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serverfree.backup.catalog.facts import Backup, Entry
from serverfree.backup.catalog.store import default_path
from serverfree.initiator.commands.common import printable

_NANOSECONDS = 10**9


def add_catalog(parser: argparse.ArgumentParser) -> None:
    """The catalog that a verb is about."""
    parser.add_argument(
        "--catalog", type=Path, metavar="FILE", help=f"default: this user's, {default_path()}"
    )


def moment(nanoseconds: int | None, *, short: bool = False) -> str:
    """Return a time as UTC, to the second or, short, to the minute; empty for None."""
    if nanoseconds is None:
        return ""
    try:
        at = datetime.fromtimestamp(nanoseconds // _NANOSECONDS, UTC)
    except (ValueError, OverflowError, OSError):
        return "?"  # a file system may say any year
    return f"{at:%Y-%m-%d %H:%M}" if short else f"{at:%Y-%m-%dT%H:%M:%SZ}"


def backup_facts(backup: Backup) -> dict[str, Any]:
    """Return a backup for JSON."""
    facts = asdict(backup.facts) | {"mode": backup.facts.mode.value}
    return {
        "backup": backup.id,
        **facts,
        "created": moment(backup.facts.created),
        "state": backup.state.value,
        "finished": moment(backup.finished) or None,
        "blocks": backup.blocks,
        "size": backup.size,
        "warnings": list(backup.warnings),
        "report": dict(backup.report),
    }


def entry_facts(entry: Entry) -> dict[str, Any]:
    """Return a member for JSON; names that are no Unicode are given with escapes."""
    member = entry.member
    return {
        "backup": entry.backup.id,
        "path": member.path,
        "stream": member.stream,
        "kind": member.kind.value,
        "size": member.size,
        "modified": moment(member.modified),
        "number": member.number,
        "link_target": member.link_target or None,
        "header_offset": member.header_offset if member.end_offset else None,
        "server_bytes": member.server_bytes,
        "damage": member.damage or None,
    }


def print_table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Print a table; a column whose name ends with `>` is set to the right.

    Two blanks part the cells and none is empty, so that a script finds them; the last, which may
    be as long as it likes, is not padded, so that it widens no other line.
    """
    rows = [[printable(cell) or "-" for cell in line] for line in lines]
    names = [name.removesuffix(">") for name in columns]
    table = [names, *rows] if any(names) else rows
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)][:-1]
    for *cells, last in table:
        padded = (
            cell.rjust(width) if name.endswith(">") else cell.ljust(width)
            for name, cell, width in zip(columns, cells, widths, strict=False)
        )  # fmt: skip
        print(*padded, last, sep="  ")
