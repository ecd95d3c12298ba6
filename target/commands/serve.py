"""What the serving verbs share: start, say what there is, run until told to stop."""

import argparse
import logging
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from serverfree.initiator.commands.common import argument
from serverfree.iscsi.errors import ProtocolError
from serverfree.iscsi.names import Portal, normalize_name
from serverfree.target.config import DEFAULT_PORTAL, Config, ConfigError, parse_api
from serverfree.target.config_file import load
from serverfree.target.service import Service

log = logging.getLogger(__name__)

_STOP = {signal.SIGTERM, signal.SIGINT}
_RELOAD = signal.SIGHUP


def add_portal_arguments(parser: argparse.ArgumentParser, default_iqn: str) -> None:
    """The arguments of everything that listens."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="F",
        help="serve what this TOML file says, and nothing else; read again at SIGHUP",
    )
    parser.add_argument(
        "--portal",
        type=argument(Portal.parse),
        action="append",
        metavar="H:P",
        help=f"listen here, [V6]:P for IPv6, port 0 for a free one; may be given more than once "
        f"(default {DEFAULT_PORTAL}); a --config may name others",
    )
    parser.add_argument(
        "--advertise",
        type=argument(Portal.parse),
        action="append",
        metavar="H:P",
        help="name this address in SendTargets instead of the portals'",
    )
    parser.add_argument(
        "--iqn", type=argument(normalize_name), metavar="NAME", help=f"default: {default_iqn}"
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="log sessions and errors to standard error"
    )


def add_api_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the management API listens."""
    parser.add_argument(
        "--api",
        type=argument(parse_api),
        metavar="H:P",
        help="offer the management API (snapshots and facts, HTTP + JSON) at this address of the "
        "loopback, port 0 for a free one; whoever asks needs the token in SERVERFREE_TOKEN",
    )
    parser.add_argument(
        "--api-public",
        action="store_true",
        help="let --api be an address that others can reach; nothing there is encrypted",
    )


def serve(args: argparse.Namespace, from_arguments: Callable[[], Config]) -> int:
    """Serve until SIGTERM or SIGINT, then stop cleanly: all that was acknowledged is on disk.

    Prints a line for each LUN, `URL<tab>kind<tab>NAME`, and then `ready`. At SIGHUP the
    configuration file is read again; if it cannot be, that is logged and nothing changes.
    """
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.ERROR,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    # Before any thread starts: they inherit it, and the signals come to `sigwait` alone.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP | {_RELOAD})
    config = from_arguments() if args.config is None else _from_file(args)
    service = Service(config)
    service.start()
    _announce(service)
    # Without a file to read again SIGHUP is what it always was: the terminal has gone.
    while (caught := signal.sigwait(_STOP | {_RELOAD})) == _RELOAD and args.config is not None:
        _reload(service, args)
    log.info("%s: stopping", signal.Signals(caught).name)
    service.stop()
    return 0


def _from_file(args: argparse.Namespace) -> Config:
    """Read the configuration file; the command line fills up what it does not say."""
    config = load(args.config, tuple(args.portal or (DEFAULT_PORTAL,)))
    return replace(config, advertise=config.advertise or tuple(args.advertise or ()))


def _reload(service: Service, args: argparse.Namespace) -> None:
    try:
        service.reload(_from_file(args))
    except (ConfigError, OSError, ValueError, ProtocolError) as error:
        log.error("not reloaded, the old configuration stays: %s", error)
    else:
        log.warning("%s: reloaded", args.config)


def _announce(service: Service) -> None:
    for target in service.targets:
        for lun, unit in sorted(target.units.items()):
            print(service.url(target, lun), unit.kind, unit.name, sep="\t")
    print("ready", flush=True)
