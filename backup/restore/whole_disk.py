"""A whole disk from an image, or from a chain of an image and its changes: places as they were."""

import time
from collections.abc import Callable, Sequence
from enum import Enum

from serverfree.backup.archive.member import Data, Kind
from serverfree.backup.catalog.facts import Backup
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.ntfs.errors import NtfsError
from serverfree.backup.ntfs.volume import Volume
from serverfree.backup.restore.archives import Archives
from serverfree.backup.restore.chain import gaps, newest
from serverfree.backup.restore.mover import Mover
from serverfree.backup.restore.report import RestoreReport
from serverfree.backup.restore.target import DiskTarget
from serverfree.backup.restore.wanted import RestoreError
from serverfree.backup.watching import Watcher
from serverfree.initiator.sizes import format_size


class FreeSpace(Enum):
    """What becomes of the places that the image does not hold."""

    AUTO = "auto"
    """Unmapped where the disk can, and reads zeros then; else left as they are."""
    CLEAR = "clear"
    """Unmapped, or written with zeros."""
    KEEP = "keep"


def restore_disk(
    catalog: Catalog,
    chain: Sequence[Backup],
    archives: Archives,
    target: DiskTarget,
    mover: Mover,
    report: RestoreReport,
    watcher: Watcher,
    free: FreeSpace,
    affected: Callable[[int, int], str],
) -> None:
    """Write an image to a disk of the same size or a larger one. Raises RestoreError."""
    images = [_image(catalog, backup, archives) for backup in chain]
    pieces = newest(images)
    end = max((piece.offset + piece.length for piece in pieces), default=0)
    size = max(chain[-1].facts.disk_size, end)
    if target.size < size:
        raise RestoreError(
            f"the disk has {format_size(target.size)}, the image is of {format_size(size)}: "
            "restore its files into a volume on it instead (give a PATH, or '*')"
        )
    watcher.phase("freeing what the image does not hold")
    report.free_space = _free(target, gaps(pieces, target.size), free)
    watcher.phase("moving the image")
    started = time.monotonic()
    lost = mover.move(pieces)
    target.flush()
    report.moving_seconds += time.monotonic() - started
    report.content_bytes = sum(piece.length for piece in pieces)
    report.extents = len(pieces)
    for each in lost:
        piece, what = each.piece, affected(each.piece.archive_offset, each.piece.length)
        report.skipped.append(
            f"bytes {piece.offset} to {piece.offset + piece.length} of the disk: {each.why}"
            + (f"; concerns {what}" if what else "")
        )
    _look_at(target, chain[-1], report)
    if target.size > size:
        report.warnings.append(
            f"the disk is {format_size(target.size - size)} larger than what was backed up: "
            "`--grow` lets an unpartitioned volume fill it, ntfsresize does so later"
        )


def _image(catalog: Catalog, backup: Backup, archives: Archives) -> list[Data]:
    for entry in catalog.members(backup):
        if entry.member.kind is Kind.IMAGE:
            return [
                Data(each.start, each.length, archives.offset(backup, each.archive_offset))
                for each in entry.member.data
            ]
    raise RestoreError(f"backup {backup.id} has no image")


def _free(target: DiskTarget, places: list[tuple[int, int]], wish: FreeSpace) -> str:
    """Do what is to be done with the free places; return what was done."""
    total = format_size(sum(length for _, length in places))
    if not places:
        return "none"
    if wish is not FreeSpace.KEEP and target.unmaps_to_zeros:
        target.unmap(places)
        return f"unmapped: {total}"
    if wish is FreeSpace.CLEAR:
        for offset, length in places:
            target.zero(offset, length)
        return f"written with zeros: {total}"
    return f"left as it was: {total} hold what they held"


def _look_at(target: DiskTarget, backup: Backup, report: RestoreReport) -> None:
    """See that the volume that was backed up is there."""
    wanted = backup.facts.volume
    if wanted is None:
        return
    try:
        found = Volume.open(target, wanted.start).facts
    except NtfsError as error:
        raise RestoreError(f"no volume is where it should be on the disk: {error}") from error
    if (found.serial, found.size) != (wanted.serial, wanted.size):
        raise RestoreError(f"the volume on the disk has serial {found.serial}, not {wanted.serial}")
    if found.dirty:
        report.warnings.append("the volume was marked dirty when it was backed up: have it checked")
