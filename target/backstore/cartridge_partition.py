"""One partition of a cartridge: logical objects in order, an end of data, and how they last.

Logical objects are numbered from 0, blocks and filemarks alike (SSC-4 4.2.6). Objects can be added
only at the end of data; `cut` moves that end back first where a tape is overwritten.
"""

import errno
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from serverfree.scsi.device import Buffer
from serverfree.target.backstore.cartridge_coding import decoded
from serverfree.target.backstore.cartridge_errors import (
    DamagedRecord,
    IndexDamaged,
    NoRoom,
    WriteFailed,
)
from serverfree.target.backstore.cartridge_index import BlockIndex, Entry, pack_entry
from serverfree.target.backstore.cartridge_log import (
    LOG_START,
    MAX_RECORD,
    NO_PREVIOUS,
    OVERHEAD,
    Coding,
    RecordHeader,
    RecordLog,
    RecordType,
    StoredBlock,
)
from serverfree.target.backstore.cartridge_state import Limits, PartitionState

_logger = logging.getLogger("serverfree.cartridge")

_BATCH = 1024  # filemarks written, or index entries rebuilt, at a time
_UNREADABLE = int(Coding.UNREADABLE)  # to join two members of an enumeration takes a microsecond
_OUT_OF_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Partition:
    """The objects of one partition. Used by one thread at a time.

    `publish` puts a partition's state on stable storage within the cartridge's superblock.
    """

    def __init__(
        self,
        log: RecordLog,
        index: BlockIndex,
        state: PartitionState,
        limits: Limits,
        publish: Callable[[PartitionState], None],
    ) -> None:
        self._log = log
        self._index = index
        self._publish = publish
        self._published = state
        self._now = state
        self._limits = limits
        self._failed: OSError | None = None
        self._ahead: tuple[int, Entry, StoredBlock] | None = None
        self._open_index()
        self._scan_tail()

    # Where things are

    @property
    def eod(self) -> int:
        """How many objects there are: the number of the position at end of data."""
        return self._now.eod

    @property
    def used(self) -> int:
        """Native bytes in use: every record with its header and trailer."""
        return self._now.offset - LOG_START

    @property
    def generation(self) -> int:
        """Grows by one with each `cut`."""
        return self._now.generation

    @property
    def capacity(self) -> int:
        """The native bytes that there is room for."""
        return self._limits.capacity

    @property
    def remaining(self) -> int:
        """Native bytes behind the end of data."""
        return max(0, self._limits.capacity - self.used)

    @property
    def early_warning(self) -> int:
        """The native bytes in use from which on early warning is given."""
        return self._limits.early_warning

    @property
    def unsynced(self) -> tuple[int, int]:
        """Objects at the end of data, and their native bytes, that a power failure may take."""
        return self._now.eod - self._published.eod, self._now.offset - self._published.offset

    @property
    def failed(self) -> bool:
        """Return whether a sync has failed: nothing can be added, nor is the last of it sure."""
        return self._failed is not None

    def used_at(self, block: int) -> int:
        """Native bytes before a position."""
        return self._offset(block) - LOG_START

    def has_room(self, block: int, length: int) -> bool:
        """Return whether an object of this length could begin at a position."""
        return self.used_at(block) + length + OVERHEAD <= self._limits.capacity

    def entry(self, block: int) -> Entry:
        """Return what lies at a position before the end of data."""
        ahead = self._ahead
        if ahead and ahead[0] == block:
            return ahead[1]
        try:
            return self._index.get(block)
        except IndexDamaged as damage:
            self._rebuild(damage)
            return self._index.get(block)

    def file_at(self, block: int) -> int:
        """Return how many filemarks lie before a position."""
        return self._now.file if block >= self._now.eod else self.entry(block).file

    def start_of_file(self, file: int) -> int | None:
        """Return the position right after the `file`-th filemark; None if there are fewer."""
        if file > self._now.file:
            return None
        try:
            return self._index.first_of_file(file)
        except IndexDamaged as damage:
            self._rebuild(damage)
            return self._index.first_of_file(file)

    def _offset(self, block: int) -> int:
        return self._now.offset if block >= self._now.eod else self.entry(block).offset

    # Reading

    def read(self, block: int) -> memoryview:
        """Return the whole block at a position before the end of data; a filemark has none.

        Raises DamagedRecord rather than return a single wrong bit, EncryptedBlock for one that
        only its key can open.
        """
        return decoded(self.read_entry(block, self.entry(block)))

    def read_entry(self, block: int, entry: Entry) -> StoredBlock:
        """Return a block as it is stored. Raises DamagedRecord."""
        ahead, self._ahead = self._ahead, None
        stored = ahead[2] if ahead and ahead[0] == block else self._stored(block, entry)
        if stored is None and not self._leads_to_header(block, entry):
            # Either the index is wrong or the header is: the log as a whole can tell.
            self._rebuild(IndexDamaged(f"entry {block} leads nowhere"))
            stored = self._stored(block, self._index.get(block))
        if stored is None:
            raise DamagedRecord(f"{self._log.path}: block {block} is damaged")
        if stored.coding & _UNREADABLE:
            raise DamagedRecord(f"{self._log.path}: block {block} was bad when it was imported")
        return stored

    def read_ahead(self, block: int) -> None:
        """Have the block at a position read and checked, if there is one, for who asks for it next.

        It is a copy of its own, kept until the next read or `cut`; the blocks that there are do
        not change but by these. What is wrong with it, the read that wants it will find.
        """
        if block >= self._now.eod:
            return
        try:
            entry = self._index.get(block)
        except IndexDamaged:
            return
        if entry.type == RecordType.DATA:
            stored = self._stored(block, entry)
            self._ahead = None if stored is None else (block, entry, stored)

    def _stored(self, block: int, entry: Entry) -> StoredBlock | None:
        if entry.type == RecordType.LOST:
            return None
        raw = self._log.read_whole(entry.offset, entry.length)
        if raw is None:
            return None
        return self._log.block_of(raw, entry.type, block, entry.generation)

    def _leads_to_header(self, block: int, entry: Entry) -> bool:
        if entry.type == RecordType.LOST:
            return True
        header = self._log.read_header(entry.offset)
        return header is not None and (
            (header.block, header.generation, header.type, header.stored_length)
            == (block, entry.generation, entry.type, entry.length)
        )

    # Writing

    def append(self, payloads: Sequence[Buffer | StoredBlock]) -> None:
        """Add blocks at the end of data, in order, as they are or already coded.

        Raises NoRoom or WriteFailed when not all could be added: `eod` tells how many were.
        """
        self._append(RecordType.DATA, payloads)

    def mark(self, count: int) -> None:
        """Add filemarks at the end of data. Raises as `append` does."""
        while count:
            batch = min(count, _BATCH)
            self._append(RecordType.FILEMARK, (b"",) * batch)
            count -= batch

    def _append(self, kind: RecordType, payloads: Sequence[Buffer | StoredBlock]) -> None:
        self._refuse_if_failed()
        now = self._now
        eod, offset, file, last = now.eod, now.offset, now.file, now.last
        generation = now.generation
        end = LOG_START + self._limits.capacity
        pieces: list[Buffer] = []
        entries = bytearray()
        full = False
        for payload in payloads:
            stored, plain, coding = (
                payload if isinstance(payload, StoredBlock) else (payload, len(payload), 0)
            )
            length = len(stored)
            if offset + length + OVERHEAD > end:
                full = True
                break
            pieces += self._log.pack(
                kind, eod, file, stored, last, generation, offset, plain, coding
            )
            entries += pack_entry(eod, Entry(offset, file, length, generation, kind))
            last = offset
            offset += length + OVERHEAD
            eod += 1
            file += kind == RecordType.FILEMARK
        if pieces:
            try:
                self._log.reserve(now.offset, offset, end)
                self._store(pieces, bytes(entries))
            except NoRoom:
                if eod == now.eod + 1:
                    raise
                # The file system ran full within: as many as do fit, one by one.
                for payload in payloads:
                    self._append(kind, (payload,))
                return
            self._now = PartitionState(eod, offset, file, last, generation)
        if full:
            raise NoRoom(f"{self._log.path}: the partition is full")

    def _store(self, pieces: list[Buffer], entries: bytes) -> None:
        """Write records and then what makes them reachable; on failure neither remains."""
        try:
            self._log.write(pieces, self._now.offset)
            self._index.append(entries)
        except OSError as error:
            self._drop_beyond_eod()
            kind = NoRoom if error.errno in _OUT_OF_ROOM else WriteFailed
            raise kind(f"{self._log.path}: {error.strerror}") from error

    def _drop_beyond_eod(self) -> None:
        try:
            self._log.truncate(self._now.offset)
            self._index.truncate(self._now.eod)
        except OSError as error:
            # What is beyond the end of data would be taken for data after a crash.
            self._failed = error

    def cut(self, block: int) -> None:
        """Make a position the end of data. A crash at any moment leaves the old end or the new.

        Raises WriteFailed if that cannot be put on stable storage.
        """
        now = self._now
        if block >= now.eod:
            return
        self._ahead = None
        # Before the superblock names an end of data, everything up to it must last.
        if block > self._published.eod:
            self.sync()
        self._refuse_if_failed()
        here = self.entry(block)
        new = PartitionState(
            eod=block,
            offset=here.offset,
            file=here.file,
            last=self.entry(block - 1).offset if block else NO_PREVIOUS,
            generation=now.generation + 1,
        )
        try:
            # 1. The new end of data, and the generation that records from here on must bear.
            self._publish(new)
            self._published = self._now = new
            # 2. The old records count no more: their generation is old.
            self._log.reuse()
            self._index.truncate(new.eod)
        except OSError as error:
            self._fail(error)
        # 3. The caller appends records of the new generation.

    def erase(self, block: int) -> None:
        """`cut`, and give back the room of what was behind. Raises WriteFailed."""
        self.cut(block)
        self._refuse_if_failed()
        try:
            self._log.truncate(self._now.offset)
        except OSError as error:
            self._fail(error)

    def sync(self) -> None:
        """Return when everything appended is on stable storage and will be found there.

        Raises WriteFailed if that cannot be; from then on nothing can be added until the cartridge
        is opened anew, because the kernel may have dropped what it could not write.
        """
        self._refuse_if_failed()
        if self._now == self._published:
            return
        try:
            self._log.sync()  # 1. the data
            self._index.sync()  # 2. where it is
            self._publish(self._now)  # 3. that it counts
        except OSError as error:
            self._fail(error)
        self._published = self._now

    def _fail(self, error: OSError) -> None:
        self._failed = error
        raise WriteFailed(f"{self._log.path}: {error.strerror}") from error

    def _refuse_if_failed(self) -> None:
        if self._failed:
            raise WriteFailed(f"{self._log.path}: {self._failed.strerror}") from self._failed

    def give_back(self) -> None:
        """Free what the file system has set aside for more, after a sync."""
        self._log.give_back(self._now.offset)

    def close(self) -> None:
        """Let go of the files, without a sync."""
        self._log.close()
        self._index.close()

    # Opening and repair

    def _open_index(self) -> None:
        """Trust the index if its last entry leads to the published end of data, else rebuild it."""
        eod = self._now.eod
        self._index.count = eod
        if not eod:
            return
        try:
            last = self._index.get(eod - 1)
        except IndexDamaged as damage:
            self._rebuild(damage)
            return
        if last.type != RecordType.LOST and (
            last.offset + last.length + OVERHEAD != self._now.offset
        ):
            self._rebuild(IndexDamaged("its last entry is not at the end of data"))

    def _scan_tail(self) -> None:
        """Take up the records behind the published end of data, up to the first that is not whole.

        Only the current generation counts: what an overwrite left behind is of an older one.
        """
        now = self._now
        eod, offset, file, last = now.eod, now.offset, now.file, now.last
        size = self._log.size()
        self._index.truncate(eod)
        entries = bytearray()
        while header := self._log.read_header(offset):
            expected = (eod, file, last, now.generation)
            if (header.block, header.file, header.previous, header.generation) != expected:
                break
            if header.type not in (RecordType.DATA, RecordType.FILEMARK):
                break
            length = header.stored_length
            if length > MAX_RECORD or self._log.read_whole(offset, length) is None:
                break
            entries += pack_entry(eod, Entry(offset, file, length, now.generation, header.type))
            last = offset
            offset += length + OVERHEAD
            eod += 1
            file += header.type == RecordType.FILEMARK
            if eod % _BATCH == 0:
                self._index.append(bytes(entries))
                entries.clear()
        self._index.append(bytes(entries))
        self._now = PartitionState(eod, offset, file, last, now.generation)
        if size > offset:
            _logger.warning("%s: %d bytes behind the data dropped", self._log.path, size - offset)
            self._log.truncate(offset)
            # Whole records may have lain behind the torn one. Should the truncation not outlive a
            # power failure, what is appended now must not be continued by them: a new generation.
            self._now = replace(self._now, generation=now.generation + 1)
            self.sync()

    def _rebuild(self, damage: IndexDamaged) -> None:
        _logger.warning("%s: rebuilding the index: %s", self._log.path, damage)
        try:
            self._write_index_anew()
        except OSError as error:
            raise DamagedRecord(f"{self._log.path}: no index: {error.strerror}") from error

    def _write_index_anew(self) -> None:
        """Enter what the headers in the log say.

        Where a header is damaged too, the objects up to the next sound one are entered as lost, so
        that the numbers of those behind stay what they were.
        """
        now = self._now
        end = min(now.offset, self._log.size())
        block = file = 0
        offset = LOG_START
        self._index.truncate(0)
        entries = bytearray()

        def add(entry: Entry) -> None:
            nonlocal block
            entries.extend(pack_entry(block, entry))
            block += 1
            if block % _BATCH == 0:
                self._index.append(bytes(entries))
                entries.clear()

        while block < now.eod:
            header = self._log.read_header(offset) if offset < end else None
            start = offset
            if header is None or not self._may_be(header, block):
                start, header = next(
                    (
                        (at, found)
                        for at, found in self._log.search(offset + 1, end)
                        if self._may_be(found, block)
                    ),
                    (end, None),
                )
            while block < (header.block if header else now.eod):
                add(Entry(offset, file, 0, 0, RecordType.LOST))
            if header:
                kind, file = header.type, header.file
                add(Entry(start, file, header.stored_length, header.generation, kind))
                file += kind == RecordType.FILEMARK
                offset = start + header.record_length
        self._index.append(bytes(entries))

    def _may_be(self, header: RecordHeader, block: int) -> bool:
        """Return whether a header can be that of `block` or of a later one.

        It cannot be if a superblock was lost and the one before it ends the data elsewhere.
        """
        files = header.file + (header.type == RecordType.FILEMARK)
        return (
            block <= header.block < self._now.eod
            and files <= self._now.file
            and header.generation <= self._now.generation
        )
