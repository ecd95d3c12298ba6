"""A target that is sent broken PDUs by one initiator goes on serving another.

scapy builds valid PDUs of every kind, leaves some fields to `fuzz` and breaks some bytes. Meanwhile
a second session writes and verifies a disk of its own. The seed is fixed, so a failure comes again.
"""

import random
import select
import socket
import struct
from collections.abc import Iterator

import pytest
from scapy.packet import fuzz

from support import servers
from support.process import footprint, settles
from support.scapy_iscsi import (
    DataOut,
    LoginRequest,
    LogoutRequest,
    NopOut,
    Pdu,
    ScsiCommand,
    SnackRequest,
    TaskManagement,
    TextRequest,
)
from support.verifier import Verifier
from support.wire import ConnectionGone, WireClient

pytestmark = pytest.mark.served

MiB = 1 << 20
ATTACKED, VERIFIED = 0, 1
# Resets of the whole target end the other session by right (RFC 7143 11.5.1).
TARGET_RESETS = (6, 7)
SEED = 7143
OTHERS = (SnackRequest, LoginRequest)
CDBS = [
    bytes.fromhex(text)
    for text in (
        "000000000000",
        "1200000060000000",
        "12018300ff00",
        "25000000000000000000",
        "28000000000000000800",
        "2a000000000000000800",
        "35000000000000000000",
        "42000000000000001800",
        "5a003f000000000ff000",
        "8300000000000000000000000010 0000",
        "8403000000000000000000000400 0000",
        "88000000000000000000000000080000",
        "8a000000000000000000000000080000",
        "93000000000000000000000000080000",
        "9e100000000000000000000000200000",
        "a0000000000000001000",
        "a30c00000000000010000000",
    )
]
LOGIN_TEXT = (
    b"InitiatorName=iqn.2026-11.com.example:fuzz\0SessionType=Normal\0TargetName=%s\0"
    b"HeaderDigest=None\0DataDigest=None\0MaxRecvDataSegmentLength=8192\0"
)


class Attacker:
    """Makes mutated PDUs from a seeded generator and sends them over many connections."""

    def __init__(self, address: tuple[str, int], target_name: str, seed: int) -> None:
        self.address = address
        self.target_name = target_name
        self.random = random.Random(seed)
        # scapy's own fuzz draws from the module's generator.
        random.seed(seed)
        self.sent = 0
        self.connections = 0
        self.refused_logins = 0

    def attack(self, count: int) -> None:
        """Send `count` mutated PDUs."""
        while self.sent < count:
            self.connections += 1
            if self.random.random() < 0.2:
                self._attack_login()
            else:
                self._attack_session(min(self.random.randint(1, 40), count - self.sent))

    def _attack_login(self) -> None:
        with socket.create_connection(self.address, timeout=5) as connection:
            for _ in range(self.random.randint(1, 3)):
                text = self._broken(LOGIN_TEXT % self.target_name.encode())
                login = LoginRequest(immediate=1, lun=self.random.getrandbits(64), data=text)
                if not self._send(connection, self._mutated(login)):
                    break
            self._leave(connection)

    def _attack_session(self, count: int) -> None:
        try:
            client = WireClient(self.address, self.target_name, "iqn.2026-11.com.example:fuzz")
        except ConnectionGone:
            self.refused_logins += 1
            return
        with client:
            for _ in range(count):
                if not self._send(client.socket, self._mutated(self._valid(client))):
                    break
            self._leave(client.socket)

    def _valid(self, client: WireClient) -> Pdu:
        """Return a PDU that the session would accept as it stands."""
        draw = self.random
        client.tag += 1
        common = {"initiator_task_tag": client.tag, "lun": ATTACKED << 48}
        kind = draw.choices(
            [ScsiCommand, NopOut, TaskManagement, TextRequest, DataOut, LogoutRequest, *OTHERS],
            weights=[60, 8, 8, 6, 10, 3, 3, 2],
        )[0]
        if kind in (DataOut, SnackRequest):
            return kind(**common, data=draw.randbytes(draw.choice((0, 3, 512, 8192))))
        if kind is ScsiCommand:
            cdb = draw.choice(CDBS)
            out = draw.randbytes(draw.choice((0, 0, 16, 512, 4096)))
            common |= {
                "flags": 0x81 | (0x20 if out else 0x40),
                "cdb": cdb.ljust(16, b"\0"),
                "data": out,
                "expected_data_transfer_length": len(out) or draw.choice((0, 36, 4096)),
            }
        if kind is TextRequest:
            common["data"] = b"SendTargets=All\0"
        pdu = kind(**common, cmd_sn=client.cmd_sn, exp_stat_sn=client.exp_stat_sn)
        client.cmd_sn = client.cmd_sn + 1 & 0xFFFFFFFF
        return pdu

    def _mutated(self, pdu: Pdu) -> bytes:
        """Return the PDU with some fields fuzzed or some bytes broken, never harmless by luck."""
        draw = self.random
        original = bytes(pdu)
        while True:
            if draw.random() < 0.2:
                kept = {name: value for name, value in pdu.fields.items() if draw.random() < 0.6}
                mutated = bytes(fuzz(type(pdu)(**kept)))[: 64 * 1024]
            else:
                mutated = self._broken(original, limit=48 + 24)
            if draw.random() < 0.05:
                mutated = mutated[: draw.randrange(1, len(mutated) + 1)]
            if mutated != original and self._fair(mutated):
                return mutated

    def _broken(self, data: bytes, limit: int = 1 << 20) -> bytes:
        """Return the data with one to four of its first `limit` bytes changed."""
        broken = bytearray(data)
        for _ in range(self.random.choice((1, 1, 2, 4))):
            place = self.random.randrange(min(len(broken), limit))
            broken[place] = self.random.choice((0, 0xFF, self.random.getrandbits(8)))
        return bytes(broken)

    @staticmethod
    def _fair(data: bytes) -> bool:
        """Return whether a target that obeys this leaves the other session's disk alone."""
        if len(data) < 16:
            return True
        (lun,) = struct.unpack_from(">H", data, 8)
        reset = data[0] & 0x3F == 0x02 and data[1] & 0x7F in TARGET_RESETS
        return lun & 0x3FFF != VERIFIED and not reset

    def _send(self, connection: socket.socket, data: bytes) -> bool:
        """Send, taking answers as they come; return whether the target still listens."""
        connection.settimeout(5)
        try:
            connection.sendall(data)
            self.sent += 1
            # A target that is not read from may stop reading: that is its right, not a fault.
            while select.select([connection], [], [], 0)[0]:
                if not connection.recv(1 << 18):
                    return False
        except OSError:
            return False
        return True

    def _leave(self, connection: socket.socket) -> None:
        """Leave at once, in one case of three with a reset instead of a FIN."""
        if self.random.random() < 0.33:
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@pytest.fixture
def storage(tmp_path) -> Iterator[servers.Server]:
    with servers.target(
        *("--disk", f"attacked={tmp_path / 'attacked.img'},size=64MiB"),
        *("--disk", f"verified={tmp_path / 'verified.img'},size=64MiB"),
        *("--tape", f"tape={tmp_path / 'tape'},capacity=64MiB"),
    ) as server:
        yield server


def survive(storage: servers.Server, count: int, seed: int) -> None:
    """Attack with `count` PDUs and hold the target to what it promises."""
    name = storage["attacked"].target_name
    Attacker(storage.address, name, seed).attack(100)
    assert settles(lambda: footprint(storage.pid).threads <= 64)
    before = footprint(storage.pid)
    verifier = Verifier(storage.address, name, VERIFIED)
    verifier.start()
    attacker = Attacker(storage.address, name, seed + 1)
    attacker.attack(count)
    verifier.done.set()
    verifier.join(30)

    assert not verifier.is_alive(), "the other session hangs"
    assert verifier.failure is None, storage.log()
    assert verifier.rounds >= 20
    assert attacker.refused_logins == 0
    assert storage.alive(), storage.log()
    # Threads and descriptors of dropped connections are gone once the target has noticed.
    assert settles(lambda: footprint(storage.pid).threads <= before.threads + 1), storage.log()
    assert settles(lambda: footprint(storage.pid).files <= before.files + 1)
    assert footprint(storage.pid).memory <= before.memory + 48 * MiB
    assert "Traceback" not in storage.log()


@pytest.mark.timeout(300)
def test_twenty_thousand_mutated_pdus_disturb_no_one_else(storage):
    survive(storage, 20_000, SEED)


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_four_hundred_thousand_mutated_pdus_disturb_no_one_else(storage):
    survive(storage, 400_000, SEED + 100)


def test_the_mutations_reach_every_kind_of_pdu():
    """The attack is worth something only if what it sends is varied, and repeatable."""
    draws = []
    for _ in range(2):
        attacker = Attacker(("", 0), "iqn.x:y", SEED)

        class Numbers:
            tag, cmd_sn, exp_stat_sn = 0, 1, 1

        draws.append([attacker._mutated(attacker._valid(Numbers)) for _ in range(500)])
        assert {pdu[0] & 0x3F for pdu in draws[-1]} >= {0, 1, 2, 3, 4, 5, 6, 0x10}
    assert draws[0] == draws[1]
    assert len(set(draws[0])) > 480
