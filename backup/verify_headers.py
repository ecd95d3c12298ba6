"""Do the headers on tape say what the catalog does? That is what plain tar will go by."""

from serverfree.backup.archive.member import ArchiveError, Member
from serverfree.backup.archive.read import ArchiveReader
from serverfree.backup.catalog.facts import Backup
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.tape_blocks import TapeBlocks
from serverfree.backup.verify_report import BadRange


class _Unreadable(Exception):
    """A block that a header lies in cannot be read."""


def check_headers(
    catalog: Catalog, backup: Backup, blocks: TapeBlocks
) -> tuple[int, list[BadRange]]:
    """Read the headers of an archive and return how many members agree, and what does not.

    Reading ends at the first header that makes no sense: where the next one lies nobody knows.
    """
    reader = ArchiveReader(lambda at, length: _read(blocks, backup, at, length))
    found = reader.members()
    good = 0
    bad: list[BadRange] = []
    for entry in catalog.members(backup):
        wanted = entry.member
        if not wanted.end_offset:
            continue  # a file inside an image has no header of its own
        try:
            member = next(found, None)
        except (ArchiveError, _Unreadable) as why:
            return good, [*bad, _bad(wanted, entry.shown, str(why))]
        if member is None:
            return good, [*bad, _bad(wanted, entry.shown, "the archive ends before it")]
        differing = _differing(member, wanted)
        if differing:
            bad.append(_bad(wanted, entry.shown, f"its header differs in {differing}"))
        else:
            good += 1
    return good, bad


def _differing(member: Member, wanted: Member) -> str:
    names = ("path", "stream", "kind", "size", "header_offset", "end_offset", "data", "link_target")
    return ", ".join(
        name.replace("_", " ") for name in names if getattr(member, name) != getattr(wanted, name)
    )


def _bad(member: Member, shown: str, why: str) -> BadRange:
    return BadRange(member.header_offset, member.end_offset - member.header_offset, why, [shown])


def _read(blocks: TapeBlocks, backup: Backup, at: int, length: int) -> bytes:
    """Return bytes of an archive, fewer only where it ends."""
    parts = []
    end = min(at + length, backup.size)
    while at < end:
        number, skip = divmod(at, backup.facts.tape_block)
        block = blocks.read(number)
        if isinstance(block, str):
            raise _Unreadable(block)
        part = bytes(block[skip : skip + end - at])
        if not part:
            break
        parts.append(part)
        at += len(part)
    return b"".join(parts)
