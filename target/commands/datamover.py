"""`serverfree datamover`: serve a copy manager that reaches disks and tapes over iSCSI."""

import argparse

from serverfree.datamover.fabric import DATAMOVER_NAME, NetworkFabric
from serverfree.datamover.manager import CopyManager
from serverfree.iscsi.names import Portal
from serverfree.target.commands.serve import add_portal_arguments, argument, serve
from serverfree.target.session import Target
from serverfree.target.units.controller import CopyController

UNIT_NAME = "copy-manager"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb and its arguments."""
    parser = subparsers.add_parser(
        "datamover",
        help="serve a copy manager over iSCSI",
        description="Serve a copy manager: a LUN that takes EXTENDED COPY and moves the data "
        "itself, between units that it finds at the --reach portals by their designators. Prints "
        "URL<tab>copy-manager<tab>NAME, then `ready`, and runs until SIGTERM or SIGINT.",
    )
    add_portal_arguments(parser, DATAMOVER_NAME)
    parser.add_argument(
        "--reach",
        type=argument(Portal.parse),
        action="append",
        metavar="H:P",
        help="look for units at this portal (SendTargets, REPORT LUNS, VPD page 83h); "
        "may be given more than once",
    )
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Serve a copy manager."""
    if not args.reach:
        args.parser.error("nothing to copy between: give a --reach portal for each storage system")
    fabric = NetworkFabric(args.reach, initiator_name=args.iqn)
    try:
        return serve(
            args,
            lambda: Target(
                args.iqn,
                [CopyController(UNIT_NAME, CopyManager(fabric), target=args.iqn)],
            ),
        )
    finally:
        fabric.close()
