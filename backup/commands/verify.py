"""`serverfree verify`: is what lies on the tape what was written?"""

import argparse

from serverfree.backup.catalog.store import Catalog
from serverfree.backup.commands.jobs import show_report
from serverfree.backup.commands.progress import watcher
from serverfree.backup.commands.tables import add_catalog
from serverfree.backup.site import Site
from serverfree.backup.verify import verify
from serverfree.initiator.commands.common import (
    DONE,
    FAILED,
    UNIT_URL,
    Subparsers,
    add_json,
    add_verb,
    interruptible,
)


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb and its arguments."""
    parser = add_verb(
        subparsers, "verify", "read a backup's tape again and compare with the catalog", run
    )
    parser.epilog = "Exit code 1 if anything differs or cannot be read."
    parser.add_argument("--tape", type=UNIT_URL, metavar="URL", required=True, help="the drive")
    parser.add_argument("--backup", metavar="ID", required=True, help="its id, or `latest`")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument(
        "--mover", type=UNIT_URL, metavar="URL", help="the copy manager, which reads and digests"
    )
    way.add_argument(
        "--through-server", action="store_true", help="this machine reads the whole archive itself"
    )
    add_catalog(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Verify, and say what is bad."""
    with (
        interruptible(args, "ending the copy"),
        Catalog.open(args.catalog) as catalog,
        Site(args.mover, args.tape) as site,
        watcher(silent=args.json) as seen,
    ):
        backup = catalog.backup(args.backup)
        report = verify(catalog, site, backup, through_server=args.through_server, watcher=seen)
    show_report(args, report)
    return DONE if report.good else FAILED
