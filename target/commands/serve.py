"""What the serving verbs share: start, say what there is, run until told to stop."""

import argparse
import logging
import signal
from collections.abc import Callable, Sequence
from typing import Any

from serverfree.iscsi.errors import ProtocolError
from serverfree.iscsi.names import Portal, normalize_name
from serverfree.target.server import Server
from serverfree.target.session import Target

DEFAULT_PORTAL = "127.0.0.1:3260"
_SIGNALS = {signal.SIGTERM, signal.SIGINT}


def argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return `parse` for argparse: what it says of bad input reaches the person who typed it."""

    def checked(text: str) -> Any:
        try:
            return parse(text)
        except (ValueError, ProtocolError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


def add_portal_arguments(parser: argparse.ArgumentParser, default_iqn: str) -> None:
    """The arguments of everything that listens."""
    parser.add_argument(
        "--portal",
        type=argument(Portal.parse),
        action="append",
        metavar="H:P",
        help=f"listen here, [V6]:P for IPv6, port 0 for a free one; may be given more than once "
        f"(default {DEFAULT_PORTAL})",
    )
    parser.add_argument(
        "--advertise",
        type=argument(Portal.parse),
        action="append",
        metavar="H:P",
        help="name this address in SendTargets instead of the portals'",
    )
    parser.add_argument(
        "--iqn", type=argument(normalize_name), default=default_iqn, help="default: %(default)s"
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="log sessions and errors to standard error"
    )


def serve(args: argparse.Namespace, make_target: Callable[[], Target]) -> int:
    """Serve until SIGTERM or SIGINT, then stop cleanly: all that was acknowledged is on disk.

    Prints a line for each LUN, `URL<tab>kind<tab>NAME`, and then `ready`.
    """
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.ERROR,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    # Before any thread starts: they inherit it, and the signals come to `sigwait` alone.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    target = make_target()
    try:
        server = Server(
            [target], args.portal or [Portal.parse(DEFAULT_PORTAL)], args.advertise or ()
        )
        addresses = server.start()
    except OSError:
        target.close()
        raise
    _announce(target, addresses)
    signal.sigwait(_SIGNALS)
    server.stop()
    return 0


def _announce(target: Target, addresses: Sequence[Portal]) -> None:
    for lun, unit in sorted(target.units.items()):
        print(f"iscsi://{addresses[0]}/{target.name}/{lun}", unit.kind, unit.name, sep="\t")
    print("ready", flush=True)
