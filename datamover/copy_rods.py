"""The RODs of one copy: those that its list populates, and those that tokens stand for."""

from collections.abc import Sequence
from contextlib import ExitStack

from serverfree.datamover.errors import CopyAborted, UnitUnreachable, in_descriptor
from serverfree.datamover.rod_tokens import RodTokens
from serverfree.datamover.rods import Medium, Rod, RodDevice, choose, zeros
from serverfree.scsi.copy_cscd import CSCD_LENGTH, ROD_FROM_TOKEN, BlockParameters, RodCscd
from serverfree.scsi.copy_list import THIS_UNIT, CopyList, ListIdUsage
from serverfree.scsi.copy_segments import PopulateRodRange, PopulateRodRanges
from serverfree.scsi.designator import Designator
from serverfree.scsi.errors import CheckCondition, illegal_request
from serverfree.scsi.inquiry import DeviceType
from serverfree.scsi.rod_token import TOKEN_LENGTH, ZERO_TOKEN, Range, RodType, check_ranges
from serverfree.scsi.sense import Asc, FieldPointer

_POPULATES = (PopulateRodRanges, PopulateRodRange)
_MOST_BLOCKS = 1 << 63


class CopyRods:
    """The RODs that one parameter list names, by CSCD DESCRIPTOR ID (5.17.7.5).

    Populated ones are let go of by `close`, unless a token was made of them.
    """

    def __init__(
        self,
        medium: Medium | None = None,
        tokens: RodTokens | None = None,
        own_unit: Designator | None = None,
    ) -> None:
        self._medium = medium
        self._tokens = tokens
        self._own_unit = own_unit
        self._devices: dict[int, RodDevice] = {}
        self._growing: dict[int, Rod] = {}
        self._asking: dict[int, RodCscd] = {}
        self._used = ExitStack()
        self._doomed: list[bytes] = []

    def close(self, *, delete: bool = True) -> None:
        """The copy has ended, well or not; `delete` the tokens that are to go with it."""
        if self._tokens is not None:
            for token in self._doomed if delete else ():
                self._tokens.delete(token)
        for rod in self._growing.values():
            rod.release()
        self._growing.clear()
        self._used.close()

    def use_token(self, cscd_id: int, token: bytes, block_length: int, *, delete: bool) -> Rod:
        """Have a token stand for this id until `close`, and with `delete` not longer.

        `block_length` is that of zeros; so much more can be read behind the end, as zeros. Raises
        the ILLEGAL REQUEST of 5.17.6.5.2.3.
        """
        if token == ZERO_TOKEN:
            rod, blocks = zeros(block_length), _MOST_BLOCKS
        else:
            if self._tokens is None:
                raise illegal_request(Asc.INVALID_TOKEN_OPERATION_UNSUPPORTED_TOKEN_TYPE)
            rod = self._used.enter_context(self._tokens.used(token))
            if delete:
                self._doomed.append(token)
            # Behind its end are zeros, for a block of another unit that it fills only in part.
            blocks = -(-rod.size // rod.block_length) + block_length // rod.block_length
        self._devices[cscd_id] = RodDevice(rod, blocks)
        return rod

    def device(self, cscd_id: int) -> RodDevice:
        """Return a ROD to be read: nothing is added to it any more.

        Raises UnitUnreachable if nothing ever was.
        """
        if cscd_id not in self._devices:
            rod = self._growing.get(cscd_id)
            if rod is None:
                raise UnitUnreachable(f"ROD {cscd_id} is not populated")
            self._devices[cscd_id] = RodDevice(rod)
        return self._devices[cscd_id]

    def populate(self, cscd_id: int, ranges: Sequence[Range], field_at: int) -> None:
        """Add blocks of the unit that contains the copy manager. Raises CopyAborted.

        `field_at` is where the segment descriptor has them.
        """
        medium, asking = self._medium, self._asking.get(cscd_id)
        assert medium is not None, "the list was held to what there is"
        assert asking is not None
        if cscd_id in self._devices:
            raise CopyAborted(Asc.INVALID_FIELD_IN_PARAMETER_LIST, in_descriptor(6))
        rod = self._growing.get(cscd_id)
        try:
            check_ranges(ranges, medium.blocks, None)
            if rod is None:
                wanted = choose(RodType(asking.rod_type), medium)
                rod = Rod(wanted, medium.block_length, medium.capacity())
                self._growing[cscd_id] = rod
            rod.populate(medium, ranges)
        except CheckCondition as error:
            raise CopyAborted(Asc(error.sense.asc), in_descriptor(field_at)) from None

    def make_tokens(self) -> list[tuple[int, bytes]]:
        """Return tokens of the RODs that the list wants them of, each with its id."""
        made: list[tuple[int, bytes]] = []
        for cscd_id, asking in self._asking.items():
            rod = self._growing.get(cscd_id)
            if asking.return_token and rod is not None:
                assert self._tokens is not None
                assert self._own_unit is not None
                token = self._tokens.create(rod, asking.lifetime, asking.inactivity, self._own_unit)
                del self._growing[cscd_id]  # it is the token's now
                made.append((cscd_id, token))
        return made

    def take_list(self, copy_list: CopyList, block_length: int) -> None:
        """Hold a list's ROD descriptors to what there is, and find their tokens.

        Raises ILLEGAL REQUEST (6.4.5.9, 6.4.6.20, 6.4.6.21).
        """
        for cscd_id, cscd in enumerate(copy_list.cscds):
            if isinstance(cscd, RodCscd):
                at = copy_list.cscds_at + cscd_id * CSCD_LENGTH
                if cscd.rod_type:
                    self._expect(cscd_id, cscd, at, copy_list)
                else:
                    self._find(cscd_id, cscd, at, copy_list, block_length)
        self._check_segments(copy_list)

    def _expect(self, cscd_id: int, cscd: RodCscd, at: int, copy_list: CopyList) -> None:
        if cscd.producer == ROD_FROM_TOKEN:
            raise _wrong(at + 4)
        if cscd.producer != THIS_UNIT:
            raise illegal_request(
                Asc.INVALID_TOKEN_OPERATION_REMOTE_ROD_TOKEN_CREATION_NOT_SUPPORTED
            )
        types = () if self._medium is None else self._medium.rod_types
        if cscd.rod_type not in types:
            raise _wrong(at + 8)
        if cscd.delete_token:
            raise _wrong(at + 23, 0)
        if cscd.token_offset:
            raise _wrong(at + 24)
        if cscd.return_token:
            if copy_list.list_id_usage is ListIdUsage.NO_IDENTIFIER or self._tokens is None:
                raise _wrong(at + 22, 0)
            if cscd.lifetime > self._tokens.limits.maximum_lifetime:
                raise _wrong(at + 12)
            if cscd.inactivity > self._tokens.limits.maximum_inactivity:
                raise _wrong(at + 16)
        elif cscd.lifetime or cscd.inactivity:
            raise _wrong(at + (12 if cscd.lifetime else 16))
        self._asking[cscd_id] = cscd

    def _find(
        self, cscd_id: int, cscd: RodCscd, at: int, copy_list: CopyList, block_length: int
    ) -> None:
        if cscd.return_token:
            raise _wrong(at + 22, 0)
        if cscd.lifetime or cscd.inactivity:
            raise _wrong(at + (12 if cscd.lifetime else 16))
        if cscd.producer not in (ROD_FROM_TOKEN, THIS_UNIT):
            raise illegal_request(Asc.INVALID_TOKEN_OPERATION_REMOTE_TOKEN_USAGE_NOT_SUPPORTED)
        token = bytes(copy_list.inline[cscd.token_offset : cscd.token_offset + TOKEN_LENGTH])
        if len(token) < TOKEN_LENGTH:
            raise _wrong(at + 24)
        assert isinstance(cscd.parameters, BlockParameters)
        length = cscd.parameters.block_length or block_length
        rod = self.use_token(cscd_id, token, length, delete=cscd.delete_token)
        if rod.type is not RodType.BLOCK_DEVICE_ZERO:
            self._devices[cscd_id] = RodDevice(rod)  # a disk of what it represents, and no more

    def _check_segments(self, copy_list: CopyList) -> None:
        cscds = copy_list.cscds
        wanted: dict[int, list[Range]] = {}
        for segment in copy_list.segments:
            destination: int | None = getattr(segment, "destination", None)
            if isinstance(segment, _POPULATES):
                if segment.source != THIS_UNIT or destination not in self._asking:
                    raise illegal_request(Asc.INVALID_FIELD_IN_PARAMETER_LIST)
                if self._asking[destination].device_type != DeviceType.DISK:
                    raise illegal_request(Asc.INVALID_FIELD_IN_PARAMETER_LIST)
                wanted.setdefault(destination, []).extend(segment.ranges)
            elif (
                destination is not None
                and destination < len(cscds)
                and isinstance(cscds[destination], RodCscd)
            ):
                # 5.17.6.2.3.1 says so of points in time; the others are read only here.
                raise illegal_request(Asc.INVALID_FIELD_IN_PARAMETER_LIST)
        for ranges in wanted.values():
            check_ranges(ranges, _MOST_BLOCKS, None)  # none twice, 5.17.6.3


def _wrong(byte: int, bit: int | None = None) -> CheckCondition:
    return illegal_request(Asc.INVALID_FIELD_IN_PARAMETER_LIST, FieldPointer(byte, bit))
