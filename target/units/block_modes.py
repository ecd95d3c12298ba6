"""The mode pages of a disk: one declaration, and the values that change (SBC-4 6.5, SPC-4 7.5)."""

from collections.abc import Iterator

from serverfree.scsi import mode
from serverfree.target.backstore.state import StateFile

SECTION = "mode pages"

_FORMAT_DEVICE = 0x03
_Key = tuple[int, int]  # page code, subpage code


def _page(code: int, length: int) -> bytes:
    """A page of page_0 format, all zeros."""
    return bytes((code, length - 2)).ljust(length, b"\0")


def _format_device(block_size: int) -> bytes:
    """Format device, 03h: obsolete, but hosts still ask for the bytes of a sector."""
    page = bytearray(_page(_FORMAT_DEVICE, 24))
    page[12:14] = block_size.to_bytes(2, "big")
    return bytes(page)


def _extension(length: int) -> bytes:
    """Control extension, 0Ah/01h (SPC-4 7.5.9): nothing of it is to be had."""
    return bytes((0x4A, 0x01, 0, length - 4)).ljust(length, b"\0")


def declared(block_size: int) -> tuple[tuple[bytes, bytes], ...]:
    """Every page in ascending order: its defaults, and the bits that MODE SELECT may change."""
    return (
        (mode.ReadWriteErrorRecovery().pack(), mode.ReadWriteErrorRecovery().pack()),
        (_page(0x02, 16), _page(0x02, 16)),  # disconnect-reconnect: no limits
        (_format_device(block_size), _format_device(0)),
        (_page(0x04, 24), _page(0x04, 24)),  # rigid disk geometry, obsolete: there is none
        (mode.Caching(write_cache_enabled=True).pack(), mode.Caching(True).pack()),
        (
            mode.Control(unrestricted_reordering=True).pack(),
            mode.Control(descriptor_sense=True, software_write_protect=True).pack(),
        ),
        (_extension(32), _extension(32)),
        (_page(0x1A, 40), _page(0x1A, 40)),  # power condition: none
        (
            mode.InformationalExceptions(disabled=True).pack(),
            mode.InformationalExceptions().pack(),
        ),
    )


class BlockModes:
    """Current, default and saved values. With a state file pages can be saved."""

    def __init__(self, block_size: int, state: StateFile | None) -> None:
        self._state = state
        self._changeable: dict[_Key, bytes] = {}
        self._default: dict[_Key, bytes] = {}
        for default, changeable in declared(block_size):
            self._default[_key(default)] = default
            self._changeable[_key(default)] = changeable
        self._saved: dict[_Key, bytes] = {}
        for text in (state.get(SECTION) if state is not None else None) or ():
            page = bytes.fromhex(text)
            # A page of another length was saved by another version: the default is safer.
            if len(self._default.get(_key(page), b"")) == len(page):
                self._saved[_key(page)] = page
        self._current = self._default | self._saved
        self.set_block_size(block_size)

    def set_block_size(self, block_size: int) -> None:
        """The medium is formatted with blocks of so many bytes, whatever was saved of it."""
        page = _format_device(block_size)
        for pages in (self._default, self._current, self._saved):
            if (_FORMAT_DEVICE, 0) in pages:
                pages[_FORMAT_DEVICE, 0] = page

    @property
    def can_save(self) -> bool:
        """Whether pages can be saved (PS)."""
        return self._state is not None

    def pages(self) -> Iterator[mode.ModePage]:
        """Every page in ascending order."""
        for key, default in self._default.items():
            yield mode.ModePage(
                self._current[key],
                self._changeable[key],
                default,
                saved=self._saved.get(key, default) if self.can_save else None,
            )

    def select(self, page: bytes) -> None:
        """Take a page that has been checked."""
        page = bytes((page[0] & 0x7F,)) + page[1:]
        self._current[_key(page)] = page

    def save(self) -> None:
        """Put the current values of all pages on stable storage (SP)."""
        assert self._state is not None
        self._state.put(SECTION, [page.hex() for page in self._current.values()])
        self._saved = dict(self._current)

    def reset(self) -> None:
        """Go back to the saved values, or the defaults (SPC-4 6.13.5)."""
        self._current = self._default | self._saved

    @property
    def caching(self) -> mode.Caching:
        """Page 08h as it is."""
        return mode.Caching.unpack(self._current[mode.Caching.PAGE_CODE, 0])

    @property
    def control(self) -> mode.Control:
        """Page 0Ah as it is."""
        return mode.Control.unpack(self._current[mode.Control.PAGE_CODE, 0])


def _key(page: bytes) -> _Key:
    return page[0] & 0x3F, page[1] if page[0] & 0x40 else 0
