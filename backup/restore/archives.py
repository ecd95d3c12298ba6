"""The archives that a restore reads: one, or a chain of them, as if they were one behind another.

An offset here is that of an archive plus where the archive begins in that long line.
"""

from collections.abc import Iterable, Sequence

from serverfree.backup.cartridge import WrongCartridge, check_cartridge
from serverfree.backup.catalog.facts import Backup, State
from serverfree.backup.pieces import ToDisk
from serverfree.backup.restore.archive_bytes import TapeBytes
from serverfree.backup.restore.wanted import RestoreError
from serverfree.backup.site import Site

_APART = 1 << 56  # bytes: no archive is longer
SIZE = 1 << 63


class Archives:
    """The archives of some backups, which lie on one cartridge."""

    def __init__(self, site: Site, backups: Sequence[Backup]) -> None:
        self._site = site
        self._backups = tuple(backups)
        self._number = {backup.uuid: number for number, backup in enumerate(backups)}
        self._readers: dict[int, TapeBytes] = {}

    def check(self) -> None:
        """Hold the cartridge in the drive against the catalog, before anything is moved.

        Raises WrongCartridge, RestoreError, ScsiError.
        """
        for backup in self._backups:
            if backup.state is not State.DONE:
                raise RestoreError(f"backup {backup.id} is {backup.state.value}")
            if not backup.facts.tape_block:
                raise RestoreError(f"the catalog does not know the tape blocks of {backup.id}")
        self._site.tape.ready()
        for backup in self._backups:
            try:
                check_cartridge(self._site.tape, backup)
            except WrongCartridge as error:
                raise WrongCartridge(f"{error}; nothing was restored") from error

    def offset(self, backup: Backup, archive_offset: int) -> int:
        """Return the offset here of a byte of a backup's archive."""
        return self._number[backup.uuid] * _APART + archive_offset

    def split(self, offset: int) -> tuple[Backup, int]:
        """Return what `offset` made one of."""
        number, archive_offset = divmod(offset, _APART)
        return self._backups[number], archive_offset

    def sorted_out(self, wanted: Iterable[ToDisk]) -> list[tuple[Backup, list[ToDisk]]]:
        """Return pieces by the archive they lie in, each in the order of the tape."""
        found: dict[int, list[ToDisk]] = {}
        for piece in sorted(wanted, key=lambda piece: piece.archive_offset):
            number, at = divmod(piece.archive_offset, _APART)
            found.setdefault(number, []).append(ToDisk(at, piece.length, piece.offset))
        return [(self._backups[number], pieces) for number, pieces in found.items()]

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes of an archive here (see `archive_bytes.Source`)."""
        number, at = divmod(offset, _APART)
        reader = self._readers.get(number)
        if reader is None:
            self.moved_away()
            facts = self._backups[number].facts
            reader = TapeBytes(
                self._site.tape, facts.partition, facts.first_block, facts.tape_block
            )
            self._readers[number] = reader
        elif len(self._readers) > 1:
            reader.moved_away()
        return reader.read(at, length)

    def moved_away(self) -> None:
        """Be told that the tape may stand elsewhere, or is another session's now."""
        self._readers.clear()
