"""Random command sequences against a tape that is a Python list: data, sense and position agree.

There is one list for each of two partitions. After some commands the drive is unloaded and
loaded, or its process "dies" and the cartridge is opened anew; encryption and compression come and
go, the medium is partitioned anew.
"""

import tempfile
from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.units.stream_medium import Medium
from support.tape import (
    LOAD,
    MEMORY,
    REWIND,
    UNLOAD,
    filemarks,
    locate,
    locate16,
    make_drive,
    read,
    space,
    write,
)
from support.tape_model import BLOCK_LENGTH, CAPACITY, MARK, Model

KEY = bytes(range(32))

lengths = st.sampled_from([1, 63, 64, 65, 200, 700])
small = st.integers(0, 4)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), lengths),
        st.tuples(st.just("write_fixed"), small),
        st.tuples(st.just("marks"), small),
        st.tuples(st.just("read"), st.one_of(st.just(0), lengths), st.booleans()),
        st.tuples(st.just("read_fixed"), small),
        st.tuples(st.just("reverse"), st.one_of(st.just(0), lengths), st.booleans()),
        st.tuples(st.just("runs"), st.integers(-3, 3)),
        st.tuples(st.just("blocks"), st.integers(-6, 6)),
        st.tuples(st.just("files"), st.integers(-3, 3)),
        st.tuples(st.just("locate"), st.integers(0, 12)),
        st.tuples(st.just("locate_file"), st.integers(0, 4)),
        st.tuples(st.sampled_from(["rewind", "eod", "erase", "reload", "die", "lose_index"])),
        st.tuples(st.just("block_length"), st.sampled_from([0, BLOCK_LENGTH])),
        st.tuples(st.just("partition"), st.integers(0, 1)),
        st.tuples(st.just("encrypt"), st.booleans()),
        st.tuples(st.just("compress"), st.booleans()),
        st.tuples(st.just("resize"), st.sampled_from([1000, 2000, 2500])),
    ),
    min_size=10,
    max_size=40,
)
beginnings = st.lists(st.sampled_from([MARK, MARK, 1, 64, 64, 200, 700]), max_size=20)


def set_encryption(drive, on):
    """Encrypt what is written from now on, or not; both kinds can be read."""
    page = bytes.fromhex("00 10 00 30 40 40") + bytes((2 * on, 3, 1)) + bytes(9) + b"\0\x20" + KEY
    drive.good(bytes.fromhex("b5 20 00 10 00 00 00 00 00 34 00 00"), page)


@settings(max_examples=150, deadline=None)
@given(beginnings, operations, st.integers(0, 1 << 32))
def test_drive_and_list_agree(beginning, sequence, seed):
    random = Random(seed)  # bytes that no example makes compressible
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        path = Path(directory) / "tape"
        drive = make_drive(path, capacity=2 * CAPACITY)
        drive.unit.medium.cartridge.format([CAPACITY, CAPACITY])
        models = [Model(), Model()]
        model = models[0]
        block_length = 0
        try:
            set_encryption(drive, False)
            for each in beginning:
                data = MARK if each is MARK else random.randbytes(each)
                model.write([data], 1)
                drive(filemarks(1) if data is MARK else write(len(data)), data or b"")
            for step, (verb, *arguments) in enumerate(sequence):
                cdb, data, expected = b"", b"", None
                match verb, arguments:
                    case "write", [n]:
                        data = random.randbytes(n)
                        cdb, expected = write(n), model.write([data], n)
                    case "write_fixed", [n] if block_length:
                        data = random.randbytes(n * BLOCK_LENGTH)
                        blocks = [data[at * BLOCK_LENGTH :][:BLOCK_LENGTH] for at in range(n)]
                        cdb, expected = write(n, fixed=True), model.write(blocks, 1)
                    case "marks", [n]:
                        cdb, expected = filemarks(n), model.write([MARK] * n, 1)
                    case "read", [n, sili]:
                        cdb = read(n, sili=sili)
                        expected = model.read_variable(n, sili, block_length)
                    case "read_fixed", [n] if block_length:
                        cdb, expected = read(n, fixed=True), model.read_fixed(n)
                    case "reverse", [n, sili]:
                        cdb = bytes((0x0F, 4 | sili << 1)) + n.to_bytes(3, "big") + b"\0"
                        expected = model.read_reverse(n, sili, block_length)
                    case "runs", [n]:
                        cdb, expected = space(2, n), model.space_runs(n)
                    case "blocks", [n]:
                        cdb, expected = space(0, n), model.space_blocks(n)
                    case "files", [n]:
                        cdb, expected = space(1, n), model.space_marks(n)
                    case "locate", [n]:
                        cdb, expected = locate(n), model.locate(n)
                    case "locate_file", [n]:
                        cdb, expected = locate16(n, 1), model.locate_file(n)
                    case "eod", _:
                        cdb, expected = space(3, 0), model.locate(len(model.tape))
                    case "rewind", _:
                        cdb, expected = REWIND, model.locate(0)
                    case "partition", [n]:
                        encrypting, model = model.encrypting, models[n]
                        model.encrypting, model.at = encrypting, 0
                        cdb, expected = bytes((0x92, 2, 0, n)) + bytes(12), (b"", None)
                    case "encrypt", [on]:
                        set_encryption(drive, on)
                        model.encrypting = on
                    case "compress", [on]:  # of random bytes: nothing gets shorter
                        drive.unit.modes.compression = on
                    case "resize", [n]:
                        sizes = [n, 2 * CAPACITY - n]
                        drive.unit.medium.cartridge.format(sizes)
                        drive.unit.medium.number = drive.unit.medium.block = 0
                        encrypting = model.encrypting
                        models = [Model(size) for size in sizes]
                        model = models[0]
                        model.encrypting = encrypting
                    case "erase", _:
                        del model.tape[model.at :], model.encrypted[model.at :]
                        cdb, expected = bytes.fromhex("19 01 00 00 00 00"), (b"", None)
                    case "reload", _:
                        drive.good(UNLOAD)
                        encrypting, model = model.encrypting, models[0]
                        model.encrypting = encrypting
                        cdb, expected = LOAD, model.locate(0)
                    case "die", _:
                        # What was handed to the kernel outlives the process, synced or not.
                        drive.unit.medium.cartridge.abandon()
                        drive.unit.medium = Medium(open_cartridge(path))
                        encrypting, model = model.encrypting, models[0]
                        model.encrypting, model.at = encrypting, 0
                    case "lose_index", _:
                        (path / f"part{drive.unit.medium.number}.idx").write_bytes(b"")
                    case "block_length", [n]:
                        drive.set_block_length(block_length := n)
                if expected is not None:
                    reply = drive(cdb, data)
                    assert (bytes(reply.data), reply.sense) == expected, f"step {step}: {verb}"
                assert drive.block == model.at
                assert drive.file == model.tape[: model.at].count(MARK)
                assert drive.unit.medium.partition.used == model.used(len(model.tape))
        finally:
            drive.unit.close()
