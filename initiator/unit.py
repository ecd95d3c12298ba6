"""What every kind of logical unit can be asked, as typed verbs over any Device."""

from collections.abc import Sequence

from serverfree.scsi.cdb.layout import Cdb
from serverfree.scsi.cdb.primary import Inquiry, ModeSense6, ModeSense10, TestUnitReady
from serverfree.scsi.device import Buffer, Device, Result, execute
from serverfree.scsi.errors import CheckCondition, ScsiError
from serverfree.scsi.inquiry import DeviceType, StandardInquiry
from serverfree.scsi.mode import ALL_PAGES, ModeData
from serverfree.scsi.sense import SenseKey
from serverfree.scsi.vpd import HEADER_LENGTH, DeviceIdentification, SupportedPages

# After a login a unit may have several things to tell (29/00, then 28/00, then 3F/0E).
_MAX_ATTENTIONS = 8
_VPD_LENGTH = 1024
_INQUIRY_LENGTH = 96


def is_attention(error: ScsiError) -> bool:
    """Tell whether the unit did not run the command because it had something to tell first."""
    return isinstance(error, CheckCondition) and error.sense.key is SenseKey.UNIT_ATTENTION


class WrongDevice(ValueError):
    """The unit is not of the kind that was expected."""


class Unit:
    """Typed verbs over a Device.

    A unit attention is no failure of a verb: what the unit has to tell is heard before the first
    command, and a verb that meets one later is sent once more. Verbs raise ScsiError, with a note
    of the unit it comes from.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._settled = False

    def settle(self) -> None:
        """Hear the unit attentions that wait for this nexus; other conditions are left alone."""
        self._settled = True
        for _ in range(_MAX_ATTENTIONS):
            try:
                execute(self.device, TestUnitReady().pack())
            except CheckCondition as error:
                if is_attention(error):
                    continue
            return

    def run(
        self,
        cdb: Cdb,
        *,
        data_out: Buffer | Sequence[Buffer] = b"",
        data_in: memoryview | None = None,
    ) -> Result:
        """Run a command to its end; raises ScsiError unless it ended well."""
        if not self._settled:
            self.settle()
        packed = cdb.pack()
        try:
            return execute(self.device, packed, data_out=data_out, data_in=data_in)
        except ScsiError as error:
            if not is_attention(error) or not self._repeatable:
                error.add_note(str(self.device))
                raise
        return execute(self.device, packed, data_out=data_out, data_in=data_in)

    # Whether a command means the same after a unit attention as before it.
    _repeatable = True

    def fetch(self, cdb: Cdb, length: int) -> bytes:
        """Run a command that brings in up to `length` bytes and return those that came."""
        buffer = bytearray(length)
        result = self.run(cdb, data_in=memoryview(buffer))
        return bytes(buffer[: result.transferred])

    def ready(self) -> None:
        """TEST UNIT READY; raises what keeps the unit from being ready."""
        self.run(TestUnitReady())

    def inquiry(self) -> StandardInquiry:
        """What the unit says it is."""
        cdb = Inquiry(allocation_length=_INQUIRY_LENGTH)
        return StandardInquiry.unpack(self.fetch(cdb, _INQUIRY_LENGTH))

    def vpd(self, page: int) -> bytes:
        """Return a whole vital product data page, however long."""
        length = _VPD_LENGTH
        while True:
            cdb = Inquiry(evpd=True, page_code=page, allocation_length=length)
            data = self.fetch(cdb, length)
            whole = HEADER_LENGTH + int.from_bytes(data[2:HEADER_LENGTH], "big")
            if whole <= length:
                return data[:whole]
            length = whole

    def vpd_pages(self) -> tuple[int, ...]:
        """Return the codes of the pages that there are."""
        return SupportedPages.unpack(self.vpd(SupportedPages.PAGE_CODE)).codes

    def identification(self) -> DeviceIdentification:
        """The names of the unit (VPD page 83h)."""
        return DeviceIdentification.unpack(self.vpd(DeviceIdentification.PAGE_CODE))

    def mode_sense(self, page: int = ALL_PAGES) -> ModeData:
        """Return current mode parameters, by MODE SENSE(10), or (6) where that is unknown."""
        try:
            data = self.fetch(ModeSense10(page_code=page, allocation_length=4096), 4096)
        except CheckCondition as error:
            if error.sense.key is not SenseKey.ILLEGAL_REQUEST:
                raise
            data = self.fetch(ModeSense6(page_code=page, allocation_length=255), 255)
            return ModeData.unpack(data[: 1 + data[0]], ten=False)
        return ModeData.unpack(data[: 2 + int.from_bytes(data[:2], "big")], ten=True)

    def expect(self, device_type: DeviceType) -> StandardInquiry:
        """Return the INQUIRY data of a unit of this type; raises WrongDevice for another."""
        facts = self.inquiry()
        if facts.qualifier or facts.device_type != device_type:
            raise WrongDevice(f"{self.device} is {describe(facts)}, not a {_noun(device_type)}")
        return facts


def describe(facts: StandardInquiry) -> str:
    """Say in a few words what a unit is."""
    if facts.qualifier:
        return "no logical unit"
    return f"a {_noun(facts.device_type)} ({facts.vendor} {facts.product})"


def _noun(device_type: int) -> str:
    try:
        return DeviceType(device_type).name.lower().replace("_", " ")
    except ValueError:
        return f"device of type {device_type:02X}h"
