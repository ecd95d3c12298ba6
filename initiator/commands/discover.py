"""`serverfree discover`: which targets a portal knows."""

import argparse

from serverfree.initiator.commands.common import (
    DONE,
    PORTAL,
    Subparsers,
    add_json,
    add_verb,
    print_json,
    printable,
)
from serverfree.initiator.discovery import discover
from serverfree.initiator.secrets import login_from_environment


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb and its arguments."""
    parser = add_verb(subparsers, "discover", "list a portal's targets", run)
    parser.add_argument("portal", type=PORTAL, metavar="H:P", help="[V6]:P for IPv6")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print a line for each target and portal."""
    login = login_from_environment()
    targets = discover(
        args.portal.host,
        args.portal.port,
        credentials=login.credentials,
        mutual=login.mutual,
    )
    if args.json:
        print_json(
            [
                {"name": target.name, "portals": [str(portal) for portal in target.portals]}
                for target in targets
            ]
        )
        return DONE
    for target in targets:
        print(printable(target.name), *(str(portal) for portal in target.portals), sep="\t")
    return DONE
