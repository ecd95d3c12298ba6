"""`serverfree`: one command, its verbs gathered from every package. No logic of its own."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from serverfree.iscsi.errors import ProtocolError
from serverfree.scsi.errors import ScsiError

FAILED = 1


@dataclass(frozen=True, slots=True)
class Verb:
    """Where a verb lives and its line in the help. It is imported only when it is asked for."""

    module: str
    help: str


VERBS: dict[str, Verb] = {
    "target": Verb("serverfree.target.commands.target", "serve disks and tapes over iSCSI"),
    "datamover": Verb("serverfree.target.commands.datamover", "serve a copy manager over iSCSI"),
    "cartridge": Verb(
        "serverfree.target.commands.cartridge", "make, check, import and export tape cartridges"
    ),
    "discover": Verb("serverfree.initiator.commands.discover", "list a portal's targets"),
    "luns": Verb("serverfree.initiator.commands.luns", "list a target's logical units"),
    "inquiry": Verb("serverfree.initiator.commands.inquiry", "show what a unit says it is"),
    "capacity": Verb("serverfree.initiator.commands.capacity", "show the size of a disk"),
    "read": Verb("serverfree.initiator.commands.read", "read blocks of a disk"),
    "write": Verb("serverfree.initiator.commands.write", "write blocks of a disk"),
    "raw": Verb("serverfree.initiator.commands.raw", "send any CDB"),
    "tape": Verb("serverfree.initiator.commands.tape", "move, read and write a tape"),
    "xcopy": Verb("serverfree.initiator.commands.xcopy", "copy by EXTENDED COPY, server-free"),
    "copy-results": Verb(
        "serverfree.initiator.commands.copy_results", "ask a copy manager about its copies"
    ),
    "backup": Verb("serverfree.backup.commands.backup", "back up a disk to tape, server-free"),
    "restore": Verb("serverfree.backup.commands.restore", "restore from tape, server-free"),
    "verify": Verb("serverfree.backup.commands.verify", "read a backup's tape again and compare"),
    "backups": Verb("serverfree.backup.commands.backups", "list the backups in the catalog"),
    "ls": Verb("serverfree.backup.commands.ls", "list the files in a backup"),
    "find": Verb("serverfree.backup.commands.find", "find files in the backups, by name or path"),
    "scan": Verb("serverfree.backup.commands.scan", "find the backups on a cartridge"),
    "snapshot": Verb(
        "serverfree.backup.commands.snapshot", "take, list and delete snapshots of disks"
    ),
    "demo": Verb("serverfree.cli.demo", "show a server-free backup and restore on this machine"),
}


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser that knows every verb by name and only the asked-for one in full."""
    parser = argparse.ArgumentParser(
        prog="serverfree",
        description="A SAN in a package: iSCSI disks and tapes, EXTENDED COPY, server-free backup.",
        epilog="`serverfree VERB --help` tells more. Exit codes: 0 done, 1 failed, 2 wrong usage.",
    )
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    asked = next((word for word in words if word in VERBS), None)
    for name, verb in VERBS.items():
        if name == asked:
            importlib.import_module(verb.module).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=verb.help, add_help=False)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code; every failure is one line on standard error."""
    words = sys.argv[1:] if words is None else words
    try:
        args = _parser(words).parse_args(words)
    except ModuleNotFoundError as error:
        print(f"serverfree: this verb is not installed: {error.name} is missing", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("serverfree: interrupted", file=sys.stderr)
        return FAILED
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except (ProtocolError, ScsiError, OSError, ValueError) as error:
        return _failed(args.verb, error)
    except KeyboardInterrupt as error:
        # Notes say what became of what was under way.
        done = "; ".join(getattr(error, "__notes__", []))
        print(f"serverfree {args.verb}: interrupted{': ' * bool(done)}{done}", file=sys.stderr)
        return FAILED
    return code


def _failed(verb: str, error: Exception) -> int:
    from serverfree.initiator.commands.common import printable  # with the verb, if not before

    if isinstance(error, BrokenPipeError):  # whoever read our output has gone; nothing to tell
        sys.stderr.close()
        return FAILED
    # Notes say where: the unit that an error comes from.
    where = getattr(error, "__notes__", [])
    text = ": ".join([*where, str(error) or type(error).__name__])
    print(f"serverfree {verb}:", printable(" ".join(text.split())), file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
