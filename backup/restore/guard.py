"""Whether a disk may be written to: nobody else has reserved it, nobody has left it unclean.

No reservation is taken: one that kept others out would keep out the copy manager, which is another
initiator to the disk. The disk is looked at before anything is written, and again before metadata.
"""

from serverfree.backup.device import Device
from serverfree.backup.ntfs.errors import NtfsError
from serverfree.backup.ntfs.volume import Volume
from serverfree.backup.restore.wanted import RestoreError
from serverfree.initiator.disk import Disk
from serverfree.scsi.cdb.reservation import ReadReservation
from serverfree.scsi.errors import CheckCondition, ReservationConflict
from serverfree.scsi.sense import SenseKey

_LENGTH = 64
_HEADER = 8


def refuse_reserved(disk: Disk, *, force: bool) -> None:
    """Raise RestoreError for a disk that another initiator has reserved, unless forced."""
    if force:
        return
    try:
        data = disk.fetch(ReadReservation(allocation_length=_LENGTH), _LENGTH)
    except ReservationConflict:  # RESERVE of SPC-2 keeps even this out
        raise _reserved(disk, "another initiator has reserved it") from None
    except CheckCondition as error:
        if error.sense.key is not SenseKey.ILLEGAL_REQUEST:
            raise
        return  # a disk without persistent reservations
    if int.from_bytes(data[4:_HEADER], "big"):
        key = data[_HEADER : _HEADER + 8].hex()
        raise _reserved(disk, f"it is reserved by the holder of key {key}")


def _reserved(disk: Disk, why: str) -> RestoreError:
    return RestoreError(f"{disk.device}: {why}; --force tries nevertheless")


def refuse_dirty(device: Device, start: int, *, force: bool) -> None:
    """Raise RestoreError where a volume lies that is marked dirty, unless forced."""
    if force:
        return
    try:
        dirty = Volume.open(device, start).facts.dirty
    except NtfsError:
        return  # no volume: nothing to lose
    if dirty:
        raise RestoreError(
            "the volume on the disk is marked dirty: somebody may be at work on it, or was cut "
            "off; --force overwrites it"
        )
