"""A tape drive: a sequential-access logical unit over a cartridge (SSC-4)."""

import logging
from collections.abc import Sequence
from pathlib import Path
from struct import Struct
from threading import Lock

from serverfree.scsi.cdb.stream import (
    MAX_TRANSFER_LENGTH,
    Erase6,
    LoadUnload,
    Locate10,
    Locate16,
    PreventAllowMediumRemoval,
    Read6,
    ReadBlockLimits,
    ReadPositionExtended,
    ReadPositionLong,
    ReadPositionShort,
    ReadPositionShortVendor,
    ReportDensitySupport,
    Rewind,
    Space6,
    Space16,
    Verify6,
    Write6,
    WriteFilemarks6,
)
from serverfree.scsi.errors import CheckCondition, invalid_field_in_cdb
from serverfree.scsi.inquiry import DeviceType, StandardInquiry, VersionDescriptor
from serverfree.scsi.mode import ModePage
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.scsi.tape import BlockLimits, DensityDescriptor
from serverfree.target.backstore.cartridge import Cartridge, open_cartridge
from serverfree.target.backstore.cartridge_errors import CartridgeError, WriteFailed
from serverfree.target.backstore.cartridge_partition import Partition
from serverfree.target.units import stream_motion, stream_transfer
from serverfree.target.units.base import VENDOR, Row, Table, Unit, merge_tables, table_of
from serverfree.target.units.command import Command, Lane, Nexus
from serverfree.target.units.primary import PRIMARY_TABLE
from serverfree.target.units.stream_medium import Medium, medium_error
from serverfree.target.units.stream_mode import DENSITY, StreamModes
from serverfree.target.units.third_party import THIRD_PARTY_COPY_TABLE

log = logging.getLogger(__name__)

_DENSITY_HEADER = Struct(">HH")
_ALLOW, _PREVENT = 0, 1


def read_block_limits(unit: "StreamUnit", command: Command) -> bytes:
    """READ BLOCK LIMITS: any length that a READ(6) can say."""
    return BlockLimits(maximum=MAX_TRANSFER_LENGTH, minimum=1).pack()


def report_density_support(unit: "StreamUnit", command: Command) -> bytes:
    """REPORT DENSITY SUPPORT: the one density there is."""
    cdb = ReportDensitySupport.unpack(command.cdb)
    medium = unit.require_medium() if cdb.media else unit.medium
    descriptor = DensityDescriptor(
        primary_code=DENSITY,
        secondary_code=DENSITY,
        writable=True,
        default=True,
        capacity=medium.cartridge.capacity // 1_000_000 if medium else 0,
        organization=VENDOR,
        name="LOG-1",
        description="Record log",
    ).pack()
    header = _DENSITY_HEADER.pack(_DENSITY_HEADER.size - 2 + len(descriptor), 0)
    return (header + descriptor)[: cdb.allocation_length]


def load_unload(unit: "StreamUnit", command: Command) -> None:
    """LOAD UNLOAD. There is no tape to wind: RETEN and EOT change nothing."""
    cdb = LoadUnload.unpack(command.cdb)
    if cdb.load:
        if cdb.end_of_tape:
            raise invalid_field_in_cdb(4, 2)
        unit.load(command.nexus)
    else:
        unit.unload()


def prevent_allow_medium_removal(unit: "StreamUnit", command: Command) -> None:
    """PREVENT ALLOW MEDIUM REMOVAL, remembered for each nexus."""
    cdb = PreventAllowMediumRemoval.unpack(command.cdb)
    if cdb.prevent not in (_ALLOW, _PREVENT):
        raise invalid_field_in_cdb(4, 1)
    if cdb.prevent == _PREVENT:
        unit.preventing.add(command.nexus)
    else:
        unit.preventing.discard(command.nexus)


def _read_lane(unit: "StreamUnit", cdb: bytes) -> Lane:
    return Lane.QUEUED if unit.lock.locked() else Lane.INLINE


def _write_lane(unit: "StreamUnit", cdb: bytes) -> Lane:
    # An overwrite begins with a sync and a truncation; unbuffered writes end with a sync.
    medium = unit.medium
    quick = not unit.lock.locked() and unit.modes.buffered and medium and medium.at_eod
    return Lane.INLINE if quick else Lane.QUEUED


STREAM_TABLE: Table = table_of(
    Row("READ(6)", Read6.USAGE, stream_transfer.read, lane=_read_lane),
    Row("VERIFY(6)", Verify6.USAGE, stream_transfer.verify, lane=Lane.QUEUED),
    Row(
        "WRITE(6)",
        Write6.USAGE,
        stream_transfer.write,
        data_out=stream_transfer.write_length,
        lane=_write_lane,
    ),
    Row(
        "WRITE FILEMARKS(6)",
        WriteFilemarks6.USAGE,
        stream_transfer.write_filemarks,
        lane=Lane.QUEUED,
    ),
    Row("ERASE(6)", Erase6.USAGE, stream_transfer.erase, lane=Lane.QUEUED),
    Row("SPACE(6)", Space6.USAGE, stream_motion.space, lane=Lane.QUEUED),
    Row("SPACE(16)", Space16.USAGE, stream_motion.space, lane=Lane.QUEUED),
    Row("LOCATE(10)", Locate10.USAGE, stream_motion.locate10, lane=Lane.QUEUED),
    Row("LOCATE(16)", Locate16.USAGE, stream_motion.locate16, lane=Lane.QUEUED),
    Row("REWIND", Rewind.USAGE, stream_motion.rewind, lane=Lane.QUEUED),
    *(
        Row(
            name,
            form.USAGE,
            run,
            lane=_read_lane,
            service_action=form.SERVICE_ACTION,
        )
        for name, form, run in (
            ("READ POSITION, short form", ReadPositionShort, stream_motion.read_position_short),
            (
                "READ POSITION, vendor-specific short form",
                ReadPositionShortVendor,
                stream_motion.read_position_short,
            ),
            ("READ POSITION, long form", ReadPositionLong, stream_motion.read_position_long),
            (
                "READ POSITION, extended form",
                ReadPositionExtended,
                stream_motion.read_position_extended,
            ),
        )
    ),
    Row("READ BLOCK LIMITS", ReadBlockLimits.USAGE, read_block_limits),
    Row("REPORT DENSITY SUPPORT", ReportDensitySupport.USAGE, report_density_support),
    Row("LOAD UNLOAD", LoadUnload.usage_without("hold"), load_unload, lane=Lane.QUEUED),
    Row(
        "PREVENT ALLOW MEDIUM REMOVAL",
        PreventAllowMediumRemoval.USAGE,
        prevent_allow_medium_removal,
    ),
)


class StreamUnit(Unit):
    """A tape drive and, while it is loaded, the cartridge in it.

    `lock` is held by whatever moves or reads the medium. An unloaded cartridge is let go of, so
    that another drive or a person can have it; LOAD takes it up again from its directory.
    """

    TABLE = merge_tables(PRIMARY_TABLE, STREAM_TABLE, THIRD_PARTY_COPY_TABLE)
    kind = "tape"
    ordered = True
    device_type = DeviceType.TAPE
    product = "TAPE"
    version_descriptors = (*Unit.version_descriptors, VersionDescriptor.SSC_4)

    def __init__(self, name: str, cartridge: Cartridge | None, *, target: str = "") -> None:
        super().__init__(name, target=target)
        self.lock = Lock()
        self.modes = StreamModes()
        self.medium = Medium(cartridge) if cartridge else None
        self.preventing: set[Nexus] = set()
        self._directory: Path | None = cartridge.directory if cartridge else None
        self._loading = False

    # What the unit says of itself

    def standard_inquiry(self) -> StandardInquiry:
        """Return the standard INQUIRY data: the medium can be removed."""
        inquiry = super().standard_inquiry()
        inquiry.removable = True
        return inquiry

    def mode_medium(self) -> tuple[int, int]:
        """Return MEDIUM TYPE (none is told apart) and DEVICE-SPECIFIC PARAMETER."""
        medium = self.medium
        protected = self.modes.software_write_protect or (
            medium is not None and medium.cartridge.write_protected
        )
        return 0, self.modes.device_specific(protected)

    def mode_block_descriptor(self, *, long_lba: bool) -> bytes:
        """Return the block descriptor; tapes have only the short one."""
        return self.modes.block_descriptor()

    def mode_pages(self) -> Sequence[ModePage]:
        """Return the mode pages."""
        medium = self.medium
        return self.modes.pages(medium.number if medium else 0)

    def select_mode_medium(self, medium_type: int, device_specific: int) -> None:
        """Set the buffered mode."""
        self.modes.select_device_specific(device_specific)

    def select_block_descriptor(self, descriptor: bytes, offset: int) -> None:
        """Set the block length."""
        self.modes.select_block_descriptor(descriptor, offset)

    def select_mode_page(self, page: bytes) -> None:
        """Set what a page can change."""
        self.modes.select_page(page)

    # The medium

    def require_ready(self) -> None:
        """Raise NOT READY while no medium is loaded; does not wait for a command under way."""
        self.require_medium()

    def require_medium(self) -> Medium:
        """Return the loaded medium or raise NOT READY."""
        medium = self.medium
        if medium is None:
            loading = self._loading
            asc = (
                Asc.LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY
                if loading
                else Asc.MEDIUM_NOT_PRESENT
            )
            raise CheckCondition(Sense(SenseKey.NOT_READY, asc))
        return medium

    def require_writable(self, medium: Medium) -> None:
        """Raise DATA PROTECT if the cartridge or the drive is write-protected."""
        if medium.cartridge.write_protected or self.modes.software_write_protect:
            raise CheckCondition(Sense(SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED))

    def load(self, nexus: Nexus | None = None) -> None:
        """Take up the cartridge, or rewind a loaded one; all nexuses but the given one are told.

        Raises NOT READY 3A/00 in a drive that never had one, MEDIUM ERROR 53/00 if it cannot be
        opened.
        """
        with self.lock:
            if self.medium:
                self._sync(self.medium)
                self.medium.block = 0
                return
            if self._directory is None:
                self.require_medium()
                return
            self._loading = True
            try:
                self.medium = Medium(open_cartridge(self._directory))
            except CartridgeError as error:
                log.error("%s: %s", self.name, error)
                raise medium_error(Asc.MEDIA_LOAD_OR_EJECT_FAILED) from error
            finally:
                self._loading = False
        self.raise_attention(Asc.NOT_READY_TO_READY_CHANGE, but=nexus)

    def unload(self) -> None:
        """Put everything on stable storage and let go of the cartridge.

        Raises 5/53/02 while a nexus prevents it. If stable storage fails the cartridge is let go
        of nevertheless, with MEDIUM ERROR: what lasted will be there when it is loaded again.
        """
        with self.lock:
            if self.medium is None:
                return
            if self.preventing:
                raise CheckCondition(Sense(SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_REMOVAL_PREVENTED))
            medium, self.medium = self.medium, None
            try:
                medium.cartridge.close()
            except WriteFailed as error:
                raise medium_error(Asc.WRITE_ERROR) from error

    def programmable_early_warning(self, partition: Partition) -> int:
        """Return the native bytes in use from which on programmable early warning is given."""
        return max(0, partition.early_warning - self.modes.early_warning_size * 1_000_000)

    def _sync(self, medium: Medium) -> None:
        try:
            medium.cartridge.sync()
        except WriteFailed as error:
            raise medium_error(Asc.WRITE_ERROR) from error

    # What the transport tells

    def detach(self, nexus: Nexus) -> None:
        """A nexus is lost, and with it its wish to keep the medium in the drive."""
        super().detach(nexus)
        self.preventing.discard(nexus)

    def reset(self) -> None:
        """LOGICAL UNIT RESET: settings go back and the medium may be removed.

        The position stays: initiators are told to find out where they are, and one that does not
        listen shall not overwrite the tape from its beginning.
        """
        with self.lock:
            self.modes = StreamModes()
            self.preventing.clear()
        super().reset()

    def close(self) -> None:
        """Put everything acknowledged on stable storage and let go of the cartridge."""
        with self.lock:
            medium, self.medium = self.medium, None
            if medium:
                try:
                    medium.cartridge.close()
                except WriteFailed:
                    log.exception("%s: the last sync failed", self.name)
