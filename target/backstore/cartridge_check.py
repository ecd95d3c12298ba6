"""Looking over a cartridge without touching it: every record, entry and superblock; then repair.

What can be derived again (an index, a superblock beside a sound one, a log's file header) is
repaired. A block whose record is damaged is not: it is named, reads of it fail, and all others
keep their numbers.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.backstore.cartridge_errors import CartridgeError, IndexDamaged
from serverfree.target.backstore.cartridge_index import ENTRY_LENGTH, BlockIndex, Entry
from serverfree.target.backstore.cartridge_log import (
    LOG_START,
    RecordLog,
    RecordType,
)
from serverfree.target.backstore.cartridge_memory import CartridgeMemory
from serverfree.target.backstore.cartridge_state import (
    NAMES,
    PartitionState,
    State,
    Superblocks,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written. `lasting`: no repair brings it back."""

    where: str
    what: str
    lasting: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def check_cartridge(directory: Path) -> list[Finding]:
    """Return what is wrong with a cartridge that no drive holds, and change nothing.

    Raises CartridgeError if it is in use, or is no cartridge that can be opened at all.
    """
    missing = {name for name in NAMES if not (directory / name).exists()}
    if len(missing) == len(NAMES):
        raise CartridgeError(f"{directory}: no cartridge there")
    damaged = [name for name in NAMES if name not in missing and not _sound(directory / name)]
    superblocks = Superblocks.open(directory)
    try:
        state = superblocks.state
        findings = [Finding(name, "is missing") for name in sorted(missing)]
        findings += [Finding(name, "is damaged") for name in damaged]
        for number in range(len(state.partitions)):
            findings += _partition(directory, number, state)
    finally:
        superblocks.close()
        for name in missing:  # opening made an empty one
            (directory / name).unlink(missing_ok=True)
    memory = CartridgeMemory.open(directory)
    if memory.damage:
        findings.append(Finding("memory.json", "is damaged; attributes and counts are lost", True))
    return findings


def repair_cartridge(directory: Path) -> tuple[list[Finding], list[Finding]]:
    """Repair what can be; return what was found before and what is left. Raises CartridgeError."""
    before = check_cartridge(directory)
    if not before:
        return [], []
    for index in directory.glob("part*.idx"):
        if any(finding.where == index.name for finding in before):
            index.unlink()
    for log in directory.glob("part*.log"):
        if Finding(log.name, _FILE_HEADER) in before:
            _rewrite_file_header(directory, log)
    # Opening makes the rest anew; each of the two publications goes into the older superblock.
    cartridge = open_cartridge(directory)
    try:
        cartridge.protect(cartridge.write_protected)
        cartridge.protect(cartridge.write_protected)
        if cartridge.memory.damage:
            cartridge.memory.save()
        for partition in cartridge.partitions:
            for block in range(partition.eod):
                partition.entry(block)
    finally:
        cartridge.close()
    return before, check_cartridge(directory)


_FILE_HEADER = "its file header is damaged"


def _sound(path: Path) -> bool:
    try:
        return State.unpack(path.read_bytes()) is not None
    except OSError:
        return False


def _rewrite_file_header(directory: Path, log: Path) -> None:
    superblocks = Superblocks.open(directory)
    try:
        number = int(log.stem.removeprefix("part"))
        head = RecordLog.file_header(number, superblocks.state.cartridge)
    finally:
        superblocks.close()
    with log.open("r+b") as file:
        file.write(head)
        file.flush()
        os.fsync(file.fileno())


def _partition(directory: Path, number: int, state: State) -> Iterator[Finding]:
    log_path, index_path = directory / f"part{number}.log", directory / f"part{number}.idx"
    had_index = index_path.exists()
    log = RecordLog.open(log_path, number, state.cartridge)
    index = BlockIndex.open(index_path)
    index.count = state.partitions[number].eod
    try:
        raw = os.pread(log.fd, LOG_START, 0)
        if raw != RecordLog.file_header(number, state.cartridge):
            yield Finding(log_path.name, _FILE_HEADER)
        if not had_index:
            yield Finding(index_path.name, "is missing")
        yield from _records(log, index if had_index else None, state.partitions[number])
    finally:
        log.close()
        index.close()
        if not had_index:
            index_path.unlink(missing_ok=True)


def _records(log: RecordLog, index: BlockIndex | None, state: PartitionState) -> Iterator[Finding]:
    """Walk the log by its headers and hold every record and index entry to them."""
    name, index_name = log.path.name, log.path.with_suffix(".idx").name
    size = log.size()
    end = min(state.offset, size)
    block = file = 0
    offset = LOG_START
    bad_entries: list[int] = []
    while block < state.eod:
        header = log.read_header(offset) if offset < end else None
        if header is None or header.block != block or header.generation > state.generation:
            start, found = next(
                (
                    (at, one)
                    for at, one in log.search(offset, end)
                    if block <= one.block < state.eod and one.generation <= state.generation
                ),
                (end, None),
            )
            upto = found.block if found else state.eod
            blocks = f"block {block}" if upto == block + 1 else f"blocks {block} to {upto - 1}"
            yield Finding(name, f"{blocks} lost: damage from byte {offset} to {start}", True)
            block, offset = upto, start
            if found:
                file = found.file
            continue
        if log.read_whole(offset, header.stored_length) is None:
            yield Finding(name, f"block {block} is damaged (record at byte {offset})", True)
        entry = Entry(offset, file, header.stored_length, header.generation, header.type)
        if index is not None and not _agrees(index, block, entry):
            bad_entries.append(block)
        offset += header.record_length
        file += header.type == RecordType.FILEMARK
        block += 1
    if bad_entries:
        yield Finding(
            index_name,
            f"{len(bad_entries)} entries wrong, the first that of block {bad_entries[0]}",
        )
    yield from _tail(log, index, state, size)


def _agrees(index: BlockIndex, block: int, entry: Entry) -> bool:
    try:
        return index.get(block) == entry
    except IndexDamaged:
        return False


def _tail(
    log: RecordLog, index: BlockIndex | None, state: PartitionState, size: int
) -> Iterator[Finding]:
    """What lies behind the published end of data: whole records, then perhaps a torn one."""
    offset, block = state.offset, state.eod
    while header := log.read_header(offset):
        if (header.block, header.generation) != (block, state.generation):
            break
        if log.read_whole(offset, header.stored_length) is None:
            break
        offset += header.record_length
        block += 1
    if block > state.eod:
        yield Finding(log.path.name, f"{block - state.eod} objects written after the last sync")
    if size > offset:
        what = "a torn record, or what was overwritten"
        yield Finding(log.path.name, f"{size - offset} bytes behind the data: {what}")
    if index is not None and (extra := index.size() - block * ENTRY_LENGTH) > 0:
        yield Finding(log.path.with_suffix(".idx").name, f"{extra} bytes behind its last entry")
