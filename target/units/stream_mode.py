"""The mode parameters of a tape drive (SSC-4 8.4): what can be set, and what is only shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from serverfree.scsi.errors import invalid_field_in_parameter_list
from serverfree.scsi.mode import WRITE_PROTECTED, Control, ModePage
from serverfree.scsi.structure import Structure
from serverfree.scsi.tape import (
    DataCompression,
    DeviceConfiguration,
    DeviceConfigurationExtension,
    DisconnectReconnect,
    TapeBlockDescriptor,
    TapeErrorRecovery,
)
from serverfree.scsi.tape_mode import (
    PROTECTION_LENGTH,
    REST,
    ControlDataProtection,
    MediumConfiguration,
    MediumPartition,
    ProtectionMethod,
    TapeInformationalExceptions,
    TapePowerCondition,
)

if TYPE_CHECKING:
    from serverfree.target.units.command import Nexus
    from serverfree.target.units.stream_medium import Medium

_DEFAULT_DENSITY, _SAME_DENSITY = 0x00, 0x7F
_UNBUFFERED, _BUFFERED = 0, 1
_OVERWRITE, _APPEND_ONLY = 0, 1
_DEFAULT_ALGORITHM = 1  # SELECT DATA COMPRESSION ALGORITHM
_UNREGISTERED_ALGORITHM = 0xFF
_ONLY_TRAILING_MARKS = 2  # FILEMARK RESTRICTIONS of WORM media: the marks before EOD may go

# Pages that MODE SELECT changes nothing in.
_FIXED_PAGES = (
    TapeErrorRecovery(),
    DisconnectReconnect(),
    Control(),
    TapePowerCondition(),
    TapeInformationalExceptions(),
)
_PARTITION_CHANGES = MediumPartition(
    maximum_additional=0,
    additional=0xFF,
    fixed=True,
    select=True,
    initiator=True,
    unit_of_measure=3,
    on_format=False,
    recognition=0,
    units=0xF,
    sizes=[0xFFFF] * 4,
).pack()
_UNPROTECTED = ControlDataProtection()
_COMPRESSION = DataCompression(
    capable=True,
    decompression_enabled=True,
    compression_algorithm=_UNREGISTERED_ALGORITHM,
    decompression_algorithm=_UNREGISTERED_ALGORITHM,
)


class StreamModes:
    """The settings of a drive, shared by all I_T nexuses, and the lists they travel in.

    `density` is the code of the only density there is.
    """

    def __init__(self, density: int) -> None:
        self.density = density
        self.block_length = 0
        """Bytes of a block in fixed-block transfers; 0: only blocks of any length."""
        self.buffered = True
        """WRITE ends when the data is with the drive; else when it is on the medium."""
        self.software_write_protect = False
        self.early_warning_size = 0
        """PEWS: how far before early warning the programmable one comes, in 10**6 bytes."""
        self.append_only = False
        self.compression = False
        self.protections: Mapping[Nexus, ControlDataProtection] = {}
        """Nexuses whose blocks travel with protection information. Of each its own: who does not
        know of it must not get, or be asked for, four bytes more (GA32-0928-06 table 12)."""
        self.partitioning: MediumPartition | None = None
        """What the next FORMAT MEDIUM is to make, if anyone has said."""

    def device_specific(self, write_protected: bool) -> int:
        """DEVICE-SPECIFIC PARAMETER: WP, BUFFERED MODE; SPEED has only its default."""
        mode = _BUFFERED if self.buffered else _UNBUFFERED
        return (WRITE_PROTECTED if write_protected else 0) | mode << 4

    def select_device_specific(self, value: int) -> None:
        """Set the buffered mode."""
        mode = value >> 4 & 0x07
        if mode not in (_UNBUFFERED, _BUFFERED):
            raise invalid_field_in_parameter_list(2, 6)
        self.buffered = mode == _BUFFERED

    def block_descriptor(self) -> bytes:
        """The only block descriptor."""
        return TapeBlockDescriptor(density=self.density, block_length=self.block_length).pack()

    def select_block_descriptor(self, raw: bytes, offset: int) -> None:
        """Set the block length. `offset` is where the descriptor lies in its list."""
        if len(raw) != TapeBlockDescriptor.size():
            raise invalid_field_in_parameter_list(offset - 1)
        descriptor = TapeBlockDescriptor.unpack(raw)
        if descriptor.density not in (_DEFAULT_DENSITY, _SAME_DENSITY, self.density):
            raise invalid_field_in_parameter_list(offset)
        if descriptor.blocks:
            raise invalid_field_in_parameter_list(offset + 1)
        self.block_length = descriptor.block_length

    def protection(self, nexus: Nexus | None) -> ControlDataProtection:
        """Return what blocks of a nexus travel with."""
        return self.protections.get(nexus, _UNPROTECTED) if nexus else _UNPROTECTED

    def forget(self, nexus: Nexus) -> None:
        """Drop what a nexus had for itself."""
        self.protections = {each: it for each, it in self.protections.items() if each != nexus}

    def pages(self, medium: Medium | None, nexus: Nexus | None) -> Sequence[ModePage]:
        """Every mode page as a nexus has it, by page and subpage code."""
        configuration = DeviceConfiguration(
            active_partition=medium.number if medium else 0,
            object_identifiers=True,
            eod_generation=True,
        )
        worm = medium is not None and medium.cartridge.worm
        changing = (
            _page(
                self.protection(nexus),
                _UNPROTECTED,
                ControlDataProtection(0xFF, 0x3F, True, True, True).pack(),
            ),
            _page(
                replace(_COMPRESSION, enabled=self.compression),
                _COMPRESSION,
                DataCompression(enabled=True).pack(),
            ),
            _page(
                replace(
                    configuration,
                    software_write_protect=self.software_write_protect,
                    compression_algorithm=_DEFAULT_ALGORITHM if self.compression else 0,
                ),
                configuration,
                DeviceConfiguration(software_write_protect=True).pack(),
            ),
            _page(
                DeviceConfigurationExtension(
                    _APPEND_ONLY if self.append_only else _OVERWRITE, self.early_warning_size
                ),
                DeviceConfigurationExtension(),
                DeviceConfigurationExtension(0xF, 0xFFFF).pack(),
            ),
            replace(
                _page(self._partition_page(medium), MediumPartition(), _PARTITION_CHANGES),
                shortest=MediumPartition.SHORTEST,
            ),
            _page(
                MediumConfiguration(worm, 0, _ONLY_TRAILING_MARKS if worm else 0),
                MediumConfiguration(),
            ),
        )
        fixed = tuple(_page(page, page) for page in _FIXED_PAGES)
        return sorted(fixed + changing, key=lambda page: (page.code, page.subpage))

    def _partition_page(self, medium: Medium | None) -> MediumPartition:
        if self.partitioning is not None:
            return self.partitioning
        if medium is None:
            return MediumPartition()
        return MediumPartition.of(tuple(each.capacity for each in medium.cartridge.partitions))

    def select_page(self, raw: bytes, medium: Medium | None, nexus: Nexus) -> None:
        """Take a page that has been held to what is changeable."""
        code, subpage = raw[0] & 0x3F, raw[1] if raw[0] & 0x40 else 0
        match code, subpage:
            case 0x0A, 0xF0:
                self._select_protection(ControlDataProtection.unpack(raw), nexus)
            case 0x0F, _:
                self.compression = DataCompression.unpack(raw).enabled
            case 0x10, 0x01:
                extension = DeviceConfigurationExtension.unpack(raw)
                if extension.write_mode > _APPEND_ONLY:
                    raise invalid_field_in_parameter_list(5, 7)
                self.early_warning_size = extension.early_warning_size
                self.append_only = extension.write_mode == _APPEND_ONLY
                if medium:
                    medium.allowance = None
            case 0x10, _:
                page = DeviceConfiguration.unpack(raw)
                self.software_write_protect = page.software_write_protect
            case 0x11, _:
                self._select_partitions(MediumPartition.unpack(raw), medium)

    def _select_protection(self, page: ControlDataProtection, nexus: Nexus) -> None:
        match page.method:
            case ProtectionMethod.NONE:
                if page.writes or page.reads or page.recovers:
                    raise invalid_field_in_parameter_list(6, 7)
                self.forget(nexus)
            case ProtectionMethod.REED_SOLOMON | ProtectionMethod.CRC32C:
                if page.information_length != PROTECTION_LENGTH:
                    raise invalid_field_in_parameter_list(5, 5)
                self.protections = {**self.protections, nexus: page}
            case _:
                raise invalid_field_in_parameter_list(4)

    def _select_partitions(self, page: MediumPartition, medium: Medium | None) -> None:
        if page == self._partition_page(medium):
            return
        try:
            if medium:
                page.capacities(medium.cartridge.usable)
        except ValueError:
            raise invalid_field_in_parameter_list(3) from None
        if page.select:  # sizes are not read with SDP, nor shown
            page.sizes = [REST] + [0] * (len(page.sizes) - 1)
        self.partitioning = page


def _page(current: Structure, default: Structure, changeable: bytes | None = None) -> ModePage:
    raw = current.pack()
    if changeable is None:
        header = 4 if raw[0] & 0x40 else 2
        changeable = raw[:header] + bytes(len(raw) - header)
    return ModePage(raw, changeable, default.pack())
