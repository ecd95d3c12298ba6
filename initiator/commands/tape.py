"""`serverfree tape`: move, read and write a tape, in the words of mt."""

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from serverfree.initiator.commands.common import (
    DONE,
    FAILED,
    NUMBER,
    SIZE,
    Subparsers,
    add_json,
    add_url,
    add_verb,
    intermix,
    show,
    unit_of,
)
from serverfree.initiator.copy_plan import DEFAULT_TAPE_BLOCK
from serverfree.initiator.tape import Stop, Tape
from serverfree.scsi.inquiry import DeviceType

Operation = Callable[[Tape, argparse.Namespace], int]


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb, its operations and their arguments."""
    parser = add_verb(subparsers, "tape", "move, read and write a tape", run)
    add_url(parser)
    operations = parser.add_subparsers(dest="operation", metavar="OPERATION", required=True)

    def add(name: str, text: str, operation: Operation) -> argparse.ArgumentParser:
        one = operations.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        one.set_defaults(tape_operation=operation)
        return one

    def add_counted(name: str, text: str, operation: Operation) -> None:
        one = add(name, text, operation)
        one.add_argument("count", nargs="?", type=NUMBER, default=1, metavar="N", help="default 1")

    add_json(add("status", "show drive, cartridge and position", _status))
    add("rewind", "go to the beginning", _simple(Tape.rewind))
    add("eod", "go to the end of what is written", _simple(Tape.end_of_data))
    add_counted("weof", "write N filemarks", _write_filemarks)
    add_counted("fsf", "go forward over N filemarks", _space(Tape.space_filemarks, +1))
    add_counted("bsf", "go back over N filemarks", _space(Tape.space_filemarks, -1))
    add_counted("fsr", "go forward over N blocks", _space(Tape.space_blocks, +1))
    add_counted("bsr", "go back over N blocks", _space(Tape.space_blocks, -1))
    locate = add("locate", "go to block N", lambda tape, args: _locate(tape, args))
    locate.add_argument("block", type=NUMBER, metavar="N")
    locate.add_argument("--file", action="store_true", help="N is the number of a file instead")
    erase = add("erase", "erase from here on", _erase)
    erase.add_argument("--long", action="store_true", help="to the end of the tape")
    add("load", "load the cartridge", _simple(Tape.load))
    add("unload", "rewind and unload the cartridge", _simple(Tape.unload))
    cat = add("cat", "write the blocks up to the next filemark to a file", _cat)
    cat.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: stdout")
    write = add("write", "write a file as blocks and a filemark", _write)
    write.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: stdin")
    write.add_argument("--tape-block", type=SIZE, default=DEFAULT_TAPE_BLOCK, metavar="S")
    intermix(write)


def run(args: argparse.Namespace) -> int:
    """Run one operation on the tape."""
    with unit_of(args.url) as device:
        tape = Tape(device)
        tape.expect(DeviceType.TAPE)
        operation: Operation = args.tape_operation
        return operation(tape, args)


def _simple(verb: Callable[[Tape], None]) -> Operation:
    def operation(tape: Tape, args: argparse.Namespace) -> int:
        verb(tape)
        return DONE

    return operation


def _space(verb: Callable[[Tape, int], Stop | None], sign: int) -> Operation:
    def operation(tape: Tape, args: argparse.Namespace) -> int:
        stop = verb(tape, sign * args.count)
        if stop is not None:
            print(f"serverfree tape: stopped at {stop.value}", file=sys.stderr)
            return FAILED
        return DONE

    return operation


def _status(tape: Tape, args: argparse.Namespace) -> int:
    facts = asdict(tape.status())
    position = facts.pop("position") or {}
    show(args, facts | {f"position_{name}": value for name, value in position.items()})
    return DONE


def _warn(early_warning: bool) -> None:
    if early_warning:
        print("serverfree tape: the end of the tape is near", file=sys.stderr)


def _write_filemarks(tape: Tape, args: argparse.Namespace) -> int:
    _warn(tape.write_filemarks(args.count))
    return DONE


def _locate(tape: Tape, args: argparse.Namespace) -> int:
    if args.file:
        tape.locate_file(args.block)
    else:
        tape.locate(args.block)
    return DONE


def _erase(tape: Tape, args: argparse.Namespace) -> int:
    tape.erase(long=args.long)
    return DONE


def _cat(tape: Tape, args: argparse.Namespace) -> int:
    buffer = memoryview(bytearray(tape.block_limits().maximum or (1 << 24) - 1))
    with ExitStack() as opened:
        out = sys.stdout.buffer
        if args.file is not None:
            out = opened.enter_context(args.file.open("wb"))
        while not isinstance(block := tape.read_block(buffer), Stop):
            out.write(block)
        out.flush()
    return DONE


def _write(tape: Tape, args: argparse.Namespace) -> int:
    near_end = False
    with ExitStack() as opened:
        source = sys.stdin.buffer
        if args.file is not None:
            source = opened.enter_context(args.file.open("rb"))
        while block := source.read(args.tape_block):
            near_end |= tape.write_block(block)
    _warn(tape.write_filemarks() or near_end)
    return DONE
