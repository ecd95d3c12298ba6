"""An EXTENDED COPY parameter list in words, for those who want to see what is sent."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from serverfree.scsi.copy_cscd import (
    AliasCscd,
    BlockParameters,
    Extension,
    IdentificationCscd,
    Ipv4Cscd,
    Ipv6Cscd,
    RodCscd,
    StreamParameters,
)
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.luns import unpack_lun

_ENDS = ("source", "destination")


def describe_copy(copy: CopyList) -> Iterator[str]:
    """Yield the lines that tell of a parameter list: header, CSCDs, segments."""
    flags = "".join(
        f", {name.replace('_', ' ')}"
        for name in ("lid4", "immediate", "good_with_sense", "sequential_striped")
        if getattr(copy, name)
    )
    yield (
        f"list identifier {copy.list_identifier}, usage {copy.list_id_usage:02b}b, "
        f"{len(copy.cscds)} CSCDs, {len(copy.segments)} segments, {len(copy.inline)} bytes inline"
        f"{flags}"
    )
    for number, cscd in enumerate(copy.cscds):
        yield f"  CSCD {number}: {describe_cscd(cscd)}"
    for number, segment in enumerate(copy.segments):
        yield f"  segment {number}: {describe_segment(segment)}"


def annotate_copy(copy: CopyList) -> Iterator[str]:
    """Yield the same lines, each followed by the bytes that say it on the wire."""
    data = copy.pack()
    at = 0
    descriptors: list[Any] = [*copy.cscds, *copy.segments]
    lengths = [copy.cscds_at, *(len(one.pack()) for one in descriptors)]
    for line, length in zip(describe_copy(copy), lengths, strict=True):
        yield line
        yield from hex_dump(data[at : at + length], at)
        at += length
    if at < len(data):
        yield "  inline data"
        yield from hex_dump(data[at:], at)


def describe_cscd(cscd: Any) -> str:
    """Say which unit a CSCD descriptor names and how it is to be used."""
    match cscd:
        case IdentificationCscd():
            unit = str(cscd.designator)
        case Ipv4Cscd() | Ipv6Cscd():
            unit = f"LUN {unpack_lun(cscd.lun)} at {cscd.address} port {cscd.port}"
        case RodCscd():
            return _describe_rod(cscd)
        case AliasCscd():
            unit = f"LUN {unpack_lun(cscd.lun)} of alias {cscd.alias.hex()}"
        case Extension():
            return "second half of the one before"
        case _:
            return str(cscd)
    parameters = cscd.parameters
    pad = " PAD" if parameters.pad else ""
    code = f"{cscd.TYPE:02X}h"
    if isinstance(parameters, BlockParameters):
        return f"{code} disk {unit}, blocks of {parameters.block_length}{pad}"
    if isinstance(parameters, StreamParameters):
        blocks = f"blocks of {parameters.block_length}" if parameters.fixed else "variable blocks"
        return f"{code} tape {unit}, {blocks}{pad}"
    return f"{code} device type {cscd.device_type:02X}h {unit}{pad}"


def _describe_rod(cscd: RodCscd) -> str:
    flags = "".join(
        f" {name.replace('_', ' ').upper()}"
        for name in ("return_token", "delete_token")
        if getattr(cscd, name)
    )
    if not cscd.rod_type:
        return f"{cscd.TYPE:02X}h ROD of the token at inline byte {cscd.token_offset}{flags}"
    times = "".join(
        f", {name} {getattr(cscd, name)} s"
        for name in ("lifetime", "inactivity")
        if getattr(cscd, name)
    )
    return f"{cscd.TYPE:02X}h ROD of type {cscd.rod_type:08X}h{times}{flags}"


def describe_segment(segment: Any) -> str:
    """Say what a segment does: its name, from where to where, and its fields by name."""
    code = getattr(segment, "TYPE", None)
    if code is None:
        return str(segment)
    values = {field.name: getattr(segment, field.name) for field in fields(segment)}
    ends = [str(values.pop(end)) for end in _ENDS if end in values]
    words = [" -> ".join(ends)] if ends else []
    words += [text for name, value in values.items() if (text := _describe_field(name, value))]
    return f"{code:02X}h {words_of(type(segment).__name__)}, {', '.join(words)}"


def words_of(name: str) -> str:
    """Return the words of a class name: `block to stream` of `BlockToStream`."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()


def _describe_field(name: str, value: Any) -> str:
    match value:
        case bool():
            return name.replace("_", " ").upper() if value else ""
        case bytes() | bytearray() | memoryview():
            return f"{name.replace('_', ' ')} of {len(value)} bytes"
        case _:
            return f"{name.replace('_', ' ')} {value}"


def hex_dump(data: bytes, start: int = 0) -> Iterator[str]:
    """Yield sixteen bytes a line, with their offset; the first one has the offset `start`."""
    for at in range(0, len(data), 16):
        yield f"{start + at:06x}  {data[at : at + 16].hex(' ')}"
