"""A drive of this process as an initiator sees it, and whole files written to its tape."""

from collections.abc import Iterable

from serverfree.initiator.tape import Tape
from serverfree.target.units.command import Nexus
from serverfree.target.units.local_fabric import LocalDevice
from support.tape import Drive


def tape_of(drive: Drive) -> Tape:
    """The initiator's view of a drive, under a nexus of its own."""
    return Tape(LocalDevice(drive.unit, Nexus("iqn.test:server", "iqn.test:target")))


def write_file(tape: Tape, data: bytes, block: int, *, filemark: bool = True) -> None:
    """Append a file in blocks of a length, the last as long as what is left."""
    write_blocks(
        tape, (data[at : at + block] for at in range(0, len(data), block)), filemark=filemark
    )


def write_blocks(tape: Tape, blocks: Iterable[bytes], *, filemark: bool = True) -> None:
    """Append a file of these blocks."""
    tape.end_of_data()
    for each in blocks:
        tape.write_block(each)
    if filemark:
        tape.write_filemarks()
