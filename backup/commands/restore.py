"""`serverfree restore`: from tape back to a disk, past this machine; or to a folder, through it."""

import argparse
from pathlib import Path

from serverfree.backup.commands.jobs import show_report
from serverfree.backup.commands.progress import watcher
from serverfree.backup.commands.tables import add_catalog
from serverfree.backup.restore.job import Request, restore
from serverfree.backup.restore.whole_disk import FreeSpace
from serverfree.initiator.commands.common import (
    DONE,
    FAILED,
    NUMBER,
    UNIT_URL,
    Subparsers,
    add_json,
    add_verb,
    intermix,
    interruptible,
)


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb and its arguments."""
    parser = add_verb(subparsers, "restore", "restore from tape, server-free", run)
    parser.epilog = (
        "Without PATH everything is restored: an image to the whole disk, files into the NTFS "
        "volume on it. PATH is a file, a folder with all in it, or a pattern: * and ? within a "
        "name, ** across folders; images have their files too. Exit code 1 if anything was skipped."
    )
    parser.add_argument("--backup", metavar="ID", required=True, help="its id, or `latest`")
    parser.add_argument("--tape", type=UNIT_URL, metavar="URL", required=True, help="the drive")
    parser.add_argument("--mover", type=UNIT_URL, metavar="URL", help="the copy manager's unit")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--disk", type=UNIT_URL, metavar="URL", help="restore onto this disk")
    where.add_argument(
        "--to-directory",
        type=Path,
        metavar="DIR",
        help="restore files to a folder of this machine; their content passes through it",
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="what to restore")
    _add_files(parser)
    _add_disk(parser)
    parser.add_argument(
        "--test",
        action="store_true",
        help="the disk is for scratch: restore to it, read it again and compare",
    )
    parser.add_argument(
        "--force", action="store_true", help="even onto what is reserved or marked dirty"
    )
    parser.add_argument(
        "--allow-through-server",
        action="store_true",
        help="if the copy manager cannot do it, copy through this machine",
    )
    add_catalog(parser)
    add_json(parser)
    parser.set_defaults(wrong=parser.error)
    intermix(parser)


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--into", default="", metavar="PATH", help="of files: restore them below this folder"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files that are there already"
    )
    parser.add_argument(
        "--partition", type=NUMBER, metavar="N", help="of the disk, where it has several volumes"
    )


def _add_disk(parser: argparse.ArgumentParser) -> None:
    free = parser.add_mutually_exclusive_group()
    free.add_argument(
        "--unmap",
        dest="free",
        action="store_const",
        const=FreeSpace.CLEAR,
        default=FreeSpace.AUTO,
        help="of an image: unmap what it does not hold, or write zeros (default: unmap if that is "
        "possible)",
    )
    free.add_argument(
        "--keep-free",
        dest="free",
        action="store_const",
        const=FreeSpace.KEEP,
        help="leave what the image does not hold as it is",
    )
    parser.add_argument(
        "--grow", action="store_true", help="of an image: let the volume fill a larger disk"
    )


def run(args: argparse.Namespace) -> int:
    """Restore, and say what was moved and what passed through here."""
    request = _request(args)
    with interruptible(args, "ending the copy"), watcher(silent=args.json) as seen:
        report = restore(request, seen)
    show_report(args, report)
    return FAILED if report.skipped else DONE


def _request(args: argparse.Namespace) -> Request:
    if args.disk is not None and args.mover is None and not args.allow_through_server:
        args.wrong("--mover is missing: a disk is restored by a copy manager")
    if args.to_directory is not None and args.test:
        args.wrong("--test takes a scratch --disk")
    return Request(
        backup=args.backup,
        tape=args.tape,
        mover=args.mover,
        disk=args.disk,
        folder=args.to_directory,
        paths=tuple(args.paths),
        into=args.into,
        partition=args.partition,
        free=args.free,
        grow=args.grow,
        overwrite=args.overwrite,
        force=args.force,
        trial=args.test,
        allow_through_server=args.allow_through_server,
        catalog=args.catalog,
    )
