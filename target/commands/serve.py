"""What the serving verbs share: start, say what there is, run until told to stop."""

import argparse
import logging
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from serverfree.initiator.commands.common import argument
from serverfree.iscsi.errors import ProtocolError
from serverfree.iscsi.names import Portal, normalize_name
from serverfree.target.config import DEFAULT_PORTAL, Config, ConfigError, check_api, parse_api
from serverfree.target.config_file import load
from serverfree.target.service import Service

if TYPE_CHECKING:
    from serverfree.target.api.server import ApiServer

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
    """Where the management API listens: `api_of` what comes of them."""
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

    Prints a line for each LUN, `URL<tab>kind<tab>NAME`, with the management API one for that
    (`URL<tab>api<tab>management`), and then `ready`. At SIGHUP the
    configuration file is read again; if it cannot be, that is logged and nothing changes.
    """
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.ERROR,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    # Before any thread starts: they inherit it, and the signals come to `sigwait` alone.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP | {_RELOAD})
    config = from_arguments() if args.config is None else _from_file(args)
    token = None if config.api is None else _token()
    service = Service(config)
    service.start()
    api = None
    if config.api is not None and token is not None:
        try:
            api = _start_api(service, config.api, token)
        except OSError:
            service.stop()
            raise
    _announce(service, api)
    # Without a file to read again SIGHUP is what it always was: the terminal has gone.
    while (caught := signal.sigwait(_STOP | {_RELOAD})) == _RELOAD and args.config is not None:
        _reload(service, args)
    log.info("%s: stopping", signal.Signals(caught).name)
    service.snapshots.close()  # who waits for one is told so
    if api is not None:
        api.stop()
    service.stop()
    return 0


def _from_file(args: argparse.Namespace) -> Config:
    """Read the configuration file; the command line fills up what it does not say."""
    config = load(args.config, tuple(args.portal or (DEFAULT_PORTAL,)))
    return replace(
        config,
        advertise=config.advertise or tuple(args.advertise or ()),
        api=config.api or api_of(args),
    )


def api_of(args: argparse.Namespace) -> Portal | None:
    """Return where the command line wants the management API. Raises ConfigError."""
    if args.api is not None:
        check_api(args.api, public=args.api_public, where="--api")
    api: Portal | None = args.api
    return api


def _reload(service: Service, args: argparse.Namespace) -> None:
    try:
        service.reload(_from_file(args))
    except (ConfigError, OSError, ValueError, ProtocolError) as error:
        log.error("not reloaded, the old configuration stays: %s", error)
    else:
        log.warning("%s: reloaded", args.config)


def _token() -> str:
    from serverfree.target.api.server import token_from_environment

    return token_from_environment()


def _start_api(service: Service, portal: Portal, token: str) -> "ApiServer":
    # Imported here: a target without it stays as small as it is.
    from serverfree.target.api.server import ApiServer

    api = ApiServer(service, portal, token)
    api.start()
    return api


def _announce(service: Service, api: "ApiServer | None") -> None:
    for target in service.targets:
        for lun, unit in sorted(target.units.items()):
            print(service.url(target, lun), unit.kind, unit.name, sep="\t")
    if api is not None:
        print(api.url, "api", "management", sep="\t")
    print("ready", flush=True)
