"""Any CDB with any data: a tape drive answers, and never by an internal failure."""

import tempfile
from pathlib import Path
from random import Random

import pytest

from serverfree.scsi.opcodes import cdb_length
from support.tape import MEMORY, make_drive


@pytest.mark.parametrize("seed", range(4))
def test_no_command_is_an_internal_failure(seed):
    chance = Random(seed)
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        drive = make_drive(Path(directory) / "t", capacity=1 << 20)
        drive.fill("ab|c||")
        rows = list(drive.unit.dispatch.rows())
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
            if row.service_action is not None:
                cdb[1] = cdb[1] & 0xE0 | row.service_action
            length = min(drive.unit.data_out_length(bytes(cdb)), 5000)
            data = chance.randbytes(chance.choice([length, length // 2]))
            sense = drive(bytes(cdb), data).sense
            assert sense is None or sense.asc != 0x4400, f"{row.name}: {cdb.hex(' ')}"
        drive.unit.close()
