"""POPULATE TOKEN and WRITE USING TOKEN: copies whose source is named by a token.

SBC-4 4.28. Writing is an EXTENDED COPY like any other, from a ROD to the unit that contains the
copy manager; here it is put together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from serverfree.datamover.copy_rods import CopyRods
from serverfree.datamover.rod_tokens import RodTokens
from serverfree.datamover.rods import Medium, Rod, choose
from serverfree.scsi.capacity import Capacity16
from serverfree.scsi.cdb.block import WriteSame16
from serverfree.scsi.copy_cscd import ROD_FROM_TOKEN, RodCscd
from serverfree.scsi.copy_list import THIS_UNIT, CopyList
from serverfree.scsi.copy_page import RodFeatures
from serverfree.scsi.copy_segments import BlockRangeToBlockRange, Segment
from serverfree.scsi.designator import Designator
from serverfree.scsi.errors import CheckCondition, invalid_field_in_parameter_list
from serverfree.scsi.rod_token import PopulateList, Range, RodType, WriteList, check_ranges
from serverfree.scsi.sense import Asc, Sense, SenseKey

MOST_RANGES = 1024
_POINTS_IN_TIME = (
    RodType.POINT_IN_TIME,
    RodType.CHANGE_VULNERABLE,
    RodType.PERSISTENT,
    RodType.ANY_POINT_IN_TIME,
)
_ZEROED_AT_ONCE = 64 << 20
_ZERO_BLOCKS = 512  # bytes of a block of zeros where nobody says how long


class TokenRanOut(CheckCondition):
    """A token represents less than was to be written."""

    def __init__(self, written: int) -> None:
        key = SenseKey.COPY_ABORTED if written else SenseKey.ILLEGAL_REQUEST
        super().__init__(Sense(key, Asc.COPY_TARGET_DEVICE_DATA_UNDERRUN, information=written))


@dataclass(frozen=True, slots=True)
class Writing:
    """A WRITE USING TOKEN as a copy: the list, the blocks it writes, those the token has not.

    Zeros need no copy: then the list is empty, and `zeros` has the ranges.
    """

    copy_list: CopyList
    blocks: int
    missing: int = 0
    zeros: Sequence[Range] = ()


@dataclass(frozen=True, slots=True)
class Offload:
    """What a copy manager does with tokens. Without a `medium` it makes none."""

    own_unit: Designator
    tokens: RodTokens
    medium: Medium | None = None

    @property
    def features(self) -> RodFeatures:
        """What VPD page 8Fh says of it."""
        limits = self.tokens.limits
        made = set() if self.medium is None else set(self.medium.rod_types)
        usual = set(_POINTS_IN_TIME) | {RodType.ACCESS_UPON_REFERENCE}
        types: dict[int, tuple[bool, bool, bool]] = {
            kind: (kind in made, kind != RodType.ANY_POINT_IN_TIME, kind in made)
            for kind in usual
            if kind in made or kind != RodType.ANY_POINT_IN_TIME
        }
        types[RodType.FROM_TOKEN] = True, False, False
        types[RodType.BLOCK_DEVICE_ZERO] = False, True, False
        return RodFeatures(
            MOST_RANGES if self.medium is not None else 0,
            limits.default_inactivity,
            limits.minimum_lifetime,
            limits.maximum_lifetime,
            limits.maximum_inactivity,
            types,
        )

    def rods_of(self, copy_list: CopyList) -> CopyRods:
        """Return the RODs that a list names. Raises ILLEGAL REQUEST."""
        rods = CopyRods(self.medium, self.tokens, self.own_unit)
        try:
            length = _ZERO_BLOCKS if self.medium is None else self.medium.block_length
            rods.take_list(copy_list, length)
        except BaseException:
            rods.close(delete=False)
            raise
        return rods

    # ------------------------------------------------------------------ POPULATE TOKEN

    def check(self, wanted: PopulateList, medium: Medium) -> None:
        """Hold a parameter list to what there is. Raises ILLEGAL REQUEST (SBC-4 5.12.2)."""
        if wanted.inactivity > self.tokens.limits.maximum_inactivity:
            raise invalid_field_in_parameter_list(PopulateList.INACTIVITY_AT)
        if wanted.rod_type is not None and (
            wanted.rod_type not in _POINTS_IN_TIME or wanted.rod_type not in medium.rod_types
        ):
            raise invalid_field_in_parameter_list(PopulateList.TYPE_AT)
        check_ranges(wanted.ranges, medium.blocks, PopulateList.RANGES_AT)

    def populate(self, wanted: PopulateList, medium: Medium) -> tuple[bytes, int]:
        """Make a token; return it and the bytes it represents. Raises ILLEGAL REQUEST."""
        self.tokens.require_room()
        # Left the choice, take what costs nothing: hosts that copy by tokens make one for every few
        # megabytes, and read as usual where one of them became invalid.
        asked = RodType.CHANGE_VULNERABLE if wanted.rod_type is None else RodType(wanted.rod_type)
        rod = Rod(choose(asked, medium), medium.block_length, medium.capacity())
        try:
            rod.populate(medium, wanted.ranges)
            limits = self.tokens.limits
            inactivity = wanted.inactivity or limits.default_inactivity
            token = self.tokens.create(rod, limits.maximum_lifetime, inactivity, self.own_unit)
        except BaseException:
            rod.release()
            raise
        return token, rod.size

    # ------------------------------------------------------------------ WRITE USING TOKEN

    def write(self, wanted: WriteList, medium: Medium) -> tuple[Writing, CopyRods]:
        """Return the copy that writes, and its RODs. Raises ILLEGAL REQUEST (SBC-4 5.59.2)."""
        check_ranges(wanted.ranges, medium.blocks, WriteList.RANGES_AT)
        rods = CopyRods(medium, self.tokens, self.own_unit)
        try:
            length = medium.block_length
            rod = rods.use_token(0, wanted.token, length, delete=wanted.delete_token)
            return _writing(wanted, rod, length), rods
        except BaseException:
            rods.close(delete=False)
            raise


def _writing(wanted: WriteList, rod: Rod, length: int) -> Writing:
    asked = sum(blocks for _, blocks in wanted.ranges)
    if rod.type is RodType.BLOCK_DEVICE_ZERO:
        return Writing(CopyList(), asked, zeros=wanted.ranges)
    at = wanted.offset * length
    if at >= rod.size:
        raise invalid_field_in_parameter_list(WriteList.OFFSET_AT)
    # The last block may be filled up with zeros.
    most = -(-(rod.size - at) // length)
    segments: list[Segment] = []
    left = min(asked, most)
    for lba, blocks in wanted.ranges:
        taken = min(blocks, left)
        if taken:
            from_lba, offset = divmod(at, rod.block_length)
            size = taken * length
            segments.append(BlockRangeToBlockRange(0, THIS_UNIT, size, from_lba, lba, offset, 0))
            at += size
            left -= taken
    written = min(asked, most)
    cscd = RodCscd(ROD_FROM_TOKEN, RodType.FROM_TOKEN)
    return Writing(CopyList([cscd], segments), written, asked - written)


def zeroing(ranges: Sequence[Range], medium: Medium) -> Iterator[tuple[bytes, int]]:
    """Yield the commands that make these blocks zeros, each with how many bytes it is for."""
    length = medium.block_length
    thin = Capacity16.unpack(medium.capacity()).thin
    step = _ZEROED_AT_ONCE // length
    for lba, blocks in ranges:
        for at in range(0, blocks, step):
            size = min(step, blocks - at)
            cdb = WriteSame16(unmap=thin, ndob=True, lba=lba + at, blocks=size)
            yield cdb.pack(), size * length
