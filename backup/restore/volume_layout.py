"""What lies where on a volume, for the order in which it is written."""

from collections.abc import Iterable

from serverfree.backup.files import Extent
from serverfree.backup.ntfs.assembly import group, runs_of
from serverfree.backup.ntfs.attribute import Resident, Type
from serverfree.backup.ntfs.boot import Boot
from serverfree.backup.ntfs.mft import MasterFileTable
from serverfree.backup.ntfs.runs import join
from serverfree.backup.ntfs.volume import BITMAP, LOGFILE, Volume
from serverfree.backup.restore.ranges import Range, Ranges
from serverfree.backup.restore.shadow import Shadow
from serverfree.backup.restore.writeback import Layout

_MFT, _MIRROR = 0, 1


def layout_of(shadow: Shadow, used: Ranges, content: Iterable[Range]) -> Layout:
    """Read from the shadow where everything lies. `content` is what of it is content."""
    volume = Volume.open(shadow)
    boot = volume.boot
    table = MasterFileTable(shadow, boot)
    bitmaps = _stream(table, boot, BITMAP, Type.DATA) + _stream(table, boot, _MFT, Type.BITMAP)
    return Layout(
        boot,
        used,
        written=Ranges([*volume.metadata(), *content]),
        log=Ranges(_stream(table, boot, LOGFILE, Type.DATA)),
        bitmaps=Ranges(bitmaps),
        records=Ranges([*_ranges(table.extents), *_stream(table, boot, _MIRROR, Type.DATA)]),
        first_records=(boot.mft * boot.cluster_size, boot.mirror * boot.cluster_size),
    )


def _stream(table: MasterFileTable, boot: Boot, number: int, kind: Type) -> list[tuple[int, int]]:
    pieces = group([table.record(number)]).get((kind, ""), ())
    if not pieces or isinstance(pieces[0], Resident):
        return []
    return _ranges(join(runs_of(pieces), boot))


def _ranges(extents: Iterable[Extent]) -> list[tuple[int, int]]:
    return [(extent.place, extent.length) for extent in extents]
