"""An incremental image: since which backup, and what has changed since."""

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
) -> Backup | None:
    """Return the backup to hold the changes since; None where none was asked for, or where
    `latest` was and there is none yet. Raises BackupError for one that will not do.

    A chain is restored from one cartridge, so the parent is on the one in the drive, and stays.
    """

    def unfit(backup: Backup) -> str:
        why = _unfit(backup, designator)
        if why:
            return why
        if backup.facts.medium_serial != cartridge:
            return f"it is on cartridge {backup.facts.medium_serial}, not on the one in the drive"
        return "it would be written over" if overwrite else ""

    if wanted is None:
        return None
    if wanted == LATEST:
        able = [each for each in catalog.backups() if not unfit(each)]
        return able[-1] if able else None
    parent = catalog.backup(wanted)
    why = unfit(parent)
    if why:
        raise BackupError(f"backup {parent.id} is no parent for this one: {why}")
    return parent


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
