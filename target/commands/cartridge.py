"""`serverfree cartridge`: make, look over, repair and exchange cartridges that no drive holds."""

import argparse
import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from serverfree.initiator.commands.common import argument
from serverfree.initiator.sizes import parse_size
from serverfree.target.backstore.cartridge import Cartridge, open_cartridge
from serverfree.target.backstore.cartridge_check import check_cartridge, repair_cartridge
from serverfree.target.backstore.cartridge_errors import CartridgeError
from serverfree.target.backstore.cartridge_image import Tally, export_image, import_image

_SLACK = 1 << 20  # room that an imported image leaves on a cartridge made for it
_RECORD_OVERHEAD = 72


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb and what it can do."""
    parser = subparsers.add_parser(
        "cartridge",
        help="make, check, repair, import and export tape cartridges",
        description="Work on a cartridge: a folder that a tape drive of `serverfree target` takes "
        "as its medium. It must not be in a drive meanwhile.",
    )
    does = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    size = argument(parse_size)

    create = does.add_parser("create", help="make an empty cartridge")
    _folder(create)
    create.add_argument("--capacity", type=size, required=True, help="native bytes, as 4GiB")
    create.add_argument("--early-warning", type=size, metavar="S", help="from which bytes on")
    create.add_argument("--worm", action="store_true", help="what is written stays")
    create.add_argument(
        "--partitions", type=size, nargs="+", metavar="S", help="their sizes, up to four"
    )
    create.set_defaults(act=_create)

    info = does.add_parser("info", help="what is on it")
    _folder(info)
    info.add_argument("--json", action="store_true", help="for programs")
    info.set_defaults(act=_info)

    check = does.add_parser("check", help="read everything; name all damage (exit code 1)")
    _folder(check)
    check.add_argument("--repair", action="store_true", help="make anew what can be derived")
    check.set_defaults(act=_check)

    exchange = does.add_parser(
        "exchange",
        help="put another cartridge into the folder of a drive that has unloaded its own",
    )
    _folder(exchange)
    exchange.add_argument("other", type=Path, metavar="OTHER")
    exchange.set_defaults(act=_exchange)

    protect = does.add_parser("protect", help="move the write-protect switch")
    _folder(protect)
    protect.add_argument("switch", choices=("on", "off"))
    protect.set_defaults(act=_protect)

    take = does.add_parser("import", help="append a SIMH .tap image; makes a missing cartridge")
    take.add_argument("image", type=Path, metavar="FILE")
    _folder(take)
    take.add_argument("--capacity", type=size, help="of a cartridge to be made")
    take.add_argument("--unpadded", action="store_true", help="odd blocks are not padded (E11)")
    take.set_defaults(act=_import)

    give = does.add_parser("export", help="write a SIMH .tap image")
    _folder(give)
    give.add_argument("image", type=Path, metavar="FILE")
    give.add_argument("--partition", type=int, default=0, metavar="N")
    give.set_defaults(act=_export)
    parser.set_defaults(run=run)


def _folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR")


def run(args: argparse.Namespace) -> int:
    """Do it."""
    code: int = args.act(args)
    return code


def _create(args: argparse.Namespace) -> int:
    if (args.folder / "state.A").exists() or (args.folder / "state.B").exists():
        raise CartridgeError(f"{args.folder}: there is a cartridge already")
    with closing(
        open_cartridge(args.folder, args.capacity, early_warning=args.early_warning, worm=args.worm)
    ) as cartridge:
        if args.partitions:
            cartridge.format(args.partitions)
        print(cartridge.identity.hex.upper())
    return 0


def _info(args: argparse.Namespace) -> int:
    with closing(open_cartridge(args.folder)) as cartridge:
        facts = _facts(cartridge)
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    partitions = facts.pop("partitions")
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):16}", value)
    for partition in partitions:
        print(*(f"{name.replace('_', ' ')} {value}" for name, value in partition.items()), sep=", ")
    return 0


def _facts(cartridge: Cartridge) -> dict[str, Any]:
    life = cartridge.memory.life
    return {
        "serial": cartridge.identity.hex.upper(),
        "capacity": cartridge.capacity,
        "usable": cartridge.usable,
        "write_protected": cartridge.write_protected,
        "worm": cartridge.worm,
        **asdict(life),
        "partitions": [
            {
                "partition": number,
                "capacity": partition.capacity,
                "used": partition.used,
                "objects": partition.eod,
                "filemarks": partition.file_at(partition.eod),
            }
            for number, partition in enumerate(cartridge.partitions)
        ],
    }


def _check(args: argparse.Namespace) -> int:
    if args.repair:
        found, left = repair_cartridge(args.folder)
        for finding in found:
            print(finding, "(stays)" if finding in left else "(repaired)")
        return 1 if left else 0
    found = check_cartridge(args.folder)
    for finding in found:
        print(finding)
    if not found:
        print("sound")
    return 1 if found else 0


def _exchange(args: argparse.Namespace) -> int:
    for folder in (args.folder, args.other):
        open_cartridge(folder).abandon()  # both are cartridges, and no drive holds them
    aside = args.folder.with_name(f"{args.folder.name}.aside")
    args.folder.rename(aside)
    args.other.rename(args.folder)
    aside.rename(args.other)
    return 0


def _protect(args: argparse.Namespace) -> int:
    with closing(open_cartridge(args.folder)) as cartridge:
        cartridge.protect(args.switch == "on")
    return 0


def _import(args: argparse.Namespace) -> int:
    capacity = None
    if not (args.folder / "state.A").exists() and not (args.folder / "state.B").exists():
        # An image has at least four bytes for each object.
        size = args.image.stat().st_size
        capacity = args.capacity or size + size // 4 * _RECORD_OVERHEAD + _SLACK
    with (
        args.image.open("rb") as image,
        closing(open_cartridge(args.folder, capacity)) as cartridge,
    ):
        _say(import_image(image, cartridge.partitions[0], padded=not args.unpadded))
    return 0


def _export(args: argparse.Namespace) -> int:
    with closing(open_cartridge(args.folder)) as cartridge:
        if not 0 <= args.partition < len(cartridge.partitions):
            raise CartridgeError(f"{args.folder}: no partition {args.partition}")
        with args.image.open("wb") as image:
            _say(export_image(cartridge.partitions[args.partition], image))
        if len(cartridge.partitions) > 1:
            print(f"left out: {len(cartridge.partitions) - 1} other partitions")
        if cartridge.memory.attributes:
            print(f"left out: {len(cartridge.memory.attributes)} attributes of the memory")
    return 0


def _say(tally: Tally) -> None:
    print(f"{tally.blocks} blocks, {tally.marks} filemarks, {tally.bytes} bytes")
    if tally.bad:
        print(f"{tally.bad} of the blocks cannot be read")
    if tally.skipped:
        print(f"{tally.skipped} gaps and other things skipped")
