"""`serverfree backup`: a disk to tape, past this machine."""

import argparse
import os

from serverfree.backup.archive.pax import BLOCK
from serverfree.backup.catalog.facts import Mode
from serverfree.backup.commands.jobs import show_report
from serverfree.backup.commands.progress import watcher
from serverfree.backup.commands.snapshot import (
    ARRAY_VARIABLE,
    add_hook_arguments,
    add_quiet_arguments,
    check_token,
    hooks_of,
)
from serverfree.backup.commands.tables import add_catalog
from serverfree.backup.contents import Wish
from serverfree.backup.estimate import estimate
from serverfree.backup.job import Request, back_up
from serverfree.backup.parent import LATEST
from serverfree.backup.source import Quiet
from serverfree.initiator.commands.common import (
    DONE,
    NUMBER,
    UNIT_URL,
    Subparsers,
    add_json,
    add_verb,
    argument,
    intermix,
    interruptible,
    show,
)
from serverfree.initiator.copy_plan import DEFAULT_TAPE_BLOCK
from serverfree.initiator.sizes import format_size, parse_size

_LONGEST_NAME = 100


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb and its arguments."""
    parser = add_verb(subparsers, "backup", "back up a disk to tape, server-free", run)
    parser.epilog = (
        "The tape file is a tar archive that GNU tar reads. PATH is a file, a folder with all in "
        "it, or a pattern: * and ? within a name, ** across folders; case does not count."
    )
    parser.add_argument("--mover", type=UNIT_URL, metavar="URL", help="the copy manager's unit")
    parser.add_argument(
        "--disk", type=UNIT_URL, metavar="URL", required=True, help="what to back up"
    )
    parser.add_argument("--tape", type=UNIT_URL, metavar="URL", required=True, help="the drive")
    _add_snapshot(parser)
    _add_choice(parser)
    _add_tape(parser)
    parser.add_argument(
        "--allow-through-server",
        action="store_true",
        help="if the copy manager cannot do it, copy through this machine",
    )
    add_catalog(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="tell what it would come to; nothing is written"
    )
    add_json(parser)
    parser.set_defaults(wrong=parser.error)
    intermix(parser)


def _add_snapshot(parser: argparse.ArgumentParser) -> None:
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--array",
        metavar="http://H:P",
        default=os.environ.get(ARRAY_VARIABLE),
        help=f"the storage system's management API, for a snapshot (default: {ARRAY_VARIABLE})",
    )
    way.add_argument(
        "--no-snapshot",
        action="store_true",
        help="read the disk as it is, while others may write to it",
    )
    add_quiet_arguments(parser)
    add_hook_arguments(parser)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", metavar="PATH", help="of --mode files: what to take")
    parser.add_argument(
        "--mode",
        choices=(Mode.IMAGE.value, Mode.FILES.value),
        help="the used clusters of the disk (default), or its files; a PATH means files",
    )
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="GLOB",
        help="leave out: a name anywhere, or a path from the root where it has a /",
    )
    parser.add_argument(
        "--partition",
        type=NUMBER,
        metavar="N",
        help="of the disk, where it has several volumes (default of an image: all of them)",
    )
    parser.add_argument(
        "--name",
        type=argument(_name),
        default="disk",
        help="of the backup, and of its image on tape",
    )
    parser.add_argument(
        "--incremental",
        nargs="?",
        const=LATEST,
        metavar="PARENT",
        help="an image of what has changed since a backup (default: the last image of the disk)",
    )


def _add_tape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tape-block",
        type=argument(_tape_block),
        default=DEFAULT_TAPE_BLOCK,
        metavar="S",
        help=f"bytes of a block on tape (default {format_size(DEFAULT_TAPE_BLOCK)})",
    )
    parser.add_argument(
        "--tape-partition", type=NUMBER, metavar="N", help="of the tape, where it has several"
    )
    parser.add_argument(
        "--overwrite-tape",
        action="store_true",
        help="begin at the beginning: what is on the tape is lost (default: append)",
    )


def _tape_block(text: str) -> int:
    size = parse_size(text)
    if not size or size % BLOCK:
        raise ValueError(f"{text}: tar reads blocks of a whole number of {BLOCK} bytes")
    return size


def _name(text: str) -> str:
    if not text or "/" in text or not text.isprintable() or len(text) > _LONGEST_NAME:
        raise ValueError(f"{text!r}: a name has 1 to {_LONGEST_NAME} printable characters and no /")
    return text


def run(args: argparse.Namespace) -> int:
    """Back up, and say what was moved and what passed through here."""
    request = _request(args)
    if args.dry_run:
        show(args, estimate(request).facts())
        return DONE
    doing = "ending the copy, closing the tape file, deleting the snapshot"
    with interruptible(args, doing), watcher(args.quiet, silent=args.json) as seen:
        report = back_up(request, seen)
    show_report(args, report)
    return DONE


def _request(args: argparse.Namespace) -> Request:
    mode = Mode(args.mode or (Mode.FILES if args.paths or args.exclude else Mode.IMAGE))
    if mode is Mode.IMAGE and (args.paths or args.exclude):
        args.wrong("an image holds all of a disk: PATH and --exclude go with --mode files")
    if args.incremental is not None and mode is not Mode.IMAGE:
        args.wrong("--incremental is for images")
    if args.no_snapshot:
        args.array = None
    elif args.array is None and not args.dry_run:
        args.wrong("name the storage system's --array, or say --no-snapshot")
    if args.incremental is not None and args.overwrite_tape:
        args.wrong("--incremental adds to an image on the tape, which --overwrite-tape would lose")
    if args.incremental is not None and args.array is None:
        args.wrong("--incremental takes --array: only the storage system knows what has changed")
    if args.mover is None and not (args.allow_through_server or args.dry_run):
        args.wrong("--mover is missing")
    if args.array is not None and not args.dry_run:
        check_token(args)
    return Request(
        disk=args.disk,
        tape=args.tape,
        mover=args.mover,
        array=args.array,
        quiet=Quiet(args.quiet, args.timeout),
        hooks=hooks_of(args),
        wish=Wish(mode, tuple(args.paths), tuple(args.exclude), args.partition, args.name),
        incremental=args.incremental,
        tape_block=args.tape_block,
        tape_partition=args.tape_partition,
        overwrite_tape=args.overwrite_tape,
        allow_through_server=args.allow_through_server,
        catalog=args.catalog,
    )
