"""File records made by hand, changed, and read as NTFS says."""

import struct

import pytest

from serverfree.backup.restore.records import marked_dirty, protect, unprotect
from serverfree.backup.restore.wanted import RestoreError


def record(*attributes: bytes, size: int = 1024) -> bytes:
    """A FILE record with an update sequence of 2 and 3 for its two halves."""
    head = bytearray(0x38)
    head[:4] = b"FILE"
    struct.pack_into("<HH", head, 4, 0x30, size // 512 + 1)
    struct.pack_into("<HH", head, 0x14, 0x38, 1)
    body = bytes(head) + b"".join(attributes) + b"\xff\xff\xff\xff"
    raw = bytearray(body.ljust(size, b"\0"))
    raw[510:512], raw[1022:1024] = b"ab", b"cd"
    raw[0x30:0x36] = b"\x07\x00" + b"ab" + b"cd"
    raw[510:512] = raw[1022:1024] = b"\x07\x00"
    return bytes(raw)


def resident(kind: int, value: bytes) -> bytes:
    length = (24 + len(value) + 7) & ~7
    head = struct.pack("<IIBBHHHIHxx", kind, length, 0, 0, 24, 0, 0, len(value), 24)
    return (head + value).ljust(length, b"\0")


def test_the_ends_of_sectors_come_back_and_go_again():
    changed = bytearray(record())
    unprotect(changed)
    assert (changed[510:512], changed[1022:1024]) == (b"ab", b"cd")
    protect(changed)
    assert (changed[510:512], changed[1022:1024]) == (b"\x08\x00", b"\x08\x00")
    assert changed[0x30:0x36] == b"\x08\x00abcd"


def test_the_sequence_number_is_never_zero():
    changed = bytearray(record())
    unprotect(changed)
    changed[0x30:0x32] = b"\xff\xff"
    protect(changed)
    assert changed[0x30:0x32] == b"\x01\x00"


def test_a_torn_record_is_not_changed():
    torn = bytearray(record())
    torn[1022] = 0xEE
    with pytest.raises(RestoreError, match="torn"):
        unprotect(torn)


def test_the_dirty_mark_is_one_bit_of_the_volumes_record():
    information = bytes(8) + b"\x03\x01" + struct.pack("<H", 0x4000)
    before = bytearray(record(resident(0x10, bytes(48)), resident(0x70, information)))
    after = bytearray(marked_dirty(bytes(before)))
    unprotect(before)
    unprotect(after)
    different = [n for n in range(0x38, 1024) if before[n] != after[n]]
    at = before.index(b"\x03\x01\x00\x40") + 2
    assert different == [at]
    assert after[at : at + 2] == struct.pack("<H", 0x4001)


def test_a_record_without_flags_is_not_the_volumes():
    with pytest.raises(RestoreError, match="no flags"):
        marked_dirty(record(resident(0x10, bytes(48))))
