"""A disk onto itself, upwards: the last bytes first.

Order within a segment is the manager's own affair as long as the result is right (SPC-4 5.17.2).
The residual counts from the front (5.17.7.4 c), which is written last of all.
"""

from serverfree.datamover.endpoints import DiskRun, Edges, read_now, write_now
from serverfree.datamover.errors import CopyAborted
from serverfree.datamover.steps import Step, Workshop
from serverfree.datamover.units import Role
from serverfree.scsi.sense import Asc


def would_overwrite_its_source(step: Step, carried: int) -> bool:
    """Whether writing from the front would reach bytes before they are read.

    `carried` is the residual data in front of them.
    """
    source, destination = step.source, step.destination
    return (
        isinstance(source, DiskRun)
        and isinstance(destination, DiskRun)
        and source.meets(destination)
        and destination.begin + carried > source.begin
    )


def copy_descending(step: Step, carried: int, edges: Edges, workshop: Workshop) -> None:
    """Do all of such a step, no write being under way. Raises CopyAborted, Aborted."""
    source, destination = step.source, step.destination
    assert isinstance(source, DiskRun)
    assert isinstance(destination, DiskRun)
    shift = destination.begin - source.begin
    if destination.end - source.end != shift or carried:
        # With residue from another segment in front, no order of pieces gives the result.
        raise CopyAborted(Asc.INVALID_OPERATION_FOR_COPY_SOURCE_OR_DESTINATION).in_segment(
            step.number
        )
    step.read = step.to_read
    block = source.endpoint.block_length
    if workshop.digests.wanted:
        _digest_ascending(step, source, workshop)
    backwards = workshop.held.backwards() if step.holds else None
    end = step.to_write
    while end:
        workshop.check()
        size = min(destination.piece, end)
        end -= size
        front, back = destination.edges(end, size)
        # Where the bytes of this piece lie in the source, and the blocks around them.
        first = end + front + destination.lba * block - shift - source.lba * block
        wanted = size - front - back
        start = first // block * block
        chunk = workshop.slabs.carve(-(-(first + wanted) // block) * block - start, force=True)
        assert chunk is not None
        residual = destination.residual(step.to_write) if end + size < step.to_write else None
        data = chunk[0][first - start : first - start + wanted]
        try:
            read_now(source, start, chunk[0], Role.SOURCE)
            if backwards is not None:
                backwards.add(data)
            views = edges.around([data], front, back)
            written, failure = write_now(destination, end, views, size)
            if failure is not None:
                raise failure
        except CopyAborted as error:
            raise error.in_segment(step.number, residual) from None
        finally:
            workshop.slabs.release([chunk])
        workshop.progress.bytes_written += written - front - back
    if backwards is not None:
        backwards.done()


def _digest_ascending(step: Step, source: DiskRun, workshop: Workshop) -> None:
    """Read the source once more, for the digest of what is copied in the other direction."""
    for offset in range(0, source.length, source.piece):
        workshop.check()
        chunk = workshop.slabs.carve(min(source.piece, source.length - offset), force=True)
        assert chunk is not None
        try:
            read_now(source, offset, chunk[0], Role.SOURCE)
            front, back = source.edges(offset, len(chunk[0]))
            view = chunk[0][front : len(chunk[0]) - back]
            workshop.digests.put(source.unit.attached, (view,), 0, apart=True)
        except CopyAborted as error:
            raise error.in_segment(step.number) from None
        finally:
            workshop.slabs.release([chunk])
