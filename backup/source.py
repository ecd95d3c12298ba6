"""What a backup reads: a snapshot, taken when the disk is quiet and deleted in the end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serverfree.backup.array import Array, ArrayError
from serverfree.backup.catalog.facts import CatalogError, State
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.hooks import Hooks
from serverfree.backup.watching import Watcher

PREFIX = "backup-"
"""How the snapshots that backups take begin; the id of the backup follows."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where to read, and what that is worth. `waited` is how many seconds the snapshot took."""

    url: str
    consistency: str = "none"
    snapshot: str = ""
    generation: int | None = None
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class Quiet:
    """How many seconds without a write to wait for, and for how long; None: as the disk is set."""

    period: float | None = 3.0
    timeout: float | None = 80.0


@contextmanager
def snapshot_of(
    array: Array,
    disk: str,
    backup: str,
    quiet: Quiet,
    hooks: Hooks,
    watcher: Watcher,
    warnings: list[str],
) -> Iterator[Source]:
    """Take a snapshot of a disk and yield it as a source; it is deleted in the end.

    Raises SnapshotTimeout if the disk does not become quiet, HookError, and ArrayError. That it
    could not be deleted is a warning, because the backup is none the worse for it.
    """
    began = time.monotonic()
    with hooks.around() as consistency:
        facts = array.create(
            disk,
            quiet=quiet.period,
            timeout=quiet.timeout,
            name=PREFIX + backup,
            consistency=consistency,
            progress=watcher.waiting,
        )
    waited = time.monotonic() - began
    try:
        yield Source(facts.url, facts.consistency, facts.name, facts.generation, waited)
    finally:
        try:
            # It is ours: whoever has read it lately has done so for us, and needs it no more.
            array.delete(facts.name, force=True)
        except ArrayError as error:
            warnings.append(
                f"snapshot {facts.name} could not be deleted: {error}; the next backup tries again"
            )


def delete_left_over(array: Array, disk: str, catalog: Catalog) -> Iterator[str]:
    """Delete the snapshots of a disk that earlier backups have left; yield what was done.

    Those are the ones that bear the name of a backup of this catalog that does not run any more.
    """
    found = array.find_disk(disk)
    for each in array.snapshots():
        if (each.target, each.disk) != (found.target, found.name):
            continue
        if not each.name.startswith(PREFIX):
            continue
        try:
            backup = catalog.backup(each.name.removeprefix(PREFIX))
        except CatalogError:
            continue
        if backup.state is not State.RUNNING:
            array.delete(each.name, force=True)
            yield f"deleted snapshot {each.name}, which an unfinished backup had left"
