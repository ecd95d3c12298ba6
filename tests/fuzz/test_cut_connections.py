"""A connection cut in every state of a command: data is whole, nothing is left, one can return."""

import os
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from support import servers
from support.process import footprint, settles
from support.scapy_iscsi import (
    DataOut,
    LoginRequest,
    LogoutRequest,
    ScsiCommand,
    TaskManagement,
    TextRequest,
)
from support.wire import DATA_IN, FINAL, R2T, READ, WRITE, Ended, WireClient

pytestmark = pytest.mark.served

KiB, MiB = 1 << 10, 1 << 20
DISK, COPY, TAPE = 0, 1, 2
TEXT_RESPONSE = 0x24
LENGTH = 4 * MiB
BLOCKS = LENGTH // 512
REGION = 2048  # the LBA of what is written
NEW = b"new " * (LENGTH // 4)
NAME = "iqn.2026-11.com.example:cut"


@pytest.fixture(scope="module")
def storage(tmp_path_factory) -> Iterator[servers.Server]:
    folder = tmp_path_factory.mktemp("cut")
    servers.random_file(folder / "disk.img", 64 * MiB)
    with servers.target(
        *("--disk", f"disk={folder / 'disk.img'}"),
        *("--disk", f"copy={folder / 'copy.img'},size=64MiB"),
        *("--tape", f"tape={folder / 'tape'},capacity=64MiB"),
    ) as server:
        yield server


class Cut(WireClient):
    """Begins a command and goes no further."""

    def begin(
        self, cdb: bytes, *, lun: int = DISK, length: int = 0, data: bytes = b"", flags: int = 0
    ) -> int:
        self.tag += 1
        self.send(
            ScsiCommand(
                flags=FINAL | 1 | flags,
                lun=lun << 48,
                initiator_task_tag=self.tag,
                expected_data_transfer_length=length,
                cmd_sn=self.cmd_sn,
                cdb=cdb.ljust(16, b"\0"),
                data=data,
            )
        )
        self.cmd_sn += 1
        return self.tag

    def r2t(self):
        while (answer := self.receive()).opcode != R2T:
            pass
        return answer

    def out(self, r2t, offset: int, data: bytes, data_sn: int, *, final: bool) -> bytes:
        return bytes(
            DataOut(
                flags=FINAL if final else 0,
                lun=r2t.lun,
                initiator_task_tag=r2t.initiator_task_tag,
                target_transfer_tag=r2t.target_transfer_tag,
                data_sn=data_sn,
                buffer_offset=offset,
                data=data,
            )
        )


def log_in(storage: servers.Server) -> Cut:
    client = Cut(storage.address, storage["disk"].target_name, NAME)
    for lun in (DISK, COPY, TAPE):
        while client.command(bytes(6), lun=lun).status == 2:
            pass
    return client


def read_region(client: WireClient) -> bytes:
    read = client.command(struct.pack(">BBIBHB", 0x28, 0, REGION, 0, BLOCKS, 0), data_in=LENGTH)
    assert read.status == 0
    return read.data


WRITE_10 = struct.pack(">BBIBHB", 0x2A, 0, REGION, 0, BLOCKS, 0)


def half_a_header(client: Cut) -> None:
    client.socket.sendall(b"\x01\xa1" + bytes(20))


def half_of_the_immediate_data(client: Cut) -> None:
    command = ScsiCommand(
        flags=0xA1,
        initiator_task_tag=99,
        expected_data_transfer_length=LENGTH,
        cmd_sn=client.cmd_sn,
        cdb=WRITE_10.ljust(16, b"\0"),
        data=NEW[:8192],
    )
    client.socket.sendall(bytes(command)[:4000])


def all_data_asked_for_and_none_sent(client: Cut) -> None:
    client.begin(WRITE_10, length=LENGTH, flags=WRITE)
    client.r2t()


def half_a_data_out(client: Cut) -> None:
    client.begin(WRITE_10, length=LENGTH, flags=WRITE)
    pdu = client.out(client.r2t(), 0, NEW[: 256 * KiB], 0, final=False)
    client.socket.sendall(pdu[: 100 * KiB])


def all_data_but_the_last_pdu(client: Cut) -> None:
    client.begin(WRITE_10, length=LENGTH, flags=WRITE)
    offset = 0
    while offset < LENGTH - 256 * KiB:
        r2t = client.r2t()
        end = min(r2t.buffer_offset + r2t.residual_count, LENGTH - 256 * KiB)
        for data_sn, offset in enumerate(range(r2t.buffer_offset, end, 256 * KiB)):
            last = offset + 256 * KiB >= r2t.buffer_offset + r2t.residual_count
            piece = NEW[offset : offset + 256 * KiB]
            client.socket.sendall(client.out(r2t, offset, piece, data_sn, final=last))
        offset = end


def an_abort_under_way(client: Cut) -> None:
    tag = client.begin(WRITE_10, length=LENGTH, flags=WRITE)
    client.r2t()
    for function in (1, 2, 4):
        client.send(
            TaskManagement(
                immediate=1,
                flags=FINAL | function,
                initiator_task_tag=1000 + function,
                referenced_task_tag=tag,
                cmd_sn=client.cmd_sn,
            )
        )


def a_read_that_nobody_takes(client: Cut) -> None:
    cdb = struct.pack(">BBIBHB", 0x28, 0, 0, 0, 32768, 0)
    for _ in range(8):
        client.begin(cdb, length=16 * MiB, flags=READ)
    assert client.receive().opcode == DATA_IN


def flushes_in_the_queue(client: Cut) -> None:
    for _ in range(16):
        client.begin(bytes.fromhex("35000000000000000000"))


def a_tape_write_with_half_its_data(client: Cut) -> None:
    client.begin(bytes((0x0A, 0, 4, 0, 0, 0)), lun=TAPE, length=256 * KiB, flags=WRITE)
    r2t = client.r2t()
    client.socket.sendall(client.out(r2t, 0, NEW[: 128 * KiB], 0, final=False))


def tape_motion_in_the_queue(client: Cut) -> None:
    for cdb in ("100000000200", "010000000000", "110300000000", "100000000000"):
        client.begin(bytes.fromhex(cdb), lun=TAPE)


def a_copy_that_runs(client: Cut) -> None:
    copy = copy_list(designator(client, DISK), designator(client, COPY))
    cdb = struct.pack(">BB8xIxx", 0x83, 0, len(copy))
    client.begin(cdb, length=len(copy), flags=WRITE, data=copy)
    assert settles(lambda: client.command(bytes(6), lun=COPY).status == 0)


def a_text_request_in_parts(client: Cut) -> None:
    """The first of several PDUs (the C bit), and then nothing."""
    client.send(
        TextRequest(
            flags=0x40, initiator_task_tag=2000, cmd_sn=client.cmd_sn, data=b"SendTargets=A" * 100
        )
    )
    assert client.receive().opcode == TEXT_RESPONSE


def a_logout_whose_answer_nobody_reads(client: Cut) -> None:
    client.begin(WRITE_10, length=LENGTH, flags=WRITE)
    client.send(LogoutRequest(immediate=1, initiator_task_tag=2001, cmd_sn=client.cmd_sn))


def designator(client: WireClient, lun: int) -> bytes:
    """The first designation descriptor of VPD page 83h."""
    page = client.command(bytes.fromhex("12018300ff00"), lun=lun, data_in=255).data
    return page[4 : 8 + page[7]]


def copy_list(source: bytes, destination: bytes) -> bytes:
    """SPC-4 6.4: 2 GiB between two disks of 64 MiB, over and over; nobody waits for its end."""
    descriptors = b"".join(
        struct.pack(">BBH24sB", 0xE4, 0, 0, each.ljust(24, b"\0"), 0) + (512).to_bytes(3, "big")
        for each in (source, destination)
    )
    segment = struct.pack(">BBHHHxxHQQ", 0x02, 0, 0x18, 0, 1, 0xFFFF, 0, 0)
    segments = segment * 64
    header = struct.pack(">BBH4xII", 7, 0, len(descriptors), len(segments), 0)
    return header + descriptors + segments


STATES: list[Callable[[Cut], None]] = [
    half_a_header,
    half_of_the_immediate_data,
    all_data_asked_for_and_none_sent,
    half_a_data_out,
    all_data_but_the_last_pdu,
    an_abort_under_way,
    a_read_that_nobody_takes,
    flushes_in_the_queue,
    a_tape_write_with_half_its_data,
    tape_motion_in_the_queue,
    a_copy_that_runs,
    a_text_request_in_parts,
    a_logout_whose_answer_nobody_reads,
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", ["fin", "reset"])
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_cut(storage: servers.Server, state: Callable[[Cut], None], how: str) -> None:
    with log_in(storage) as witness:
        before = read_region(witness)
        assert settles(lambda: footprint(storage.pid).threads <= 10)
        held = footprint(storage.pid)
        client = log_in(storage)
        state(client)
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.socket.close()
        # A command whose data is not all here has not begun: not one block may have changed.
        assert read_region(witness) == before
        assert settles(lambda: footprint(storage.pid).files <= held.files)
        # Workers of units stay, the connection's thread and those of its copies do not.
        assert settles(lambda: footprint(storage.pid).threads <= held.threads + 3)
        assert footprint(storage.pid).memory <= held.memory + 64 * MiB
    with log_in(storage) as again:
        assert write_and_verify(again, os.urandom(64 * KiB))
        assert write_tape(again, os.urandom(32 * KiB))
    assert "Traceback" not in storage.log()


def write_and_verify(client: WireClient, data: bytes) -> bool:
    where = struct.pack(">IBHB", REGION, 0, len(data) // 512, 0)
    written = client.command(b"\x2a\0" + where, data_out=data)
    return written.status == 0 and read_region(client)[: len(data)] == data


def write_tape(client: WireClient, data: bytes) -> bool:
    """Write a block at the beginning of the tape and read it back, whole."""

    def run(cdb: str, **options: object) -> Ended:
        return client.command(bytes.fromhex(cdb), lun=TAPE, **options)  # type: ignore[arg-type]

    assert run("010000000000").status == 0
    length = len(data).to_bytes(3, "big").hex()
    assert run(f"0a00{length}00", data_out=data).status == 0
    assert run("010000000000").status == 0
    return run(f"0800{length}00", data_in=len(data)).data == data


@pytest.mark.parametrize("sent", [0, 20, 48, 60])
def test_cut_in_login(storage: servers.Server, sent: int) -> None:
    with log_in(storage) as witness:
        held = footprint(storage.pid)
        login = bytes(LoginRequest(immediate=1, data=b"InitiatorName=" + NAME.encode() + b"\0"))
        with socket.create_connection(storage.address, timeout=5) as connection:
            connection.sendall(login[:sent])
        assert settles(lambda: footprint(storage.pid).threads <= held.threads)
        assert settles(lambda: footprint(storage.pid).files <= held.files)
        assert witness.command(bytes(6)).status == 0
