"""`serverfree target`: serve disks and tapes."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack

from serverfree.datamover.buffers import BufferPool
from serverfree.datamover.manager import CopyManager
from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.backstore.file import open_file_store
from serverfree.target.commands.serve import add_portal_arguments, argument, serve
from serverfree.target.config import DiskConfig, TapeConfig
from serverfree.target.session import Target
from serverfree.target.units.base import Unit
from serverfree.target.units.block import BlockUnit
from serverfree.target.units.local_fabric import LocalFabric
from serverfree.target.units.stream import StreamUnit

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
        metavar="NAME=PATH[,size=S][,block=512|4096][,thin][,readonly]",
        help="a disk over a file or block device; size= creates a missing file",
    )
    parser.add_argument(
        "--tape",
        dest="units",
        action="append",
        type=argument(TapeConfig.parse),
        metavar="NAME=DIR[,capacity=S]",
        help="a tape drive with the cartridge in that folder; capacity= creates a missing one",
    )
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Serve what the arguments name."""
    configs: list[DiskConfig | TapeConfig] = args.units or []
    if not configs:
        args.parser.error("nothing to serve: give a --disk or a --tape")
    names = [config.name for config in configs]
    if len(set(names)) < len(names):
        args.parser.error("two units have the same name")
    return serve(args, lambda: _make_target(args.iqn, configs))


def _make_target(iqn: str, configs: list[DiskConfig | TapeConfig]) -> Target:
    with ExitStack() as opened:  # what is open is closed again if a later one fails
        units: list[Unit] = []
        for config in configs:
            unit = _open(config, iqn)
            opened.callback(unit.close)
            units.append(unit)
        opened.pop_all()
    _add_copy_managers(iqn, units)
    return Target(iqn, units)


def _add_copy_managers(iqn: str, units: Sequence[Unit]) -> None:
    """Give every unit a copy manager for copies among the units of this target."""
    fabric = LocalFabric(iqn, lambda: units)
    pool = BufferPool()
    for unit in units:
        unit.copy_manager = CopyManager(fabric, own_unit=unit.designator, pool=pool)


def _open(config: DiskConfig | TapeConfig, iqn: str) -> Unit:
    if isinstance(config, TapeConfig):
        return StreamUnit(
            config.name, open_cartridge(config.path, capacity=config.capacity), target=iqn
        )
    store = open_file_store(
        config.path, size=config.size, readonly=config.readonly, thin=config.thin
    )
    return BlockUnit(config.name, store, block_size=config.block_size, target=iqn)
