"""`serverfree snapshot`: points in time of a storage system's disks, by its management API."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from serverfree.backup.array import (
    TOKEN_VARIABLE,
    Array,
    ArrayError,
    Progress,
    SnapshotFacts,
    token_from_environment,
)
from serverfree.backup.hooks import CONSISTENCIES, TIMEOUT, Hooks
from serverfree.initiator.commands.common import (
    DONE,
    NUMBER,
    Subparsers,
    add_json,
    add_verb,
    argument,
    print_json,
    refuse,
    show,
)
from serverfree.initiator.sizes import format_size

ARRAY_VARIABLE = "SERVERFREE_ARRAY"


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb and what it can do."""
    parser = add_verb(subparsers, "snapshot", "take, list and delete snapshots of disks", run)
    parser.epilog = (
        f"The token of the storage system's management API comes from {TOKEN_VARIABLE}. DISK is a "
        "name, a URL or a designator."
    )
    does = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    create = does.add_parser(
        "create",
        help="wait for a quiet period, then take a snapshot",
        description="Wait until nothing has been written to a disk for a while, then take a "
        "snapshot, which can be read as a unit of its own. Exit code 1 if that does not come in "
        "time.",
    )
    _add_array(create)
    create.add_argument("disk", metavar="DISK")
    add_quiet_arguments(create)
    create.add_argument("--name", metavar="NAME", help="what to call it; default: disk and time")
    add_hook_arguments(create)
    add_json(create)
    create.set_defaults(act=_create, wrong=create.error)

    listing = does.add_parser("list", help="what snapshots there are")
    _add_array(listing)
    listing.add_argument("disk", metavar="DISK", nargs="?", help="only those of this disk")
    add_json(listing)
    listing.set_defaults(act=_list)

    delete = does.add_parser("delete", help="give up a snapshot and its space")
    _add_array(delete)
    delete.add_argument("snapshot", metavar="SNAPSHOT", help="a name or designator")
    delete.add_argument("--force", action="store_true", help="even while it is read")
    delete.set_defaults(act=_delete)

    changes = does.add_parser(
        "changes", help="what changed between an earlier snapshot of the disk and this one"
    )
    _add_array(changes)
    changes.add_argument("snapshot", metavar="SNAPSHOT", help="a name or designator")
    changes.add_argument(
        "--since",
        type=NUMBER,
        required=True,
        metavar="GENERATION",
        help="the generation of the earlier one, which need not be there any more",
    )
    add_json(changes)
    changes.set_defaults(act=_changes)


def add_quiet_arguments(parser: argparse.ArgumentParser) -> None:
    """How long nothing may have been written, and how long to wait for that."""
    parser.add_argument(
        "--quiet",
        type=argument(_seconds),
        metavar="S",
        help="seconds without a write to wait for (default: the disk's setting, 3)",
    )
    parser.add_argument(
        "--timeout",
        type=argument(_seconds),
        metavar="S",
        help="seconds after which to give up (default: the disk's setting, 80)",
    )


def add_hook_arguments(parser: argparse.ArgumentParser) -> None:
    """What to run around a snapshot: `hooks_of` what comes of it."""
    parser.add_argument(
        "--before",
        metavar="CMD",
        help="run this first, as `fsfreeze --freeze /srv`; if it fails there is no snapshot",
    )
    parser.add_argument(
        "--after", metavar="CMD", help="run this in the end, whatever happened, as to unfreeze"
    )
    parser.add_argument(
        "--hook-timeout",
        type=argument(_seconds),
        default=TIMEOUT,
        metavar="S",
        help=f"seconds that each of them may take (default {TIMEOUT:g})",
    )
    parser.add_argument(
        "--consistency",
        choices=CONSISTENCIES,
        help="what --before sees to (default with one: fs); without one a snapshot is crash "
        "consistent",
    )


def hooks_of(args: argparse.Namespace) -> Hooks:
    """Return the commands of `add_hook_arguments`; a promise that nobody keeps is wrong usage."""
    if args.before is None and args.consistency not in (None, CONSISTENCIES[0]):
        args.wrong(f"--consistency {args.consistency} takes a --before command that sees to it")
    return Hooks(args.before, args.after, args.hook_timeout, args.consistency)


def check_token(args: argparse.Namespace) -> None:
    """End here, before anything is contacted, if the token is missing."""
    try:
        token_from_environment()
    except ArrayError as error:
        refuse(args, error)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise ValueError(f"{text!r}: seconds, 0 to 86400")
    return seconds


def _add_array(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get(ARRAY_VARIABLE)
    parser.add_argument(
        "--array",
        metavar="http://H:P",
        default=default,
        required=default is None,
        help=f"the storage system's management API (default: {ARRAY_VARIABLE})",
    )


def run(args: argparse.Namespace) -> int:
    """Do it."""
    check_token(args)
    with Array(args.array) as array:
        code: int = args.act(array, args)
        return code


def _create(array: Array, args: argparse.Namespace) -> int:
    hooks = hooks_of(args)
    disk = array.find_disk(args.disk)
    with hooks.around() as consistency, _countdown(args, disk.quiet_period) as see:
        made = array.create(
            disk.designator,
            quiet=args.quiet,
            timeout=args.timeout,
            name=args.name,
            consistency=consistency,
            progress=see,
        )
    show(args, _facts(made))
    return DONE


def _list(array: Array, args: argparse.Namespace) -> int:
    found = array.snapshots()
    if args.disk is not None:
        disk = array.find_disk(args.disk)
        found = [one for one in found if (one.target, one.disk) == (disk.target, disk.name)]
    if args.json:
        print_json([_facts(one) for one in found])
        return DONE
    for one in found:
        state = one.consistency if one.invalid is None else f"invalid: {one.invalid}"
        print(one.name, one.disk, one.url, format_size(one.size), one.created, state, sep="\t")
    return DONE


def _delete(array: Array, args: argparse.Namespace) -> int:
    array.delete(args.snapshot, force=args.force)
    return DONE


def _changes(array: Array, args: argparse.Namespace) -> int:
    changes = array.changes(args.snapshot, args.since)
    changed = sum(length for _, length in changes.extents)
    if args.json:
        print_json({**asdict(changes), "bytes": changed})
        return DONE
    for offset, length in changes.extents:
        print(offset, length, sep="\t")
    if not changes.complete:
        print("not all is known: everything has to be taken for changed")
    return DONE


def _facts(one: SnapshotFacts) -> dict[str, Any]:
    return asdict(one)


@contextmanager
def _countdown(args: argparse.Namespace, default: float) -> Iterator[Progress | None]:
    """Yield a callback that shows how much of the quiet period is over, None where nobody looks."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    quiet = default if args.quiet is None else args.quiet
    console = Console(stderr=True)
    if args.json or not console.is_terminal or not quiet:
        yield None
        return
    words = TextColumn("{task.description}")
    with Progress(words, BarColumn(), console=console, transient=True) as bar:
        task = bar.add_task("waiting", total=quiet)

        def show_wait(now: float, waited: float) -> None:
            left = max(0.0, quiet - now)
            text = f"quiet for {now:.1f} s, {left:.1f} s to go, waiting for {waited:.0f} s"
            bar.update(task, completed=min(now, quiet), description=text)

        yield show_wait
