"""Partition tables, MBR and GPT: where the volumes of a disk begin."""

import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from uuid import UUID

from serverfree.backup.device import Device

# Status, type, first block, blocks.
_MBR_ENTRY = Struct("<B3xB3xII")
_MBR_TABLE, _MBR_ENTRIES, _MBR_SIGNATURE = 446, 4, b"\x55\xaa"
_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE
_MOST_LOGICAL = 128
# Signature, revision, header size, CRC, this header, the other, first and last usable block,
# disk, where the entries begin, how many, their size, their CRC.
_GPT_HEADER = Struct("<8sIII4xQQQQ16sQIII")
_GPT_SIGNATURE = b"EFI PART"
# Type, unique id, first and last block, attributes, name.
_GPT_ENTRY = Struct("<16s16sQQQ72s")
_MOST_ENTRIES = 4096
_LARGEST_ENTRY = 4096


class PartitionError(Exception):
    """A partition table that does not hold together. One line, for people."""


@dataclass(frozen=True, slots=True)
class Partition:
    """`start` and `size` in bytes. `number` as Linux counts: logical ones of an MBR from 5 on.

    `type` is a GUID in small letters (GPT) or two hex digits (MBR); `name` is GPT's, else empty.
    """

    number: int
    start: int
    size: int
    type: str
    name: str


def partitions(device: Device) -> list[Partition]:
    """Return the partitions of a disk by number; none where it has no partition table.

    PartitionError where there is a GPT of which neither copy is whole. A partition that does not
    lie on the disk is left out. A volume's boot sector ends as an MBR does, so what could be both
    counts as a table only where its entries make sense as one.
    """
    block = device.block_length
    if device.size < 2 * block:
        return []
    first = device.read_at(0, max(block, 512))
    if first[510:512] != _MBR_SIGNATURE:
        return []
    entries = _entries(first)
    if any(kind == _PROTECTIVE for kind, _, _ in entries.values()):
        return _gpt(device)
    if not _makes_sense(first, device):
        return []
    return _mbr(device, entries)


def _entries(sector: bytes) -> dict[int, tuple[int, int, int]]:
    """Return (type, first block, blocks) of the four entries that are in use, from number 1 on."""
    found = {}
    for index in range(_MBR_ENTRIES):
        at = _MBR_TABLE + index * _MBR_ENTRY.size
        _, kind, start, count = _MBR_ENTRY.unpack_from(sector, at)
        if kind and count:
            found[index + 1] = kind, start, count
    return found


def _makes_sense(sector: bytes, device: Device) -> bool:
    """Whether the four entries are an MBR's, and not the boot code of a volume."""
    blocks = device.size // device.block_length
    for index in range(_MBR_ENTRIES):
        status, kind, start, count = _MBR_ENTRY.unpack_from(
            sector, _MBR_TABLE + index * _MBR_ENTRY.size
        )
        if status & 0x7F or (kind and count and not 0 < start < blocks):
            return False
    return True


def _mbr(device: Device, entries: dict[int, tuple[int, int, int]]) -> list[Partition]:
    found: list[Partition] = []
    logical: list[Partition] = []
    for number, (kind, start, count) in entries.items():
        if kind in _EXTENDED:
            logical += _logical(device, start, count, 5 + len(logical))
        else:
            _add(found, device, Partition(number, start, count, f"{kind:02x}", ""))
    return found + logical


def _logical(device: Device, first: int, blocks: int, number: int) -> Iterator[Partition]:
    """Yield the partitions of an extended one: a chain of tables, each of one and the way on."""
    block = device.block_length
    seen: set[int] = set()
    at = first
    while at not in seen and len(seen) < _MOST_LOGICAL:
        seen.add(at)
        if (at + 1) * block > device.size:
            return
        sector = device.read_at(at * block, max(block, 512))
        if sector[510:512] != _MBR_SIGNATURE:
            return
        following = None
        found: list[Partition] = []
        for kind, start, count in _entries(sector).values():
            if kind in _EXTENDED:
                following = first + start
            elif not found:
                _add(found, device, Partition(number, at + start, count, f"{kind:02x}", ""))
        yield from found
        number += len(found)
        if following is None or not first <= following < first + blocks:
            return
        at = following


def _gpt(device: Device) -> list[Partition]:
    block = device.block_length
    last = device.size // block - 1
    why = ""
    for header in (1, last):
        try:
            return _gpt_at(device, header)
        except PartitionError as error:
            why = why or str(error)
    raise PartitionError(f"{why}; nor is the other copy of it whole")


def _gpt_at(device: Device, at: int) -> list[Partition]:
    block = device.block_length
    data = device.read_at(at * block, block)
    (
        signature, _, size, check, here, _, _, _, _, first, count, length, entries_check,
    ) = _GPT_HEADER.unpack_from(data)  # fmt: skip
    if signature != _GPT_SIGNATURE or not _GPT_HEADER.size <= size <= block or here != at:
        raise PartitionError(f"no GPT header at block {at}")
    if binascii.crc32(data[:16] + bytes(4) + data[20:size]) != check:
        raise PartitionError(f"the GPT header at block {at} has a wrong checksum")
    if not _GPT_ENTRY.size <= length <= _LARGEST_ENTRY or count > _MOST_ENTRIES:
        raise PartitionError(f"the GPT has {count} entries of {length} bytes")
    if first * block + count * length > device.size:
        raise PartitionError(f"the entries of the GPT at block {at} lie outside of the disk")
    table = device.read_at(first * block, count * length)
    if binascii.crc32(table) != entries_check:
        raise PartitionError(f"the entries of the GPT at block {at} have a wrong checksum")
    found: list[Partition] = []
    for index in range(count):
        kind, _, begin, end, _, name = _GPT_ENTRY.unpack_from(table, index * length)
        if any(kind):
            words = name.decode("utf-16-le", "replace").split("\0", 1)[0]
            guid = str(UUID(bytes_le=kind))
            _add(found, device, Partition(index + 1, begin, end - begin + 1, guid, words))
    return found


def _add(found: list[Partition], device: Device, blocks: Partition) -> None:
    """Take a partition that is given in blocks, if it lies on the disk."""
    block = device.block_length
    start, size = blocks.start * block, blocks.size * block
    if size > 0 and start + size <= device.size:
        found.append(Partition(blocks.number, start, size, blocks.type, blocks.name))
