"""Any EXTENDED COPY parameter list, from a description that people can read (TOML or JSON).

    list_identifier = 7
    list_id_usage = "hold"            # or "discard", "none"
    lid4 = true                       # EXTENDED COPY(LID4); then also immediate, good_with_sense

    [[cscd]]
    name = "disk"
    url = "iscsi://127.0.0.1/iqn.2026-11.com.example:storage/0"    # asked for its designator

    [[cscd]]
    name = "tape"
    designator = "naa.3000000000000002"    # or lun = 0 and address = "10.0.0.7:3260" or alias = 7
    device_type = "tape"
    pad = true

    [[cscd]]
    name = "before"
    rod = "persistent"    # or 0x00800002; populated by segments. Or token = { file = "rod.token" }
    return_token = true   # then also lifetime and inactivity; of a token: delete_token

    [[segment]]
    type = "inline to stream"
    destination = "tape"
    stream_transfer_length = "256KiB"
    data = { file = "header.bin" }    # or { hex = "..." }, { text = "..." }
    cat = true

    [[segment]]
    type = "block to stream"          # or 0x00
    source = "disk"
    destination = "tape"
    stream_transfer_length = "256KiB"
    number_of_blocks = 512
    lba = 0

A segment's keys are the fields of its class in `scsi.copy_segments`. `raw = "hex"` in place of all
others is a descriptor as it stands, right or wrong: copy managers are to be tried with both.
"""

import json
import struct
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any, cast

from construct import ConstructError

from serverfree.initiator.copy_listing import words_of
from serverfree.initiator.copy_plan import Endpoint
from serverfree.initiator.sizes import parse_size
from serverfree.iscsi.errors import ProtocolError
from serverfree.iscsi.names import Portal
from serverfree.scsi.copy_cscd import (
    CSCD_LENGTH,
    PARAMETERS,
    ROD_FROM_TOKEN,
    AliasCscd,
    BlockParameters,
    Extension,
    IdentificationCscd,
    Ipv4Cscd,
    Ipv6Cscd,
    RodCscd,
    StreamParameters,
)
from serverfree.scsi.copy_list import NORMAL_PRIORITY, THIS_UNIT, CopyList, ListIdUsage
from serverfree.scsi.copy_segments import SEGMENT_TYPES, InlineToStream, Segment
from serverfree.scsi.designator import Association, CodeSet, Designator, DesignatorType
from serverfree.scsi.inquiry import DeviceType
from serverfree.scsi.luns import pack_lun
from serverfree.scsi.rod_token import RodType

LookUp = Callable[[str], Endpoint]
"""Asks the unit of a URL what it is and how it is named."""

_USAGES = {
    "hold": ListIdUsage.HOLD,
    "discard": ListIdUsage.DISCARD,
    "none": ListIdUsage.NO_IDENTIFIER,
}
_DEVICE_TYPES = {"disk": DeviceType.DISK, "tape": DeviceType.TAPE, "processor": 0x03}
# CSCD DESCRIPTOR IDs without a descriptor (SPC-4 table 148).
_WELL_KNOWN = {"null disk": 0xC000, "null tape": 0xC001, "this unit": THIS_UNIT}
_INLINE_ALIGNMENT = 4  # INLINE DATA OFFSET is a multiple of it (6.4.6.6)


class DescriptionError(ValueError):
    """The description does not say what to send; the text says where."""


@dataclass(frozen=True, slots=True)
class Verbatim:
    """A descriptor of whatever bytes."""

    data: bytes

    def pack(self) -> bytes:
        """The bytes."""
        return self.data

    def __str__(self) -> str:
        return f"{self.data[:1].hex().upper()}h as given, {len(self.data)} bytes"


def load_copy(path: Path, look_up: LookUp) -> CopyList:
    """Read a description; files that it names are looked for beside it. Raises DescriptionError."""
    try:
        text = path.read_text()
        parsed = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise DescriptionError(f"{path}: {error}") from None
    try:
        return describe(parsed, look_up, path.parent)
    except DescriptionError as error:
        raise DescriptionError(f"{path}: {error}") from None


def describe(description: Any, look_up: LookUp, folder: Path = Path()) -> CopyList:
    """Return the parameter list that a description, parsed already, stands for."""
    top = _Entry(description, "the description")
    reader = _Reader(look_up, folder)
    # What the description puts there itself comes first, so that offsets can count on it.
    inline = top.take("inline", None)
    if inline is not None:
        reader.add_inline(reader.blob(inline, "inline"))
    for number, one in enumerate(top.entries("cscd")):
        reader.add_cscd(_Entry(one, f"CSCD {number}"))
    for number, one in enumerate(top.entries("segment")):
        reader.add_segment(_Entry(one, f"segment {number}"))
    copy = CopyList(
        cast(Sequence[IdentificationCscd], reader.cscds),
        cast(Sequence[Segment], reader.segments),
        bytes(reader.inline),
        top.number("list_identifier", 1),
        _USAGES[top.choice("list_id_usage", _USAGES, "hold")],
        top.number("priority", NORMAL_PRIORITY),
        sequential_striped=top.flag("sequential_striped"),
        lid4=top.flag("lid4"),
        immediate=top.flag("immediate"),
        good_with_sense=top.flag("good_with_sense"),
    )
    top.done()
    _check_fits(copy, top)
    return copy


def _check_fits(packable: Any, entry: "_Entry") -> None:
    """Refuse numbers that their fields cannot hold."""
    try:
        packable.pack()
    except (struct.error, ConstructError, ValueError, OverflowError) as error:
        raise entry.wrong(f"a value does not fit in its field ({error})") from None


class _Entry:
    """A table of the description: every key is asked for once, and none may be left over."""

    def __init__(self, table: Any, where: str) -> None:
        if not isinstance(table, Mapping):
            raise DescriptionError(f"{where} is no table of keys and values")
        self.where = where
        self._left = {str(key).replace("-", "_"): value for key, value in table.items()}

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def take(self, key: str, default: Any = MISSING) -> Any:
        value = self._left.pop(key, default)
        if value is MISSING:
            raise self.wrong(f"{key} is missing")
        return value

    def entries(self, key: str) -> list[Any]:
        value = self.take(key, [])
        if not isinstance(value, list):
            raise self.wrong(f"{key} is no list; in TOML write [[{key}]]")
        return value

    def number(self, key: str, default: Any = MISSING) -> int:
        return self.as_number(key, self.take(key, default))

    def flag(self, key: str, default: Any = False) -> bool:
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise self.wrong(f"{key} is true or false, not {value!r}")
        return value

    def choice(self, key: str, choices: Mapping[str, Any], default: Any = MISSING) -> str:
        value = str(self.take(key, default)).replace("-", " ").replace("_", " ")
        if value not in choices:
            raise self.wrong(f"{key} is one of {', '.join(choices)}, not {value!r}")
        return value

    def as_number(self, key: str, value: Any) -> int:
        """Return a number: one, or a text like `256KiB` or `0x100`."""
        if isinstance(value, str):
            try:
                value = int(value, 16) if value.lower().startswith("0x") else parse_size(value)
            except ValueError as error:
                raise self.wrong(f"{key}: {error}") from None
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(f"{key} is a number, not {value!r}")
        return value

    def wrong(self, why: str) -> DescriptionError:
        return DescriptionError(f"{self.where}: {why}")

    def done(self) -> None:
        if self._left:
            raise self.wrong(f"there is no {', '.join(self._left)} here")


class _Reader:
    """Gathers descriptors and inline data."""

    def __init__(self, look_up: LookUp, folder: Path) -> None:
        self._look_up = look_up
        self._folder = folder
        self._names = dict(_WELL_KNOWN)
        self.cscds: list[Any] = []
        self.segments: list[Any] = []
        self.inline = bytearray()

    # ------------------------------------------------------------------ CSCDs

    def add_cscd(self, entry: _Entry) -> None:
        name = entry.take("name", None)
        if name is not None:
            if str(name) in self._names:
                raise entry.wrong(f"the name {name!r} is taken")
            self._names[str(name)] = len(self.cscds)
        cscd = self._cscd(entry)
        entry.done()
        _check_fits(cscd, entry)
        self.cscds.append(cscd)
        # One of 64 bytes has two places among the CSCD DESCRIPTOR IDs.
        further = len(cscd.pack()) // CSCD_LENGTH - 1
        self.cscds += [Extension()] * further

    def _raw(self, entry: _Entry) -> Verbatim:
        return Verbatim(self.blob(entry.take("raw"), entry.where))

    def _cscd(self, entry: _Entry) -> Any:
        if "raw" in entry:
            return self._raw(entry)
        if "alias" in entry:
            return self._by_alias(entry)
        if "rod" in entry:
            return self._rod(entry)
        if "token" in entry:
            return self._token(entry)
        return self._by_address(entry) if "address" in entry else self._identification(entry)

    def _by_alias(self, entry: _Entry) -> Any:
        """E6h: a LUN of the target that an alias of CHANGE ALIASES stands for."""
        alias = entry.number("alias")
        try:
            lun, value = pack_lun(entry.number("lun")), alias.to_bytes(8, "big")
        except (ValueError, OverflowError) as error:
            raise entry.wrong(f"alias {alias}: {error}") from None
        device_type = self._device_type(entry)
        parameters = self._parameters(entry, device_type, 0)
        return AliasCscd(lun, value, parameters, device_type)

    def _rod(self, entry: _Entry) -> RodCscd:
        """FEh: a ROD that segments of this list populate."""
        value = entry.take("rod")
        name = str(value).upper().replace("-", "_").replace(" ", "_")
        named = RodType.__members__.get(name)
        return RodCscd(
            THIS_UNIT,
            entry.as_number("rod", value) if named is None else int(named),
            entry.number("lifetime", 0),
            entry.number("inactivity", 0),
            entry.flag("return_token"),
            device_type=entry.number("device_type", 0),
        )

    def _token(self, entry: _Entry) -> RodCscd:
        """FEh: what a token represents, which goes into the inline data."""
        token = self.blob(entry.take("token"), f"{entry.where}: token")
        return RodCscd(
            ROD_FROM_TOKEN,
            RodType.FROM_TOKEN,
            delete_token=entry.flag("delete_token"),
            token_offset=self.add_inline(token),
        )

    def _by_address(self, entry: _Entry) -> Any:
        """E5h or EAh: a LUN behind a portal."""
        text = str(entry.take("address"))
        try:
            portal = Portal.parse(text)
            address = ip_address(portal.host.strip("[]"))
            lun = pack_lun(entry.number("lun"))
        except (ValueError, ProtocolError) as error:
            raise entry.wrong(f"address {text!r}: {error}") from None
        device_type = self._device_type(entry)
        parameters = self._parameters(entry, device_type, 0)
        if isinstance(address, IPv4Address):
            return Ipv4Cscd(lun, address, portal.port, parameters, device_type)
        return Ipv6Cscd(lun, address, portal.port, parameters, device_type)

    def _identification(self, entry: _Entry) -> IdentificationCscd:
        if "url" in entry:
            unit = self._look_up(str(entry.take("url")))
            designator: Designator = unit.designator
            device_type, block_length = int(unit.device_type), unit.block_length
        else:
            designator = self._designator(entry, entry.take("designator"))
            device_type, block_length = self._device_type(entry), 0
        parameters = self._parameters(entry, device_type, block_length)
        port = entry.number("relative_initiator_port", 0)
        return IdentificationCscd(designator, parameters, device_type, port)

    def _parameters(self, entry: _Entry, device_type: int, block_length: int) -> Any:
        kind = PARAMETERS.get(device_type)
        if kind is None:
            raise entry.wrong(f"a CSCD of device type {device_type:02X}h is given as raw")
        given: dict[str, Any] = {"pad": entry.flag("pad")}
        if kind in (BlockParameters, StreamParameters):
            given["block_length"] = entry.number("block_length", block_length)
        if kind is StreamParameters:
            given["fixed"] = entry.flag("fixed", bool(given["block_length"]))
        return kind(**given)

    def _device_type(self, entry: _Entry) -> int:
        value = entry.take("device_type")
        named = _DEVICE_TYPES.get(value) if isinstance(value, str) else None
        return int(named) if named is not None else entry.as_number("device_type", value)

    def _designator(self, entry: _Entry, value: Any) -> Designator:
        if isinstance(value, Mapping):
            given = _Entry(value, f"{entry.where}: designator")
            identifier = self.blob(
                {key: given.take(key) for key in ("hex", "text") if key in given}, given.where
            )
            designator = Designator(
                given.number("type"),
                identifier,
                given.number("code_set", CodeSet.BINARY),
                given.number("association", Association.LOGICAL_UNIT),
            )
            given.done()
            return designator
        text = str(value)
        kind, _, rest = text.partition(".")
        match kind:
            case "naa" | "eui":
                named = DesignatorType.NAA if kind == "naa" else DesignatorType.EUI_64
                return Designator(named, self.blob(rest, entry.where))
            case "t10":
                return Designator(DesignatorType.T10_VENDOR_ID, rest.encode(), CodeSet.ASCII)
        raise entry.wrong(f"designator {text!r}: write naa.HEX, eui.HEX, t10.TEXT or a table")

    # ------------------------------------------------------------------ segments

    def add_segment(self, entry: _Entry) -> None:
        segment = self._raw(entry) if "raw" in entry else self._segment(entry)
        entry.done()
        _check_fits(segment, entry)
        self.segments.append(segment)

    def _segment(self, entry: _Entry) -> Segment:
        kind = self._kind(entry)
        if kind is InlineToStream and "data" in entry:
            return self._inline_to_stream(entry)
        return kind(
            **{
                field.name: self._value(entry, field)
                for field in fields(kind)
                if field.name in entry or field.default is MISSING
            }
        )

    def _kind(self, entry: _Entry) -> type[Segment]:
        value = entry.take("type")
        if isinstance(value, str) and not value.lower().startswith("0x"):
            wanted = value.replace("-", " ").replace("_", " ")
            for kind in SEGMENT_TYPES.values():
                if words_of(kind.__name__) == wanted:
                    return kind
            known = ", ".join(words_of(kind.__name__) for kind in SEGMENT_TYPES.values())
            raise entry.wrong(f"type {value!r} is none of {known}; others can be given as raw")
        code = entry.as_number("type", value)
        if code not in SEGMENT_TYPES:
            raise entry.wrong(f"no segment type {code:02X}h is known by its fields; use raw")
        return SEGMENT_TYPES[code]

    def _value(self, entry: _Entry, field: "Field[Any]") -> Any:
        value = entry.take(field.name)
        if field.name in ("source", "destination"):
            return self._cscd_id(entry, value)
        if field.type is bool:
            if not isinstance(value, bool):
                raise entry.wrong(f"{field.name} is true or false, not {value!r}")
            return value
        if field.type is int:
            return entry.as_number(field.name, value)
        if isinstance(value, list):
            return tuple(tuple(one) if isinstance(one, list) else one for one in value)
        return self.blob(value, f"{entry.where}: {field.name}")

    def _cscd_id(self, entry: _Entry, value: Any) -> int:
        if isinstance(value, str) and not value.lower().startswith("0x"):
            number = self._names.get(value, _WELL_KNOWN.get(value.replace("-", " ")))
            if number is None:
                raise entry.wrong(f"no CSCD is named {value!r}")
            return number
        return entry.as_number("CSCD", value)

    def _inline_to_stream(self, entry: _Entry) -> InlineToStream:
        data = self.blob(entry.take("data"), f"{entry.where}: data")
        return InlineToStream(
            self._cscd_id(entry, entry.take("destination")),
            entry.number("stream_transfer_length"),
            self.add_inline(data),
            len(data),
            entry.flag("cat"),
        )

    # ------------------------------------------------------------------ bytes

    def add_inline(self, data: bytes) -> int:
        """Add to the inline data, where a segment can point; return the offset."""
        self.inline += bytes(-len(self.inline) % _INLINE_ALIGNMENT)
        offset = len(self.inline)
        self.inline += data
        return offset

    def blob(self, value: Any, where: str) -> bytes:
        """Return bytes: hexadecimal text, or a table with hex, text or file; or a list of those."""
        try:
            match value:
                case str() | {"hex": str()}:
                    return bytes.fromhex(value if isinstance(value, str) else value["hex"])
                case {"text": str(text)}:
                    return text.encode()
                case {"file": str(name)}:
                    return (self._folder / name).read_bytes()
                case list():
                    return b"".join(self.blob(one, where) for one in value)
        except ValueError as error:
            raise DescriptionError(f"{where}: {error}") from None
        raise DescriptionError(f"{where}: bytes are hexadecimal text, or {{hex|text|file = ...}}")
