"""Mode parameters: headers, block descriptors, pages (SPC-4 7.5, SBC-3 6.4)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModePage:
    """A mode page as a unit keeps it: whole pages, header included, all of one length.

    A one in `changeable` (its header as in the others) is a bit that MODE SELECT may change.
    """

    current: bytes
    changeable: bytes
    default: bytes

    @property
    def code(self) -> int:
        """PAGE CODE."""
        return self.current[0] & 0x3F

    @property
    def subpage(self) -> int:
        """SUBPAGE CODE; 0 for the page_0 format."""
        return self.current[1] if self.current[0] & 0x40 else 0
