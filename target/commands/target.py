"""`serverfree target`: serve disks and tapes."""

import argparse

from serverfree.initiator.commands.common import argument
from serverfree.target.commands.serve import add_api_arguments, add_portal_arguments, api_of, serve
from serverfree.target.config import (
    DEFAULT_PORTAL,
    Config,
    ConfigError,
    DiskConfig,
    TapeConfig,
    TargetConfig,
    UnitConfig,
    lun_order,
)

DEFAULT_IQN = "iqn.2026-11.com.example:storage"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb and its arguments."""
    parser = subparsers.add_parser(
        "target",
        help="serve disks and tapes over iSCSI",
        description="Serve disks and tapes over iSCSI, LUNs from 0 in the order given. Prints a "
        "line for each, URL<tab>kind<tab>NAME, then `ready`, and runs until SIGTERM or SIGINT.",
    )
    add_portal_arguments(parser, DEFAULT_IQN)
    # One destination for both: the order on the command line gives the LUNs.
    parser.add_argument(
        "--disk",
        dest="units",
        action="append",
        type=argument(DiskConfig.parse),
        metavar="NAME=PATH[,size=S][,block=512|4096][,thin][,readonly]"
        "[,quiet=S][,quiet-timeout=S][,snapshots=DIR]",
        help="a disk over a file or block device; size= creates a missing file; a snapshot waits "
        "for quiet= seconds without a write (3), for quiet-timeout= at the most (80)",
    )
    parser.add_argument(
        "--tape",
        dest="units",
        action="append",
        type=argument(TapeConfig.parse),
        metavar="NAME=DIR[,capacity=S][,profile=own|lto5|...|lto9]",
        help="a tape drive with the cartridge in that folder; capacity= creates a missing one; "
        "profile= has it named as a drive that other software knows",
    )
    add_api_arguments(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Serve what the arguments name, or the configuration file."""
    units: list[UnitConfig] = args.units or []
    if args.config is not None and (units or args.iqn):
        args.parser.error("--config says everything: no --disk, --tape or --iqn beside it")
    if args.config is None and not units:
        args.parser.error("nothing to serve: give a --disk or a --tape, or --config")
    try:
        by_lun = lun_order(units)
    except ConfigError as error:
        args.parser.error(str(error))
    return serve(args, lambda: _config(args, by_lun))


def _config(args: argparse.Namespace, units: dict[int, UnitConfig]) -> Config:
    return Config(
        targets=(TargetConfig(args.iqn or DEFAULT_IQN, units),),
        portals=tuple(args.portal or (DEFAULT_PORTAL,)),
        advertise=tuple(args.advertise or ()),
        api=api_of(args),
    )
