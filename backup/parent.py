"""An incremental image: since which backup, and what has changed since."""

from collections.abc import Sequence

from serverfree.backup.archive.image import Extents
from serverfree.backup.array import Array, ArrayError
from serverfree.backup.catalog.facts import Backup, Mode, State
from serverfree.backup.catalog.query import Queries
from serverfree.backup.errors import BackupError
from serverfree.backup.source import Source

LATEST = "latest"
"""Stands for the last image of the disk."""


def find_parent(
    catalog: Queries, wanted: str | None, designator: str, cartridge: str, *, overwrite: bool
) -> tuple[Backup | None, str]:
    """Return the backup to hold the changes since; None where none was asked for, or where
    `latest` was and there is none, and why not. Raises BackupError for one that will not do.

    A chain is restored from one cartridge, so the parent is on the one in the drive, and stays.
    """
    if wanted is None:
        return None, ""
    if wanted == LATEST:
        able = [each for each in catalog.backups() if not _unfit(each, designator)]
        here = [each for each in able if each.facts.medium_serial == cartridge]
        if here and not overwrite:
            return here[-1], ""
        if here:
            return None, "what is on the cartridge will be written over"
        return None, _why_none(able)
    parent = catalog.backup(wanted)
    why = _unfit(parent, designator)
    if not why and parent.facts.medium_serial != cartridge:
        why = f"it is on cartridge {parent.facts.medium_serial}, not on the one in the drive"
    if not why and overwrite:
        why = "it would be written over"
    if why:
        raise BackupError(f"backup {parent.id} is no parent for this one: {why}")
    return parent, ""


def _why_none(elsewhere: Sequence[Backup]) -> str:
    if not elsewhere:
        return "there is no image of this disk yet to add to"
    last = elsewhere[-1]
    return (
        f"the last one, {last.id}, is on cartridge {last.facts.medium_serial}, and what adds to it "
        "has to lie there too"
    )


def _unfit(backup: Backup, designator: str) -> str:
    facts = backup.facts
    if backup.state is not State.DONE:
        return f"it is {backup.state.value}"
    if facts.mode is not Mode.IMAGE:
        return f"it is of {facts.mode.value}, not an image"
    if facts.disk_designator != designator:
        return "it is of another disk"
    if facts.generation is None:
        return "it was made without a snapshot, so nobody knows what has changed since"
    return ""


def changes_since(
    array: Array, source: Source, parent: Backup | None
) -> tuple[Extents | None, str]:
    """Return what of the disk has changed since the parent, in order, None for everything; and
    why it is everything although there is a parent.
    """
    if parent is None or parent.facts.generation is None:
        return None, ""
    try:
        changes = array.changes(source.snapshot, parent.facts.generation)
    except ArrayError as error:
        return None, f"a full image: what changed since {parent.id} is not known: {error}"
    if not changes.complete:
        return None, (
            f"a full image: the storage system does not know all that changed since {parent.id}"
        )
    return list(changes.extents), ""
