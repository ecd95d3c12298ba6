"""A tape drive: a sequential-access logical unit over a cartridge (SSC-4)."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict
from pathlib import Path
from threading import Lock

from serverfree.scsi.cdb.attribute import (
    ReadAttributeList,
    ReadAttributeValues,
    ReadLogicalVolumeList,
    ReadPartitionList,
    ReadSupportedAttributes,
    WriteAttribute,
)
from serverfree.scsi.cdb.security import SecurityProtocolIn, SecurityProtocolOut
from serverfree.scsi.cdb.stream import (
    AllowOverwrite,
    Erase6,
    Erase16,
    FormatMedium,
    LoadUnload,
    Locate10,
    Locate16,
    PreventAllowMediumRemoval,
    Read6,
    Read16,
    ReadBlockLimits,
    ReadMediaSerialNumber,
    ReadPositionExtended,
    ReadPositionLong,
    ReadPositionShort,
    ReadPositionShortVendor,
    ReadReverse6,
    ReadReverse16,
    RecoverBufferedData,
    ReportDensitySupport,
    Rewind,
    SetCapacity,
    Space6,
    Space16,
    Verify6,
    Verify16,
    Write6,
    Write16,
    WriteFilemarks6,
    WriteFilemarks16,
)
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.inquiry import DeviceType, StandardInquiry, VersionDescriptor
from serverfree.scsi.log import LogParameter
from serverfree.scsi.mode import ModePage
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.scsi.tape_mode import ProtectionMethod
from serverfree.scsi.tape_vpd import (
    BLOCK_PROTECTION,
    BlockProtection,
    ManufacturerSerialNumber,
    SequentialCapabilities,
    SupportedAlerts,
    TapeAlert,
)
from serverfree.scsi.vpd import PER_NEXUS, ExtendedInquiry, ModePagePolicy
from serverfree.target.backstore.cartridge import Cartridge
from serverfree.target.backstore.cartridge_errors import DamagedRecord, WriteFailed
from serverfree.target.backstore.cartridge_memory import Life
from serverfree.target.backstore.cartridge_partition import Partition
from serverfree.target.backstore.state import StateFile
from serverfree.target.units import (
    stream_attributes,
    stream_encryption,
    stream_format,
    stream_load,
    stream_log,
    stream_motion,
    stream_read,
    stream_write,
)
from serverfree.target.units.access import Access
from serverfree.target.units.base import VENDOR, Row, Table, Unit, merge_tables, table_of
from serverfree.target.units.command import Command, Lane, Nexus
from serverfree.target.units.data_buffer import BUFFER_TABLE, DataBuffer
from serverfree.target.units.diagnostics import DIAGNOSTIC_TABLE, SelfTests
from serverfree.target.units.identity import IDENTITY_TABLE, Clock
from serverfree.target.units.prevention import prevent_access, prevent_allow_medium_removal
from serverfree.target.units.primary import PRIMARY_TABLE
from serverfree.target.units.reservation_commands import RESERVATION_TABLE
from serverfree.target.units.stream_encryption import StreamEncryption
from serverfree.target.units.stream_medium import Medium, medium_error
from serverfree.target.units.stream_mode import StreamModes
from serverfree.target.units.stream_profile import OWN, Profile
from serverfree.target.units.third_party import THIRD_PARTY_COPY_TABLE

log = logging.getLogger(__name__)

_PROTECTION_POLICY = (0x0A, 0xF0, PER_NEXUS)


def _read_lane(unit: "StreamUnit", cdb: bytes) -> Lane:
    return Lane.QUEUED if unit.lock.locked() else Lane.INLINE


def _write_lane(unit: "StreamUnit", cdb: bytes) -> Lane:
    # An overwrite begins with a sync and a truncation; unbuffered writes end with a sync.
    medium = unit.medium
    quick = not unit.lock.locked() and unit.modes.buffered and medium and medium.at_eod
    return Lane.INLINE if quick else Lane.QUEUED


STREAM_TABLE: Table = table_of(
    Row("READ(6)", Read6.USAGE, stream_read.read, lane=_read_lane),
    Row("READ(16)", Read16.USAGE, stream_read.read, lane=Lane.QUEUED),
    Row("READ REVERSE(6)", ReadReverse6.USAGE, stream_read.read_reverse, lane=_read_lane),
    Row("READ REVERSE(16)", ReadReverse16.USAGE, stream_read.read_reverse, lane=Lane.QUEUED),
    Row(
        "RECOVER BUFFERED DATA",
        RecoverBufferedData.USAGE,
        stream_read.recover_buffered_data,
        lane=Lane.QUEUED,
    ),
    *(
        Row(
            name,
            form.USAGE,
            stream_read.verify,
            data_out=stream_read.verify_length,
            lane=Lane.QUEUED,
        )
        for name, form in (("VERIFY(6)", Verify6), ("VERIFY(16)", Verify16))
    ),
    Row(
        "WRITE(6)",
        Write6.USAGE,
        stream_write.write,
        data_out=stream_write.write_length,
        lane=_write_lane,
    ),
    Row(
        "WRITE(16)",
        Write16.USAGE,
        stream_write.write,
        data_out=stream_write.write_length,
        lane=Lane.QUEUED,
    ),
    *(
        Row(name, form.USAGE, run, lane=Lane.QUEUED)
        for name, form, run in (
            ("WRITE FILEMARKS(6)", WriteFilemarks6, stream_write.write_filemarks),
            ("WRITE FILEMARKS(16)", WriteFilemarks16, stream_write.write_filemarks),
            ("ERASE(6)", Erase6, stream_write.erase),
            ("ERASE(16)", Erase16, stream_write.erase),
            ("SPACE(6)", Space6, stream_motion.space),
            ("SPACE(16)", Space16, stream_motion.space),
            ("LOCATE(10)", Locate10, stream_motion.locate10),
            ("LOCATE(16)", Locate16, stream_motion.locate16),
            ("REWIND", Rewind, stream_motion.rewind),
            ("FORMAT MEDIUM", FormatMedium, stream_format.format_medium),
            ("SET CAPACITY", SetCapacity, stream_format.set_capacity),
        )
    ),
    Row("ALLOW OVERWRITE", AllowOverwrite.USAGE, stream_format.allow_overwrite, lane=_read_lane),
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
    Row(
        "READ BLOCK LIMITS",
        ReadBlockLimits.USAGE,
        stream_format.read_block_limits,
        access=Access.ALWAYS,
    ),
    Row("REPORT DENSITY SUPPORT", ReportDensitySupport.USAGE, stream_format.report_density_support),
    Row(
        "READ MEDIA SERIAL NUMBER",
        ReadMediaSerialNumber.USAGE,
        stream_format.read_media_serial_number,
        lane=_read_lane,
        service_action=ReadMediaSerialNumber.SERVICE_ACTION,
        access=Access.ALWAYS,
    ),
    *(
        Row(
            name,
            form.USAGE,
            stream_attributes.read_attribute,
            lane=_read_lane,
            access=Access.READS,
            service_action=form.SERVICE_ACTION,
        )
        for name, form in (
            ("READ ATTRIBUTE, values", ReadAttributeValues),
            ("READ ATTRIBUTE, list", ReadAttributeList),
            ("READ ATTRIBUTE, logical volumes", ReadLogicalVolumeList),
            ("READ ATTRIBUTE, partitions", ReadPartitionList),
            ("READ ATTRIBUTE, supported", ReadSupportedAttributes),
        )
    ),
    Row(
        "WRITE ATTRIBUTE",
        WriteAttribute.USAGE,
        stream_attributes.write_attribute,
        data_out=stream_attributes.write_attribute_length,
        lane=Lane.QUEUED,
    ),
    Row(
        "SECURITY PROTOCOL IN",
        SecurityProtocolIn.USAGE,
        stream_encryption.security_protocol_in,
        lane=Lane.QUEUED,
        access=Access.READS,
    ),
    Row(
        "SECURITY PROTOCOL OUT",
        SecurityProtocolOut.USAGE,
        stream_encryption.security_protocol_out,
        data_out=stream_encryption.security_protocol_out_length,
        lane=Lane.QUEUED,
    ),
    Row("LOAD UNLOAD", LoadUnload.USAGE, stream_load.load_unload, lane=Lane.QUEUED),
    Row(
        "PREVENT ALLOW MEDIUM REMOVAL",
        PreventAllowMediumRemoval.USAGE,
        prevent_allow_medium_removal,
        access=prevent_access,
    ),
)
# Where a row says nothing of access it conflicts with every reservation of another nexus, READ and
# READ POSITION too: on a tape they disturb who holds it. So do drives (Oracle T10000 interface
# reference, table 2-2: only READ BLOCK LIMITS, READ MEDIA SERIAL NUMBER, PREVENT ALLOW MEDIUM
# REMOVAL with PREVENT=0 and SPC commands are allowed).


class StreamUnit(Unit):
    """A tape drive and, while it is loaded, the cartridge in it.

    `lock` is held by whatever moves or reads the medium. An unloaded cartridge is let go of, so
    that another drive or a person can have it; LOAD takes it up again from its directory.
    """

    TABLE = merge_tables(
        PRIMARY_TABLE,
        RESERVATION_TABLE,
        STREAM_TABLE,
        stream_log.STREAM_LOG_TABLE,
        DIAGNOSTIC_TABLE,
        BUFFER_TABLE,
        IDENTITY_TABLE,
        THIRD_PARTY_COPY_TABLE,
    )
    kind = "tape"
    ordered = True
    device_type = DeviceType.TAPE
    version_descriptors = (*Unit.version_descriptors, VersionDescriptor.SSC_4)

    def __init__(
        self,
        name: str,
        cartridge: Cartridge | None,
        *,
        target: str = "",
        state: StateFile | None = None,
        profile: Profile = OWN,
    ) -> None:
        super().__init__(name, target=target, state=state)
        self.profile = profile
        self.lock = Lock()
        self.modes = StreamModes(profile.density)
        self.encryption = StreamEncryption()
        self.data_buffer = DataBuffer()
        self.clock = Clock()
        self.self_tests = SelfTests()
        self.medium = Medium(cartridge) if cartridge else None
        self.preventing: set[Nexus] = set()
        self.alerts: set[int] = set()
        """The TapeAlert flags that are up."""
        self.loads = self.hard_read_errors = self.hard_write_errors = 0
        self.started = time.monotonic()
        if self.medium:
            self.note_load(self.medium)
        self.directory: Path | None = cartridge.directory if cartridge else None
        """Where the drive takes its cartridge from."""
        self.held: Medium | None = None
        """A cartridge in the drive that is not mounted: its memory can be reached, not its tape."""
        self.loading = False

    # What the unit says of itself

    def standard_inquiry(self) -> StandardInquiry:
        """Return the standard INQUIRY data, in the profile's names; the medium can be removed."""
        inquiry = super().standard_inquiry()
        inquiry.vendor = self.profile.vendor
        inquiry.product = self.profile.product
        inquiry.revision = self.profile.revision
        inquiry.removable = True
        inquiry.protect = True
        return inquiry

    def vpd_pages(self) -> dict[int, bytes]:
        """Return the pages of every unit, and those of SSC-4 8.5 that say what the drive can."""
        pages = super().vpd_pages()
        for page in (
            ExtendedInquiry(protection_types=BLOCK_PROTECTION, volatile_cache=True),
            SequentialCapabilities(worm=True),
            ManufacturerSerialNumber(self.serial),
            SupportedAlerts(tuple(TapeAlert)),
            BlockProtection((ProtectionMethod.REED_SOLOMON, ProtectionMethod.CRC32C)),
            ModePagePolicy((_PROTECTION_POLICY, *ModePagePolicy().policies)),
        ):
            pages[page.PAGE_CODE] = page.pack()
        return pages

    def mode_medium(self) -> tuple[int, int]:
        """Return MEDIUM TYPE and DEVICE-SPECIFIC PARAMETER."""
        medium = self.medium
        protected = self.modes.software_write_protect or (
            medium is not None and medium.cartridge.write_protected
        )
        return self.medium_type(medium), self.modes.device_specific(protected)

    def medium_type(self, medium: Medium | None) -> int:
        """Return the profile's code for a cartridge, 0 for none."""
        if medium is None:
            return 0
        worm = medium.cartridge.worm
        return self.profile.worm_medium if worm else self.profile.data_medium

    def mode_block_descriptor(self, *, long_lba: bool) -> bytes:
        """Return the block descriptor; tapes have only the short one."""
        return self.modes.block_descriptor()

    def mode_pages(self, nexus: Nexus | None) -> Sequence[ModePage]:
        """Return the mode pages."""
        return self.modes.pages(self.medium, nexus)

    @contextmanager
    def selecting_modes(self) -> Iterator[None]:
        """All that a list changes, or nothing."""
        modes, self.modes = self.modes, copy(self.modes)
        try:
            yield
        except BaseException:
            self.modes = modes
            raise

    def select_mode_medium(self, medium_type: int, device_specific: int) -> None:
        """Set the buffered mode."""
        self.modes.select_device_specific(device_specific)

    def select_block_descriptor(self, descriptor: bytes, offset: int, nexus: Nexus) -> None:
        """Set the block length."""
        self.modes.select_block_descriptor(descriptor, offset)

    def select_mode_page(self, page: bytes, nexus: Nexus) -> None:
        """Set what a page can change."""
        self.modes.select_page(page, self.medium, nexus)

    # The medium

    def require_ready(self) -> None:
        """Raise NOT READY while no medium is loaded; does not wait for a command under way."""
        self.require_medium()

    def require_medium(self) -> Medium:
        """Return the loaded medium or raise NOT READY."""
        medium = self.medium
        if medium is None:
            asc = Asc.MEDIUM_NOT_PRESENT
            if self.loading:
                asc = Asc.LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY
            elif self.held:
                asc = Asc.MEDIUM_NOT_PRESENT_MEDIUM_AUXILIARY_MEMORY_ACCESSIBLE
            raise CheckCondition(Sense(SenseKey.NOT_READY, asc))
        return medium

    def require_memory(self) -> Medium:
        """Return the medium whose memory can be reached, mounted or held, or raise NOT READY."""
        return self.held or self.require_medium()

    def require_writable(self, medium: Medium) -> None:
        """Raise DATA PROTECT if nothing may be written here."""
        self.require_unprotected(medium)
        # A command that is let through uses up what ALLOW OVERWRITE allowed.
        allowance, medium.allowance = medium.allowance, None
        if not (medium.cartridge.worm or self.modes.append_only) or medium.at_append_point:
            return
        if medium.cartridge.worm:
            self.alerts.add(TapeAlert.WORM_OVERWRITE_ATTEMPTED)
            raise _protected(Asc.WORM_MEDIUM_OVERWRITE_ATTEMPTED)
        if allowance is None or allowance.format:
            raise _protected(Asc.OPERATOR_SELECTED_WRITE_PROTECT)

    def require_formattable(self, medium: Medium) -> None:
        """Raise DATA PROTECT if the medium must not be emptied as a whole."""
        self.require_unprotected(medium)
        allowance, medium.allowance = medium.allowance, None
        if medium.cartridge.worm and any(each.eod for each in medium.cartridge.partitions):
            self.alerts.add(TapeAlert.WORM_OVERWRITE_ATTEMPTED)
            raise _protected(Asc.WORM_MEDIUM_OVERWRITE_ATTEMPTED)
        if self.modes.append_only and not (allowance and allowance.format):
            raise _protected(Asc.OPERATOR_SELECTED_WRITE_PROTECT)

    def require_unprotected(self, medium: Medium) -> None:
        """Raise DATA PROTECT if the cartridge or the drive is write-protected."""
        if medium.cartridge.write_protected or self.modes.software_write_protect:
            self.alerts.add(TapeAlert.WRITE_PROTECT)
            raise _protected(Asc.WRITE_PROTECTED)

    def programmable_early_warning(self, partition: Partition) -> int:
        """Return the native bytes in use from which on programmable early warning is given."""
        return max(0, partition.early_warning - self.modes.early_warning_size * 1_000_000)

    def sync(self, medium: Medium) -> None:
        """Put everything on stable storage. Raises MEDIUM ERROR."""
        try:
            medium.cartridge.sync()
        except WriteFailed as error:
            raise medium_error(Asc.WRITE_ERROR) from error

    def self_test(self, command: Command, extended: bool) -> None:
        """Put on stable storage what is not yet; an extended test also reads the whole medium.

        The heads stay where they are. Raises CheckCondition.
        """
        with self.lock:
            medium = self.require_medium()
            self.sync(medium)
            for partition in medium.cartridge.partitions if extended else ():
                for block in range(partition.eod):
                    if command.aborted:
                        return
                    try:
                        partition.read_entry(block, partition.entry(block))
                    except DamagedRecord as error:
                        self.count_read_error(medium)
                        raise medium_error(Asc.UNRECOVERED_READ_ERROR) from error

    # What the log pages tell

    def log_pages(self) -> dict[int, Sequence[LogParameter]]:
        """Return the parameters of every log page."""
        return stream_log.log_pages(self)

    def reset_logs(self) -> None:
        """Let the counters that can be reset begin anew."""
        stream_log.reset_logs(self)

    def count_read_error(self, medium: Medium) -> None:
        """A block could not be read."""
        medium.life.read_errors += 1
        self.hard_read_errors += 1
        self.alerts |= {TapeAlert.HARD_ERROR, TapeAlert.READ_FAILURE}

    def count_write_error(self, medium: Medium) -> None:
        """Something could not be written, or not be made to last."""
        medium.life.write_errors += 1
        self.hard_write_errors += 1
        self.alerts |= {TapeAlert.HARD_ERROR, TapeAlert.WRITE_FAILURE}

    def note_load(self, medium: Medium) -> None:
        self.loads += 1
        try:
            medium.cartridge.memory.loaded(f"{VENDOR:8}{self.serial}")
        except OSError as error:
            log.warning("%s: the cartridge's memory: %s", self.name, error)
        medium.log_base = Life(**asdict(medium.life))

    # What the transport tells

    def detach(self, nexus: Nexus) -> None:
        """A nexus is lost, and with it its wish to keep the medium in the drive."""
        super().detach(nexus)
        self.preventing.discard(nexus)
        self.encryption.forget(nexus)
        self.modes.forget(nexus)

    def reset(self) -> None:
        """LOGICAL UNIT RESET: settings and TapeAlert flags go, and the medium may be removed.

        The position stays: initiators are told to find out where they are, and one that does not
        listen shall not overwrite the tape from its beginning.
        """
        with self.lock:
            self.modes = StreamModes(self.profile.density)
            self.encryption = StreamEncryption()
            self.preventing.clear()
            self.alerts.clear()
        super().reset()

    def close(self) -> None:
        """Put everything acknowledged on stable storage and let go of the cartridge."""
        with self.lock:
            try:
                stream_load.let_go(self)
            except CheckCondition:
                log.exception("%s: the last sync failed", self.name)


def _protected(asc: Asc) -> CheckCondition:
    return CheckCondition(Sense(SenseKey.DATA_PROTECT, asc))
