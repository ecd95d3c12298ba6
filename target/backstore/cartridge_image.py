"""SIMH magnetic tape images, `.tap`: in and out.

An object is a little-endian length word, the data, padded to an even number of bytes, and the same
word again. Bit 31 marks a block that was read with an error, bits 30 to 24 its class (0 good, 8
bad, others not data). 00000000h is a filemark, FFFFFFFEh an erase gap, FFFEFFFFh half of one,
FFFFFFFFh the end of the medium. (SIMH Magtape Representation and Handling.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from serverfree.target.backstore.cartridge_errors import CartridgeError, DamagedRecord
from serverfree.target.backstore.cartridge_log import Coding, RecordType, StoredBlock
from serverfree.target.backstore.cartridge_partition import Partition

_MARK, _GAP, _HALF_GAP, _END = 0, 0xFFFFFFFE, 0xFFFEFFFF, 0xFFFFFFFF
_ERROR = 1 << 31
_LENGTH = 0xFFFFFF
_GOOD, _BAD = 0, 8
_BATCH = 64


@dataclass(slots=True)
class Tally:
    """What went over: blocks (bad ones among them), marks, and things that did not."""

    blocks: int = 0
    marks: int = 0
    bad: int = 0
    skipped: int = 0
    bytes: int = 0


def import_image(image: BinaryIO, partition: Partition, *, padded: bool = True) -> Tally:
    """Append everything in an image to a partition.

    A block marked bad is stored so that reads of it fail; gaps and what is not data are skipped.
    Raises CartridgeError where the image breaks off or contradicts itself, NoRoom, WriteFailed.
    """
    tally = Tally()
    for each in _objects(image, tally, padded):
        if each is None:
            partition.mark(1)
            tally.marks += 1
        else:
            partition.append((each,))
            tally.blocks += 1
            tally.bytes += each.length
    return tally


def _objects(image: BinaryIO, tally: Tally, padded: bool) -> Iterator[StoredBlock | None]:
    while True:
        at = image.tell()
        word = image.read(4)
        if not word:
            return
        if len(word) < 4:
            raise CartridgeError(f"the image breaks off in a length word at byte {at}")
        number = int.from_bytes(word, "little")
        if number == _END:
            return
        if number == _GAP:
            tally.skipped += 1
        elif number == _HALF_GAP:
            image.seek(at + 2)
        elif number == _MARK:
            yield None
        else:
            block = _block(image, at, word, padded)
            kind = number >> 28 & 0xF
            if kind & 7 not in (_GOOD, _BAD & 7):
                tally.skipped += 1
                continue
            if number & _ERROR:
                tally.bad += 1
                yield StoredBlock(block, len(block), Coding.UNREADABLE)
            else:
                yield StoredBlock(block, len(block))


def _block(image: BinaryIO, at: int, word: bytes, padded: bool) -> bytes:
    length = int.from_bytes(word, "little") & _LENGTH
    padding = length % 2 if padded else 0
    data = image.read(length + padding)
    trailer = image.read(4)
    if len(data) < length + padding or len(trailer) < 4:
        raise CartridgeError(f"the image breaks off in the block at byte {at}")
    if trailer != word:
        raise CartridgeError(
            f"the block at byte {at} begins with length {word.hex()} and ends with {trailer.hex()}"
        )
    return data[:length]


def export_image(partition: Partition, image: BinaryIO) -> Tally:
    """Write a partition as an image; what cannot be read goes out empty and marked bad.

    Raises EncryptedBlock for a block that only its key can open, OSError.
    """
    tally = Tally()
    for block in range(partition.eod):
        if partition.entry(block).type == RecordType.FILEMARK:
            image.write(_MARK.to_bytes(4, "little"))
            tally.marks += 1
            continue
        tally.blocks += 1
        try:
            data = partition.read(block)
            word = len(data)
        except DamagedRecord:
            tally.bad += 1
            # A length of zero would be a mark: one byte that nobody will take for data.
            data, word = memoryview(b"\0"), _ERROR | 1
        tally.bytes += len(data)
        header = word.to_bytes(4, "little")
        image.write(header)
        image.write(data)
        image.write(bytes(len(data) % 2) + header)
    image.write(_END.to_bytes(4, "little"))
    return tally
