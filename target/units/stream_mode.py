"""The mode parameters of a tape drive (SSC-4 8.4): what can be set, and what is only shown."""

from collections.abc import Sequence
from dataclasses import replace

from serverfree.scsi.errors import invalid_field_in_parameter_list
from serverfree.scsi.mode import WRITE_PROTECTED, Control, ModePage
from serverfree.scsi.tape import (
    DataCompression,
    DeviceConfiguration,
    DeviceConfigurationExtension,
    DisconnectReconnect,
    TapeBlockDescriptor,
    TapeErrorRecovery,
)

DENSITY = 0xF0  # of the vendor's own: no tape on a reel has this format
_DEFAULT_DENSITY, _SAME_DENSITY = 0x00, 0x7F
_UNBUFFERED, _BUFFERED = 0, 1
_EXTENSION = DeviceConfigurationExtension()

# Pages that MODE SELECT changes nothing in.
_FIXED_PAGES = (TapeErrorRecovery(), DisconnectReconnect(), Control(), DataCompression())


class StreamModes:
    """The settings of a drive, shared by all I_T nexuses, and the lists they travel in."""

    def __init__(self) -> None:
        self.block_length = 0
        """Bytes of a block in fixed-block transfers; 0: only blocks of any length."""
        self.buffered = True
        """WRITE ends when the data is with the drive; else when it is on the medium."""
        self.software_write_protect = False
        self.early_warning_size = 0
        """PEWS: how far before early warning the programmable one comes, in 10**6 bytes."""

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
        return TapeBlockDescriptor(density=DENSITY, block_length=self.block_length).pack()

    def select_block_descriptor(self, raw: bytes, offset: int) -> None:
        """Set the block length. `offset` is where the descriptor lies in its list."""
        if len(raw) != TapeBlockDescriptor.size():
            raise invalid_field_in_parameter_list(offset - 1)
        descriptor = TapeBlockDescriptor.unpack(raw)
        if descriptor.density not in (_DEFAULT_DENSITY, _SAME_DENSITY, DENSITY):
            raise invalid_field_in_parameter_list(offset)
        if descriptor.blocks:
            raise invalid_field_in_parameter_list(offset + 1)
        self.block_length = descriptor.block_length

    def pages(self, active_partition: int) -> Sequence[ModePage]:
        """Every mode page."""
        configuration = DeviceConfiguration(
            active_partition=active_partition,
            object_identifiers=True,
            eod_generation=True,
        )
        return (
            *(
                ModePage(page.pack(), _changeable(page.pack()), page.pack())
                for page in _FIXED_PAGES
            ),
            ModePage(
                replace(configuration, software_write_protect=self.software_write_protect).pack(),
                DeviceConfiguration(software_write_protect=True).pack(),
                configuration.pack(),
            ),
            ModePage(
                DeviceConfigurationExtension(self.early_warning_size).pack(),
                DeviceConfigurationExtension(0xFFFF).pack(),
                _EXTENSION.pack(),
            ),
        )

    def select_page(self, raw: bytes) -> None:
        """Take a page that has been held to what is changeable."""
        if raw[:2] == _EXTENSION.pack()[:2]:
            self.early_warning_size = DeviceConfigurationExtension.unpack(raw).early_warning_size
        elif raw[0] & 0x3F == DeviceConfiguration.PAGE_CODE:
            page = DeviceConfiguration.unpack(raw)
            self.software_write_protect = page.software_write_protect


def _changeable(page: bytes) -> bytes:
    return page[:2] + bytes(len(page) - 2)
