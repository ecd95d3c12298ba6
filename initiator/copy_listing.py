"""An EXTENDED COPY parameter list in words, for those who want to see what is sent."""

from collections.abc import Iterator

from serverfree.initiator.sizes import format_size
from serverfree.scsi.copy_cscd import BlockParameters, IdentificationCscd, StreamParameters
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_segments import (
    BlockToBlock,
    BlockToStream,
    InlineToStream,
    Locate,
    Segment,
    StreamToBlock,
    StreamToDiscard,
    WriteFilemarks,
)


def describe_copy(copy: CopyList) -> Iterator[str]:
    """Yield the lines that tell of a parameter list: header, CSCDs, segments."""
    yield (
        f"list identifier {copy.list_identifier}, usage {copy.list_id_usage:02b}b, "
        f"{len(copy.cscds)} CSCDs, {len(copy.segments)} segments, {len(copy.inline)} bytes inline"
    )
    for number, cscd in enumerate(copy.cscds):
        yield f"  CSCD {number}: {describe_cscd(cscd)}"
    for number, segment in enumerate(copy.segments):
        yield f"  segment {number}: {describe_segment(segment)}"


def describe_cscd(cscd: IdentificationCscd) -> str:
    """Say which unit a CSCD descriptor names and how it is to be used."""
    parameters = cscd.parameters
    pad = " PAD" if parameters.pad else ""
    if isinstance(parameters, BlockParameters):
        return f"E4h disk {cscd.designator}, blocks of {parameters.block_length}{pad}"
    if isinstance(parameters, StreamParameters):
        blocks = f"blocks of {parameters.block_length}" if parameters.fixed else "variable blocks"
        return f"E4h tape {cscd.designator}, {blocks}{pad}"
    return f"E4h device type {cscd.device_type:02X}h {cscd.designator}{pad}"


def describe_segment(segment: Segment) -> str:
    """Say what a segment does."""
    cat = " CAT" if getattr(segment, "cat", False) else ""
    match segment:
        case BlockToStream():
            return (
                f"00h block to stream, {segment.source} -> {segment.destination}, "
                f"{segment.number_of_blocks} blocks from LBA {segment.lba}, "
                f"tape blocks of {format_size(segment.stream_transfer_length)}{cat}"
            )
        case StreamToBlock():
            return (
                f"01h stream to block, {segment.source} -> {segment.destination}, "
                f"{segment.number_of_blocks} blocks to LBA {segment.lba}, "
                f"tape blocks of {format_size(segment.stream_transfer_length)}{cat}"
            )
        case BlockToBlock():
            return (
                f"02h block to block, {segment.source} -> {segment.destination}, "
                f"{segment.number_of_blocks} blocks from LBA {segment.source_lba} "
                f"to LBA {segment.destination_lba}{cat}{' DC' if segment.dc else ''}"
            )
        case InlineToStream():
            return (
                f"04h inline to stream, -> {segment.destination}, {segment.number_of_bytes} bytes "
                f"from offset {segment.inline_offset}{cat}"
            )
        case StreamToDiscard():
            return f"06h stream to discard, {segment.source}, {segment.number_of_bytes} bytes{cat}"
        case WriteFilemarks():
            return f"10h write filemarks, {segment.destination}, {segment.filemark_count}"
        case Locate():
            return f"12h locate, {segment.destination}, block {segment.logical_object_identifier}"


def hex_dump(data: bytes) -> Iterator[str]:
    """Yield sixteen bytes a line, with their offset."""
    for at in range(0, len(data), 16):
        yield f"{at:06x}  {data[at : at + 16].hex(' ')}"
