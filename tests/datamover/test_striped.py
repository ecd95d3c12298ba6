"""STR of EXTENDED COPY: disks that a list goes through in turns are read at the same time."""

import pytest

from serverfree.datamover.manager import CopyManager
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_segments import BlockToBlock
from support.copies import NEXUS, ModelFabric, cscd, noise
from support.fake_devices import READ_16, FakeDisk

STRIPE = 4096  # blocks
STRIPES = 3  # on each of two disks


class Stripes(FakeDisk):
    """A disk that counts the reads which come while its neighbour is at one."""

    neighbour: "Stripes"
    together = 0

    def submit(self, cdb, **data):
        if cdb[0] == READ_16:
            self.together += any(one.cdb[0] == READ_16 for one in self.neighbour._queue)
        return super().submit(cdb, **data)


@pytest.mark.parametrize("striped", [False, True])
@pytest.mark.parametrize("block", [512, 4096])
def test_striped_disks_are_read_at_once_and_in_any_case_come_out_in_order(
    striped: bool, block: int
) -> None:
    stripe = STRIPE * 512 // block
    size = STRIPES * STRIPE * 512
    one, other = (Stripes(noise(size, seed), block, lazy=True) for seed in (1, 2))
    one.neighbour, other.neighbour = other, one
    whole = FakeDisk(bytes(2 * size), block, lazy=True)
    devices = [one, other, whole]
    segments = [
        BlockToBlock(number % 2, 2, stripe, number // 2 * stripe, number * stripe)
        for number in range(2 * STRIPES)
    ]
    cscds = [cscd(number, device) for number, device in enumerate(devices)]
    copy = CopyList(cscds, segments, sequential_striped=striped)
    CopyManager(ModelFabric(*devices)).extended_copy(NEXUS, copy.pack(), lambda: False)
    step = STRIPE * 512
    assert whole.data == b"".join(
        device.data[at : at + step] for at in range(0, size, step) for device in (one, other)
    )
    if striped:
        assert one.together
        assert other.together
