"""`serverfree datamover`: serve a copy manager that reaches disks and tapes over iSCSI."""

import argparse

from serverfree.datamover.fabric import DATAMOVER_NAME
from serverfree.initiator.commands.common import argument
from serverfree.initiator.secrets import login_from_environment
from serverfree.iscsi.names import Portal
from serverfree.target.commands.serve import add_portal_arguments, serve
from serverfree.target.config import DEFAULT_PORTAL, Config, MoverConfig


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
    parser.set_defaults(run=run, parser=parser, api=None, api_public=False)


def run(args: argparse.Namespace) -> int:
    """Serve a copy manager, or the configuration file."""
    if args.config is not None and (args.reach or args.iqn):
        args.parser.error("--config says everything: no --reach or --iqn beside it")
    if args.config is None and not args.reach:
        args.parser.error("nothing to copy between: give a --reach portal for each storage system")
    return serve(args, lambda: _config(args))


def _config(args: argparse.Namespace) -> Config:
    iqn = args.iqn or DATAMOVER_NAME
    return Config(
        # Whoever starts it by hand is known to the targets by what the environment says.
        movers=(MoverConfig(iqn, tuple(args.reach), login_from_environment()),),
        portals=tuple(args.portal or (DEFAULT_PORTAL,)),
        advertise=tuple(args.advertise or ()),
    )
