"""Any CDB with any data, on a sound or a damaged tape: never is the answer an internal failure."""

import tempfile
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from serverfree.scsi.opcodes import cdb_length
from serverfree.scsi.status import Status
from support.tape import MEMORY, make_drive


def spoil(chance, drive):
    """Flip bits all over the log and the index."""
    for name in ("part0.log", "part0.idx"):
        path = drive.unit.directory / name
        raw = bytearray(path.read_bytes())
        for _ in range(5):
            raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        path.write_bytes(raw)


@pytest.mark.parametrize("seed", range(4))
def test_no_command_is_an_internal_failure(seed):
    chance = Random(seed)
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        drive = make_drive(Path(directory) / "t", capacity=1 << 20)
        drive.fill("ab|c||")
        if seed % 2:
            spoil(chance, drive)
        rows = list(drive.unit.dispatch.rows())
        statuses = Counter()
        for _ in range(2000):
            row = chance.choice(rows)
            usage = bytearray(row.usage)
            cdb = bytearray(chance.randbytes(cdb_length(usage)))
            for at, mask in enumerate(usage):
                # Mostly small numbers in wide fields: large ones are refused at once.
                cdb[at] &= mask if chance.random() < 0.9 else 0xFF
                if at > 1 and chance.random() < 0.6:
                    cdb[at] = 0
            cdb[0] = usage[0]
            cdb[-1] = 0  # NACA would let one refusal stand in the way of all that follows
            if row.service_action is not None:
                cdb[1] = cdb[1] & 0xE0 | row.service_action
            length = min(drive.unit.data_out_length(bytes(cdb)), 5000)
            data = chance.randbytes(chance.choice([length, length // 2]))
            reply = drive(bytes(cdb), data)
            statuses[reply.status] += 1
            failed = reply.sense is not None and reply.sense.asc == 0x4400
            assert not failed, f"{row.name}: {cdb.hex(' ')}"
        assert statuses[Status.GOOD] > 300, "much was done, not only refused"
        drive.unit.close()
