"""`serverfree inquiry`: what a unit says it is."""

import argparse
from dataclasses import asdict, is_dataclass
from typing import Any

from serverfree.initiator.commands.common import (
    DONE,
    NUMBER,
    Subparsers,
    add_json,
    add_url,
    add_verb,
    show,
    unit_of,
)
from serverfree.initiator.copy_listing import hex_dump
from serverfree.initiator.unit import Unit
from serverfree.scsi.designator import Association, DesignatorType
from serverfree.scsi.vpd import (
    BlockDeviceCharacteristics,
    BlockLimits,
    DeviceIdentification,
    ExtendedInquiry,
    LogicalBlockProvisioning,
    SupportedPages,
    UnitSerialNumber,
)

# Pages whose fields are shown by name; of the others the bytes.
_FIXED_PAGES: dict[int, Any] = {
    page.PAGE_CODE: page
    for page in (
        ExtendedInquiry,
        BlockLimits,
        BlockDeviceCharacteristics,
        LogicalBlockProvisioning,
    )
}


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb and its arguments."""
    parser = add_verb(subparsers, "inquiry", "show what a unit says it is", run)
    add_url(parser)
    parser.add_argument(
        "--vpd", type=NUMBER, metavar="N", help="a vital product data page instead, as 0x83"
    )
    parser.add_argument("--hex", action="store_true", help="show the page's bytes")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print standard INQUIRY data or one page."""
    with unit_of(args.url) as device:
        unit = Unit(device)
        if args.vpd is None:
            facts = asdict(unit.inquiry())
            facts["version_descriptors"] = [f"{one:04X}h" for one in facts["version_descriptors"]]
            show(args, facts)
            return DONE
        page = unit.vpd(args.vpd)
    facts = {} if args.hex else _page_facts(page)
    if facts:
        show(args, facts)
    elif args.json:
        show(args, {"page": args.vpd, "data": page.hex()})
    else:
        print(*hex_dump(page), sep="\n")
    return DONE


def _page_facts(page: bytes) -> dict[str, Any]:
    """Return what a page says, by name; nothing for a page that is not known here."""
    code = page[1]
    if code == SupportedPages.PAGE_CODE:
        return {"pages": [f"{one:02X}h" for one in SupportedPages.unpack(page).codes]}
    if code == UnitSerialNumber.PAGE_CODE:
        return {"serial": UnitSerialNumber.unpack(page).serial}
    if code == DeviceIdentification.PAGE_CODE:
        return _names(DeviceIdentification.unpack(page))
    kind = _FIXED_PAGES.get(code)
    parsed = kind.unpack(page) if kind else None
    return asdict(parsed) if is_dataclass(parsed) and not isinstance(parsed, type) else {}


def _names(page: DeviceIdentification) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for one in page.designators:
        about = _word(Association, one.association)
        names.setdefault(f"{about} {_word(DesignatorType, one.type)}", []).append(str(one))
    return names


def _word(kind: Any, code: int) -> str:
    try:
        return str(kind(code).name).lower().replace("_", " ")
    except ValueError:
        return f"{code:X}h"
