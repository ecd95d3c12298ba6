"""`serverfree xcopy`: a copy that a copy manager does, past this machine."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from serverfree.initiator.commands.common import (
    DONE,
    NUMBER,
    SIZE,
    UNIT_URL,
    Subparsers,
    add_json,
    add_verb,
    intermix,
    interruptible,
    print_json,
)
from serverfree.initiator.copy import copy_cdb
from serverfree.initiator.copy_listing import annotate_copy, describe_copy
from serverfree.initiator.copy_plan import DEFAULT_TAPE_BLOCK, Plan
from serverfree.initiator.sizes import format_size
from serverfree.initiator.xcopy import CopyReport, Progress, dry_run, read_list, xcopy, xcopy_list
from serverfree.scsi.copy_list import CopyList

_DOING = "ending the copy"


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb and its arguments."""
    parser = add_verb(subparsers, "xcopy", "copy by EXTENDED COPY, server-free", run)
    parser.epilog = (
        "A list describes any parameter list in TOML (JSON where the name ends so): [[cscd]] with "
        "name, and url or designator and device_type; [[segment]] with type, source, destination "
        "and the fields of that segment; raw = hex for a descriptor of any kind."
    )
    parser.add_argument("--mover", type=UNIT_URL, metavar="URL", help="the copy manager's unit")
    parser.add_argument("source", type=UNIT_URL, nargs="?", metavar="SRC", help="a disk or a tape")
    parser.add_argument(
        "destination", type=UNIT_URL, nargs="?", metavar="DST", help="a disk or a tape"
    )
    parser.add_argument(
        "--list", type=Path, metavar="FILE", help="send the parameter list that FILE describes"
    )
    parser.add_argument(
        "--held", type=Path, metavar="FILE", help="of a list: where to put the data held for us"
    )
    parser.add_argument(
        "--skip", type=NUMBER, default=0, metavar="N", help="begin N blocks into the source disk"
    )
    parser.add_argument(
        "--seek", type=NUMBER, default=0, metavar="N", help="write N blocks into the destination"
    )
    parser.add_argument(
        "--count",
        type=NUMBER,
        metavar="N",
        help="copy N blocks of the source disk, from a tape N blocks of the destination; "
        "default: the whole disk, from a tape the file that it stands before",
    )
    parser.add_argument(
        "--tape-block",
        type=SIZE,
        default=DEFAULT_TAPE_BLOCK,
        metavar="S",
        help=f"bytes of a block on tape (default {format_size(DEFAULT_TAPE_BLOCK)})",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be sent; nothing is copied"
    )
    add_json(parser)
    parser.set_defaults(wrong=parser.error)
    intermix(parser)


def run(args: argparse.Namespace) -> int:
    """Copy, and say what was moved and what passed through here."""
    _check_usage(args)
    if args.list is not None:
        return _run_list(args)
    wishes = {
        "skip": args.skip,
        "seek": args.seek,
        "count": args.count,
        "tape_block": args.tape_block,
    }
    if args.dry_run:
        _show_plan(args, dry_run(args.source, args.destination, **wishes))
        return DONE
    with interruptible(args, _DOING), _progress_bar(args) as progress:
        report = xcopy(args.mover, args.source, args.destination, progress=progress, **wishes)
    _show_report(args, report)
    return DONE


def _check_usage(args: argparse.Namespace) -> None:
    if args.mover is None and not args.dry_run:
        args.wrong("--mover is missing")
    if args.list is None and args.destination is None:
        args.wrong("name SRC and DST, or a --list")
    if args.list is not None and (args.source or args.skip or args.seek or args.count is not None):
        args.wrong("a --list says itself what to copy from where to where")
    if args.held is not None and args.list is None:
        args.wrong("--held goes with --list")


def _run_list(args: argparse.Namespace) -> int:
    copy = read_list(args.list)
    if args.dry_run:
        _show_commands(args, [copy], {})
        return DONE
    with interruptible(args, _DOING), _progress_bar(args) as progress:
        held = None if args.held is None else args.held.write_bytes
        report = xcopy_list(args.mover, copy, progress=progress, held=held)
    _show_report(args, report)
    return DONE


def _show_plan(args: argparse.Namespace, plan: Plan) -> None:
    _show_commands(args, [step.copy for step in plan.steps], {"bytes": plan.size})


def _show_commands(args: argparse.Namespace, copies: list[CopyList], facts: dict[str, Any]) -> None:
    commands = []
    for copy in copies:
        parameters = copy.pack()
        cdb = copy_cdb(copy, len(parameters))
        if not args.json:
            print(f"EXTENDED COPY(LID{4 if copy.lid4 else 1})  {cdb.hex(' ')}")
            print(*annotate_copy(copy), sep="\n")
        commands.append(
            {
                "cdb": cdb.hex(),
                "parameter_list": parameters.hex(),
                "meaning": list(describe_copy(copy)),
            }
        )
    if args.json:
        print_json({**facts, "commands": commands})


def _show_report(args: argparse.Namespace, report: CopyReport) -> None:
    if args.json:
        print_json(asdict(report) | {"server_bytes": report.server_bytes})
        return
    rate = report.moved_bytes / report.seconds if report.seconds else 0
    share = report.server_bytes / report.moved_bytes if report.moved_bytes else 0
    print(f"moved by the copy manager  {report.moved_bytes} bytes, {format_size(rate)}/s")
    print(f"through this machine       {report.server_bytes} bytes ({share:.4%})")
    print(f"commands, segments         {report.commands}, {report.segments}")


@contextmanager
def _progress_bar(args: argparse.Namespace) -> Iterator[Progress | None]:
    """Yield a callback that draws a bar on standard error, None where nobody looks."""
    # Imported here: it takes longer than all the rest, and most runs draw nothing.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    console = Console(stderr=True)
    if args.json or not console.is_terminal:
        yield None
        return
    with Progress(
        "{task.description}", BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(),
        console=console, transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("copying", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)
