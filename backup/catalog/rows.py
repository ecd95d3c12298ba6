"""Facts to rows and back: the only place where columns get their meaning."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from struct import Struct
from typing import Any

from serverfree.backup.archive.member import Data, Elsewhere, Kind, Member, Reason
from serverfree.backup.catalog.facts import Backup, BackupFacts, CatalogError, Mode, State
from serverfree.backup.files import VolumeFacts

_ENTRY = Struct(">HI")

FACT_COLUMNS = tuple(field.name for field in fields(BackupFacts))
BACKUP_COLUMNS = ("id", *FACT_COLUMNS, "state", "finished", "blocks", "size", "report")

# What a listing needs, and what makes a member whole.
LISTED_COLUMNS = (
    "stream",
    "kind",
    "size",
    "modified",
    "header_offset",
    "end_offset",
    "link_target",
    "number",
    "sequence",
    "server_bytes",
    "reason",
    "damage",
)
WHOLE_COLUMNS = ("attributes", "resident", "compression_unit", "valid")


def decode_text(raw: bytes) -> str:
    """Read a TEXT: names of NTFS may hold half a surrogate pair, which UTF-8 has no form for."""
    return raw.decode("utf-8", "surrogatepass")


def encode_text(text: str) -> bytes:
    """Return what `CAST(? AS TEXT)` makes a TEXT of that `decode_text` reads as the same."""
    return text.encode("utf-8", "surrogatepass")


def split_path(path: str) -> tuple[str, str]:
    """Return the folder and the name in it."""
    folder, _, name = path.rpartition("/")
    return folder, name


def pack_attributes(attributes: Mapping[str, bytes]) -> bytes:
    """Return attributes as one blob: name and value, each with its length in front."""
    parts = []
    for name, value in attributes.items():
        raw = encode_text(name)
        parts += [_ENTRY.pack(len(raw), len(value)), raw, value]
    return b"".join(parts)


def unpack_attributes(blob: bytes) -> dict[str, bytes]:
    """Read what `pack_attributes` made; raises CatalogError for anything else."""
    attributes, at = {}, 0
    while at < len(blob):
        if at + _ENTRY.size > len(blob):
            raise CatalogError("the attributes of a member are cut off")
        name, value = _ENTRY.unpack_from(blob, at)
        at += _ENTRY.size
        end = at + name + value
        if end > len(blob):
            raise CatalogError("the attributes of a member are cut off")
        attributes[decode_text(blob[at : at + name])] = blob[at + name : end]
        at = end
    return attributes


def fact_values(facts: BackupFacts) -> dict[str, Any]:
    """Return the columns of what is known when a backup begins."""
    values = {name: getattr(facts, name) for name in FACT_COLUMNS}
    values["mode"] = facts.mode.value
    values["volume"] = None if facts.volume is None else json.dumps(asdict(facts.volume))
    return values


def backup_of(row: Mapping[str, Any], warnings: tuple[str, ...]) -> Backup:
    """Return the backup of a row with BACKUP_COLUMNS; raises CatalogError if it makes no sense."""
    values = dict(row)
    try:
        facts = {name: values[name] for name in FACT_COLUMNS}
        facts["mode"] = Mode(facts["mode"])
        if facts["volume"] is not None:
            facts["volume"] = volume_of(json.loads(facts["volume"]))
        report = json.loads(values["report"])
        if not isinstance(report, dict):
            raise ValueError("a report that is no object")
        return Backup(
            id=values["id"],
            facts=BackupFacts(**facts),
            state=State(values["state"]),
            finished=values["finished"],
            blocks=values["blocks"],
            size=values["size"],
            report=report,
            warnings=warnings,
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CatalogError(f"the catalog's entry of a backup is damaged: {error}") from error


def volume_of(values: Any) -> VolumeFacts:
    """Return volume facts from JSON that anyone may have written; raises ValueError."""
    if not isinstance(values, dict):
        raise ValueError("facts of a volume that are no object")
    chosen: dict[str, Any] = {}
    for field in fields(VolumeFacts):
        value = values.get(field.name)
        kind = {"str": str, "int": int, "bool": bool}.get(str(getattr(field.type, "__name__", "")))
        if kind is None or type(value) is not kind:
            raise ValueError(f"facts of a volume without a right {field.name}")
        chosen[field.name] = value
    return VolumeFacts(**chosen)


def member_values(member: Member) -> tuple[Any, ...]:
    """Return LISTED_COLUMNS and WHOLE_COLUMNS of a member, texts from names as bytes to cast."""
    return (
        encode_text(member.stream),
        member.kind.value,
        member.size,
        member.modified,
        member.header_offset,
        member.end_offset,
        encode_text(member.link_target),
        member.number,
        member.sequence,
        member.server_bytes,
        None if member.reason is None else member.reason.value,
        encode_text(member.damage),
        pack_attributes(member.attributes),
        member.resident,
        member.compression_unit,
        member.valid,
    )


def member_of(folder: str, name: str, listed: tuple[Any, ...]) -> Member:
    """Return a member from its LISTED_COLUMNS."""
    stream, kind, size, modified, header, end, target, number, sequence, server, why, damage = (
        listed
    )
    return Member(
        path=f"{folder}/{name}" if folder else name,
        kind=Kind(kind),
        size=size,
        modified=modified,
        stream=stream,
        header_offset=header,
        end_offset=end,
        link_target=target,
        number=number,
        sequence=sequence,
        server_bytes=server,
        reason=None if why is None else Reason(why),
        damage=damage,
    )


def extent_values(member: Member) -> list[tuple[int, int, int | None, int | None]]:
    """Return start, length, archive offset and disk offset of what a member consists of."""
    here = [(each.start, each.length, each.archive_offset, None) for each in member.data]
    there = [(each.start, each.length, None, each.disk_offset) for each in member.elsewhere]
    return [*here, *there]


def complete(member: Member, whole: tuple[Any, ...], extents: Iterable[tuple[Any, ...]]) -> None:
    """Fill in WHOLE_COLUMNS of a member and its extents, as `extent_values` has them."""
    attributes, member.resident, member.compression_unit, member.valid = whole
    member.attributes = unpack_attributes(attributes)
    data, elsewhere = [], []
    for start, length, archive_offset, disk_offset in extents:
        if archive_offset is None:
            elsewhere.append(Elsewhere(start, length, disk_offset))
        else:
            data.append(Data(start, length, archive_offset))
    member.data, member.elsewhere = tuple(data), tuple(elsewhere)
