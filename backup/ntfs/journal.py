"""$LogFile, as far as it tells whether the volume was left in order."""

from struct import Struct

from serverfree.backup.ntfs.errors import NtfsError
from serverfree.backup.ntfs.record import undo_fixups

PAGE = 4096
LENGTH = 2 * PAGE  # both restart pages
_MAGIC = b"RSTR"
# Of a page: where its restart area begins. Of the area: its log sequence number, clients, first
# free one, first one in use, flags.
_PAGE = Struct("<24xH")
_AREA = Struct("<QHHHH")
_NO_CLIENT, _CLEAN = 0xFFFF, 0x0002


def is_clean(pages: bytes) -> bool:
    """Return whether no change is left that only the journal knows of, from its first 8 KiB.

    The newer of the two restart pages tells. A journal without any has been emptied: that is what
    mkntfs and the ntfs-3g driver leave.
    """
    areas = []
    for at in range(0, len(pages) - PAGE + 1, PAGE):
        page = bytearray(pages[at : at + PAGE])
        if page[:4] != _MAGIC:
            continue
        try:
            undo_fixups(page)
        except NtfsError:
            continue
        (begin,) = _PAGE.unpack_from(page)
        if begin + _AREA.size <= PAGE:
            sequence, _, _, in_use, flags = _AREA.unpack_from(page, begin)
            areas.append((sequence, in_use == _NO_CLIENT or bool(flags & _CLEAN)))
    return max(areas)[1] if areas else not pages.startswith(_MAGIC)
