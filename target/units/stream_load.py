"""LOAD UNLOAD: how a cartridge comes and goes (SSC-4 7.2).

A cartridge is away, held in the drive with only its memory within reach, or mounted. What SSC
leaves to the drive is as on HP's and IBM's: the unit attention of a load is for all nexuses but the
one whose LOAD it was, and there is none where the medium was mounted already (HP Ultrium technical
reference C7379-90900, p. 56; IBM GA32-0928-06, 4.19.4). So Linux st, which counts files from that
unit attention on, knows no file number between `mt load` and the next rewind.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from serverfree.scsi.cdb.stream import LoadUnload
from serverfree.scsi.errors import illegal_request, invalid_field_in_cdb
from serverfree.scsi.sense import Asc
from serverfree.scsi.tape_vpd import TapeAlert
from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.backstore.cartridge_errors import CartridgeError, WriteFailed
from serverfree.target.units.command import Command
from serverfree.target.units.stream_medium import Medium, medium_error

if TYPE_CHECKING:
    from serverfree.target.units.stream import StreamUnit

log = logging.getLogger(__name__)


def load_unload(unit: StreamUnit, command: Command) -> None:
    """LOAD UNLOAD. There is no tape to wind: RETEN and EOT change nothing.

    HOLD leaves the cartridge in the drive, unthreaded as it were; what needs the medium is then NOT
    READY 3A/04 (HP LTO-4 technical reference, volume 2, p. 61).
    """
    cdb = LoadUnload.unpack(command.cdb)
    if cdb.load and cdb.end_of_tape:
        raise invalid_field_in_cdb(4, 2)
    news = None
    with unit.lock:
        if cdb.hold:
            news = _hold(unit, take_up=cdb.load)
        elif cdb.load:
            news = _load(unit)
        else:
            _unload(unit)
    if news:
        unit.raise_attention(news, but=command.nexus)


def _load(unit: StreamUnit) -> Asc | None:
    """Mount the cartridge, or go to the beginning of a mounted one; return what others are told."""
    if unit.medium:
        unit.sync(unit.medium)
        unit.medium.number = unit.medium.block = 0
        return None
    _take_up(unit)
    assert unit.held, "it has been taken up"
    unit.medium, unit.held = unit.held, None
    unit.note_load(unit.medium)
    return Asc.NOT_READY_TO_READY_CHANGE


def _hold(unit: StreamUnit, *, take_up: bool) -> Asc | None:
    """Demount the cartridge and keep it; return what others are told of one that was away."""
    if unit.medium:
        _demount(unit)
    elif take_up and not unit.held:
        _take_up(unit)
        return Asc.MEDIUM_AUXILIARY_MEMORY_ACCESSIBLE
    return None


def _unload(unit: StreamUnit) -> None:
    """Demount the cartridge and let go of it. Raises 5/53/02 while a nexus prevents that."""
    if unit.preventing and (unit.medium or unit.held):
        unit.alerts.add(TapeAlert.NO_REMOVAL)
        raise illegal_request(Asc.MEDIUM_REMOVAL_PREVENTED)
    let_go(unit)


def _take_up(unit: StreamUnit) -> None:
    """Open the cartridge, if the drive has not.

    Raises NOT READY 3A/00 in a drive that never had one, MEDIUM ERROR 53/00 if it cannot be opened.
    """
    if unit.held:
        return
    if unit.directory is None:
        unit.require_medium()
        return
    unit.loading = True
    try:
        unit.held = Medium(open_cartridge(unit.directory))
    except CartridgeError as error:
        log.error("%s: %s", unit.name, error)
        unit.alerts.add(TapeAlert.LOADING_FAILURE)
        raise medium_error(Asc.MEDIA_LOAD_OR_EJECT_FAILED) from error
    finally:
        unit.loading = False


def _demount(unit: StreamUnit) -> None:
    """Put everything on stable storage; only the memory can be reached from then on.

    If stable storage fails the medium is demounted nevertheless, with MEDIUM ERROR: what lasted
    will be there when it is loaded again.
    """
    if unit.medium is None:
        return
    medium, unit.medium = unit.medium, None
    unit.held = Medium(medium.cartridge)
    unit.encryption.demounted()
    unit.alerts.clear()
    unit.modes.partitioning = None
    try:
        medium.cartridge.memory.unloaded()
    except OSError as error:
        log.warning("%s: the cartridge's memory: %s", medium.cartridge.directory, error)
    unit.sync(medium)


def let_go(unit: StreamUnit) -> None:
    """Close the cartridge, so that another drive or a person can have it.

    If it cannot all be put on stable storage it is closed nevertheless, with MEDIUM ERROR.
    """
    try:
        _demount(unit)
    finally:
        held, unit.held = unit.held, None
        if held:
            _close(held)


def _close(held: Medium) -> None:
    try:
        held.cartridge.close()
    except WriteFailed as error:
        raise medium_error(Asc.WRITE_ERROR) from error
