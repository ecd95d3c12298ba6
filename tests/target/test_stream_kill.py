"""kill -9 of a drive at work: what is there afterwards is what some moment had, and a late one.

Another process runs commands on a drive with two partitions: it appends, overwrites, writes marks
with and without IMMED, formats anew. It says each command that it has an answer to. The kernel
keeps what it was given, so after the kill the cartridge must have all that was answered, or that
and a part of the one command after it; nothing of before an overwrite may come back.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.backstore.cartridge_log import RecordType
from support.tape import filemarks, make_drive, write

CAPACITY = 1 << 24
Tape = list[bytes | None]
Step = tuple[str, int, int, Tape]  # verb, partition, block, objects


def steps(seed: int) -> Iterator[Step]:
    """What the drive is told to do, without an end: always the same for a seed."""
    chance = Random(seed)
    tapes: list[Tape] = [[], []]
    while True:
        if chance.random() < 0.02:
            tapes = [[], []]
            yield "format", 0, 0, []
            continue
        number = chance.randrange(2)
        tape = tapes[number]
        block = chance.choice([len(tape), len(tape), len(tape), chance.randint(0, len(tape))])
        block = min(block, 300)
        objects: Tape = [None] * chance.randint(1, 3)
        if chance.random() < 0.8:
            objects = [chance.randbytes(chance.choice([1, 100, 5000]))]
        tape[block:] = objects
        yield "write", number, block, objects


def work(directory: Path, seed: int) -> None:
    """Run the steps on a drive and say how many have been answered."""
    drive = make_drive(directory, capacity=CAPACITY)
    for count, (verb, number, block, objects) in enumerate(steps(seed), 1):
        if verb == "format":
            drive.unit.medium.cartridge.format([CAPACITY // 2, CAPACITY // 2])
            drive.unit.medium.number = drive.unit.medium.block = 0
        else:
            drive.good(bytes((0x92, 2, 0, number)) + block.to_bytes(8, "big") + bytes(4))
            if objects[0] is None:
                drive.good(filemarks(len(objects), immediate=count % 3 > 0))
            else:
                drive.good(write(len(objects[0])), objects[0])
        os.write(1, b"%d\n" % count)


def possible(seed: int, answered: int) -> Iterator[list[Tape]]:
    """What may be there once so many steps have been answered and the next is under way."""
    tapes: list[Tape] = [[], []]
    sequence = steps(seed)
    for _ in range(answered):
        verb, number, block, objects = next(sequence)
        if verb == "format":
            tapes = [[], []]
        else:
            tapes[number][block:] = objects
    yield tapes
    verb, number, block, objects = next(sequence)
    if verb == "format":
        yield [[], []]
        return
    for done in range(len(objects) + 1):
        other = list(tapes)
        other[number] = tapes[number][:block] + objects[:done]
        yield other


def found(directory: Path) -> list[Tape]:
    """What is there."""
    cartridge = open_cartridge(directory)
    tapes: list[Tape] = [
        [
            None if part.entry(block).type == RecordType.FILEMARK else bytes(part.read(block))
            for block in range(part.eod)
        ]
        for part in cartridge.partitions
    ]
    cartridge.abandon()
    return tapes


@pytest.mark.parametrize("seed", range(3))
def test_what_was_answered_is_there_and_nothing_is_mixed(tmp_path: Path, seed: int) -> None:
    directory = tmp_path / "tape"
    cartridge = open_cartridge(directory, CAPACITY)
    cartridge.format([CAPACITY // 2, CAPACITY // 2])
    cartridge.close()
    worker = subprocess.Popen(
        [sys.executable, __file__, str(directory), str(seed)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert worker.stdout is not None
    assert worker.stdout.readline(), "the worker works"
    time.sleep(Random().uniform(0, 0.4))
    worker.kill()
    answers = worker.stdout.read().split()
    worker.wait()
    worker.stdout.close()
    answered = int(answers[-1]) if answers else 1
    assert found(directory) in list(possible(seed, answered)), f"{answered} steps answered"


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))
