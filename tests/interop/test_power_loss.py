"""kill -9 while a tape is written: what was synchronized before is there afterwards, unbroken."""

import hashlib
import random
import threading
import time
from collections.abc import Iterator

import pytest

from support import servers
from support.wire import ConnectionGone, WireClient

pytestmark = pytest.mark.served

REWIND = bytes.fromhex("010000000000")
WRITE_FILEMARK = bytes.fromhex("100000000100")
MAX_RECORD = 256 << 10
GOOD, CHECK_CONDITION = 0, 2
FILEMARK_BIT = 0x80
BLANK_CHECK = 0x08


def write_6(length: int) -> bytes:
    """SSC-3 6.7, variable blocks."""
    return b"\x0a\0" + length.to_bytes(3, "big") + b"\0"


# READ(6), variable, SILI: a shorter record is no error.
READ = b"\x08\x02" + MAX_RECORD.to_bytes(3, "big") + b"\0"


def record(seed: int, number: int) -> bytes:
    """Return record `number`: of odd lengths, different each, the same again when asked again."""
    draw = random.Random(seed << 32 | number)
    return draw.randbytes(draw.choice((1, 511, 4096, 65_535, MAX_RECORD)))


@pytest.fixture
def drive(tmp_path) -> Iterator[servers.Server]:
    with servers.target("--tape", f"tape={tmp_path / 'tape'},capacity=2GiB") as server:
        yield server


def log_in(drive: servers.Server) -> WireClient:
    client = WireClient(drive.address, drive["tape"].target_name)
    client.command(bytes(6))  # takes the power-on unit attention
    return client


class Writer(threading.Thread):
    """Writes records from the beginning of the tape, a filemark after every few, until cut off."""

    def __init__(self, drive: servers.Server, seed: int, per_file: int) -> None:
        super().__init__(daemon=True)
        self.drive, self.seed, self.per_file = drive, seed, per_file
        self.acknowledged = 0
        self.before_last_filemark = 0
        self.refused: list[object] = []

    def run(self) -> None:
        try:
            with log_in(self.drive) as client:
                assert client.command(REWIND).status == GOOD
                while True:
                    self._file(client)
        except ConnectionGone:
            pass
        except Exception as error:
            self.refused.append(error)

    def _file(self, client: WireClient) -> None:
        for _ in range(self.per_file):
            data = record(self.seed, self.acknowledged)
            ended = client.command(write_6(len(data)), data_out=data)
            assert ended.status == GOOD, ended
            self.acknowledged += 1
        ended = client.command(WRITE_FILEMARK)
        assert ended.status == GOOD, ended
        self.before_last_filemark = self.acknowledged


def read_back(drive: servers.Server) -> Iterator[bytes | None]:
    """Yield every record from the beginning of the tape to end of data, None for a filemark."""
    with log_in(drive) as client:
        assert client.command(REWIND).status == GOOD
        while True:
            ended = client.command(READ, data_in=MAX_RECORD)
            if ended.status == GOOD:
                yield ended.data
            elif ended.status == CHECK_CONDITION and ended.sense[2] & FILEMARK_BIT:
                yield None
            else:
                assert ended.status == CHECK_CONDITION, ended
                assert ended.sense[2] & 0x0F == BLANK_CHECK, ended
                return


@pytest.mark.parametrize(("seed", "delay"), [(1, 0.15), (2, 0.4), (3, 0.9)])
def test_every_record_before_the_last_filemark_survives_a_kill(drive, seed, delay):
    writer = Writer(drive, seed, per_file=5)
    writer.start()
    # Let it come past a filemark or two, then cut it off at no particular place.
    deadline = time.monotonic() + 20
    while writer.before_last_filemark < 10 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(delay)
    drive.kill()
    writer.join(20)
    assert not writer.refused
    assert writer.before_last_filemark >= 10

    drive.start()
    records = [entry for entry in read_back(drive) if entry is not None]
    assert len(records) >= writer.before_last_filemark
    # One record may have been on its way; nothing can be there that was never sent.
    assert len(records) <= writer.acknowledged + 1
    for number, found in enumerate(records):
        expected = record(seed, number)
        assert hashlib.sha256(found).digest() == hashlib.sha256(expected).digest()


def test_a_tape_cut_off_takes_new_records_after_what_survived(drive):
    writer = Writer(drive, 4, per_file=3)
    writer.start()
    deadline = time.monotonic() + 20
    while writer.before_last_filemark < 6 and time.monotonic() < deadline:
        time.sleep(0.005)
    drive.kill()
    writer.join(20)
    drive.start()
    survived = list(read_back(drive))
    with log_in(drive) as client:
        assert client.command(bytes.fromhex("110300000000")).status == GOOD  # SPACE to end of data
        assert client.command(write_6(9), data_out=b"afterward").status == GOOD
        assert client.command(WRITE_FILEMARK).status == GOOD
    assert list(read_back(drive)) == [*survived, b"afterward", None]
