"""Units that carry out commands in another order than they came: what the list says comes out.

SIMPLE tasks have no order among themselves (SAM-5 8.6.2); a copy's writes and reads of the same
blocks do (SPC-4 6.4.5.3).
"""

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serverfree.datamover.manager import CopyManager
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_segments import BlockRangeToBlockRange, BlockToBlock
from support.copies import NEXUS, ModelFabric, cscd, noise
from support.fake_devices import FakeDisk, _Pending


class Shuffling(FakeDisk):
    """A disk that does what it was sent in any order."""

    def __init__(self, data: bytes, seed: int, **options) -> None:
        super().__init__(data, lazy=True, **options)
        self._random = random.Random(seed)

    def submit(self, cdb, **data):
        pending = super().submit(cdb, **data)
        disk = self

        class Shuffled:
            def wait(self, timeout=None):
                while pending.result is None:
                    number = disk._random.randrange(len(disk._queue))
                    one: _Pending = disk._queue[number]
                    del disk._queue[number]
                    one.run()
                return pending.wait()

        return Shuffled()


BLOCKS = 25


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    moves=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.integers(0, 2),
            st.integers(0, 4),
            st.integers(0, 20),
            st.integers(0, 20),
            st.sampled_from([0, 0, 7]),
        ),
        min_size=1,
        max_size=12,
    ),
    seed=st.integers(0, 1000),
    most=st.sampled_from([0, 1, 3]),
)
def test_lists_come_out_as_they_stand(moves, seed, most) -> None:
    contents = [bytearray(noise(BLOCKS * 512, n)) for n in range(3)]
    disks = [Shuffling(bytes(content), seed + n, most=most) for n, content in enumerate(contents)]
    segments = []
    for source, destination, count, lba, to, short in moves:
        # Whole blocks; or bytes from the middle of one on, whose neighbours stay as they are.
        size, at = max(0, count * 512 - 2 * short), lba * 512 + short
        if short:
            ends = lba, to, short, 3 * short
            segments.append(BlockRangeToBlockRange(source, destination, size, *ends))
        else:
            segments.append(BlockToBlock(source, destination, count, lba, to))
        data = contents[source][at : at + size]
        begin = to * 512 + 3 * short
        contents[destination][begin : begin + size] = data
    cscds = [cscd(number, disk) for number, disk in enumerate(disks)]
    manager = CopyManager(ModelFabric(*disks))
    manager.extended_copy(NEXUS, CopyList(cscds, segments).pack(), lambda: False)
    assert [disk.data for disk in disks] == contents
