"""What the verbs share: their arguments, a unit to talk to, facts on standard output."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from serverfree.initiator.session import LogicalUnit, Session
from serverfree.initiator.sizes import parse_size
from serverfree.initiator.urls import open_session, open_target
from serverfree.iscsi.errors import ProtocolError
from serverfree.iscsi.names import Portal, Url

DONE, FAILED, WRONG_USAGE = 0, 1, 2

Subparsers = Any  # argparse._SubParsersAction has no public name


def argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return `parse` for argparse: what it says of bad input reaches the person who typed it."""

    def checked(text: str) -> Any:
        try:
            return parse(text)
        except (ValueError, ProtocolError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


def _number(text: str) -> int:
    """Return a number written in decimal, or in hexadecimal as 0x... or ...h."""
    hexadecimal = text.lower().removesuffix("h") if text.lower().endswith("h") else None
    number = int(text, 0) if hexadecimal is None else int(hexadecimal, 16)
    if number < 0:
        raise ValueError(f"{text} is negative")
    return number


def _unit_url(text: str) -> Url:
    url = Url.parse(text)
    if url.lun is None:
        raise ValueError(f"{url} names a target; add the number of a unit: {url}/0")
    return url


URL = argument(Url.parse)
UNIT_URL = argument(_unit_url)
PORTAL = argument(Portal.parse)
SIZE = argument(parse_size)
NUMBER = argument(_number)


def add_verb(subparsers: Subparsers, name: str, text: str, run: Any) -> argparse.ArgumentParser:
    """Declare a verb; its whole help begins with the same words as its line in the list."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    parser.set_defaults(run=run)
    return parser


def refuse(args: argparse.Namespace, why: object) -> NoReturn:
    """End as for wrong usage, but in one line: no argument is wrong, and no usage would help."""
    print(f"serverfree {args.verb}: {why}", file=sys.stderr)
    raise SystemExit(WRONG_USAGE)


@contextmanager
def interruptible(args: argparse.Namespace, doing: str) -> Iterator[None]:
    """Ended politely (SIGINT, SIGTERM), a job says at once what it is `doing` about that.

    Then it is interrupted, and so it is by every further signal. For the main thread only.
    """

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        # A new line ends that of a progress bar and of ^C. No print: it may be what is interrupted.
        text = f"serverfree {args.verb}: interrupted: {doing}\n"
        os.write(2, (os.isatty(2) * "\n" + text).encode())
        raise KeyboardInterrupt

    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        # What whoever started us wants to be ignored (nohup, a shell's &) stays ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def intermix(parser: argparse.ArgumentParser) -> None:
    """Let a last positional argument stand behind options, as in `read URL --lba 0 FILE`.

    argparse settles an optional positional with the first one it meets; parsing in two rounds is
    its own remedy, but not one that a sub-parser can be asked for.
    """
    plain = parser.parse_known_args

    def two_rounds(args: Any = None, namespace: Any = None) -> Any:
        setattr(parser, "parse_known_args", plain)  # noqa: B010 (a method, to mypy)
        return parser.parse_known_intermixed_args(args, namespace)

    setattr(parser, "parse_known_args", two_rounds)  # noqa: B010


def add_url(parser: argparse.ArgumentParser) -> None:
    """The unit that a verb is about."""
    parser.add_argument("url", type=UNIT_URL, metavar="URL", help="iscsi://HOST[:PORT]/TARGET/LUN")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Facts as JSON on request."""
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")


@contextmanager
def unit_of(url: Url) -> Iterator[LogicalUnit]:
    """Log in and yield the unit of a URL; log out in the end."""
    session, lun = open_session(url)
    with session:
        yield session.unit(lun)


@contextmanager
def target_of(url: Url) -> Iterator[Session]:
    """Log in at the target of a URL and yield the session; log out in the end."""
    with open_target(url) as session:
        yield session


def show(args: argparse.Namespace, facts: dict[str, Any]) -> None:
    """Print facts, one a line, or as one JSON object."""
    if args.json:
        print_json(facts)
        return
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):<{width}}  {printable(_plain(value))}")


def print_json(facts: Any) -> None:
    print(json.dumps(facts, indent=2))


def printable(text: str) -> str:
    """Return a name of a stranger's with control characters, and what is no character, escaped."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def _plain(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(map(str, value)) or "-"
    return str(value)
