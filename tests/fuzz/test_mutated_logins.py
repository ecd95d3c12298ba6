"""Broken logins at a target that asks who comes: none gets in unproved, no one else notices.

A login takes four requests here: names and AuthMethod, CHAP_A, CHAP_N with CHAP_R, then the keys of
the session. It is sent as it should be but for a few of its requests, in which keys, values, header
fields, bytes or the order are wrong. The seed is fixed.
"""

import hashlib
import os
import random
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import servers
from support.process import footprint, settles
from support.scapy_iscsi import Answer, LoginRequest, ScsiCommand
from support.verifier import Verifier
from support.wire import LOGIN_RESPONSE, WireClient

pytestmark = pytest.mark.served

MiB = 1 << 20
SEED = 3720
NAME = "iqn.2026-11.com.example:guarded"
INTRUDER = b"iqn.2026-11.com.example:intruder"
USER, SECRET = b"alice", b"opensesame-alice"

Pairs = list[tuple[bytes, bytes]]

CONFIG = f"""
[server]
discovery_account = "alice"
[account.alice]
user = "{USER.decode()}"
secret_file = "alice.secret"
target_user = "store"
target_secret_file = "store.secret"
[[target]]
iqn = "{NAME}"
[[target.access]]
initiator = "*"
account = "alice"
[[target.access]]
initiator = "iqn.2026-11.com.example:wire"
[[target.disk]]
name = "disk"
path = "disk.img"
size = "64MiB"
"""

NASTY = [
    b"",
    b"None",
    b"Yes",
    b"Reject",
    b"Irrelevant",
    b"NotUnderstood",
    b"CHAP",
    b"CHAP,None",
    b",,,,",
    b"0",
    b"-1",
    b"65536",
    b"99999999999999999999999999",
    b"0x",
    b"0xZZ",
    b"0b!!!!",
    b"0b" + b"QUJD" * 400,
    b"0x" + b"00" * 1024,
    b"0x" + b"ab" * 2000,
    b"5,6,7,8",
    b"\xff\xfe",
    b"a" * 255,
    b"a" * 256,
    b"=" * 10,
    b"iqn.2026-11.com.example:" + b"n" * 300,
]
KEYS = [
    b"InitiatorName",
    b"TargetName",
    b"SessionType",
    b"AuthMethod",
    b"CHAP_A",
    b"CHAP_N",
    b"CHAP_R",
    b"CHAP_I",
    b"CHAP_C",
    b"SRP_U",
    b"HeaderDigest",
    b"DataDigest",
    b"MaxConnections",
    b"MaxRecvDataSegmentLength",
    b"ErrorRecoveryLevel",
    b"TargetPortalGroupTag",
    b"OFMarkInt",
    b"X-com.example.key",
    b"k" * 63,
    b"k" * 64,
    b"",
]

FIELDS = [  # of a login request, with their widths in bits; what matters most comes twice
    ("flags", 8),
    ("flags", 8),
    ("lun", 64),
    ("initiator_task_tag", 32),
    ("immediate", 1),
    ("cid", 16),
    ("cmd_sn", 32),
    ("exp_stat_sn", 32),
]


class Intruder:
    """Logs in wrongly, over and over. `unproved` counts the sessions that it should not have."""

    def __init__(self, address: tuple[str, int], seed: int) -> None:
        self.address = address
        self.random = random.Random(seed)
        self.sequences = self.requests = self.answers = 0
        self.refused = self.closed = self.silent = 0
        self.proved = self.unproved = 0

    def attack(self, count: int) -> None:
        """Send `count` broken login sequences."""
        for _ in range(count):
            self.sequences += 1
            with socket.create_connection(self.address, timeout=5) as connection:
                _Sequence(self, connection).run()


class _Sequence:
    """One login, broken in one to three places."""

    def __init__(self, intruder: Intruder, connection: socket.socket) -> None:
        self.tell, self.socket = intruder, connection
        self.random = intruder.random
        self.isid = self.random.getrandbits(40)
        self.answer: dict[bytes, bytes] = {}
        self.proof = b""  # what CHAP_R has to be
        self.has_proved = False
        draw = self.random
        self.mutual = draw.random() < 0.3
        self.discovery = draw.random() < 0.2
        self.steps: list[Callable[[], tuple[Pairs, int]]] = [
            self._names,
            self._algorithms,
            self._response,
            self._parameters,
        ]
        if draw.random() < 0.25:  # in a wrong order, too often, or not at all
            draw.choice((self.steps.reverse, self._repeat, self._leave_out))()
        mutations = (self._keys, self._keys, self._header, self._bytes, self._parts, self._command)
        places = range(len(self.steps))
        self.broken = {
            place: draw.choice(mutations)
            for place in draw.choices(places, k=draw.choice((1, 1, 2, 3)))
        }

    def _repeat(self) -> None:
        self.steps.insert(self.random.randrange(4), self.random.choice(self.steps))

    def _leave_out(self) -> None:
        self.steps.pop(self.random.randrange(4))

    def run(self) -> None:
        for place, step in enumerate(self.steps):
            pairs, flags = step()
            mutate = self.broken.get(place)
            if mutate is None:
                sent = self._send(self._pdu(pairs, flags))
            else:
                sent = mutate(pairs, flags)
            if not sent or not self._receive():
                return

    # What a login is made of

    def _names(self) -> tuple[Pairs, int]:
        pairs = [
            (b"InitiatorName", INTRUDER),
            (b"SessionType", b"Discovery" if self.discovery else b"Normal"),
            (b"AuthMethod", b"CHAP,None"),
        ]
        return pairs + ([] if self.discovery else [(b"TargetName", NAME.encode())]), 0x01

    def _algorithms(self) -> tuple[Pairs, int]:
        return [(b"CHAP_A", b"5")], 0x01

    def _response(self) -> tuple[Pairs, int]:
        proof = self.proof
        if not proof or self.random.random() < 0.5:
            proof = b"0x" + self.random.randbytes(16).hex().encode()
        pairs = [(b"CHAP_N", USER), (b"CHAP_R", proof)]
        if self.mutual:
            pairs += [(b"CHAP_I", b"7"), (b"CHAP_C", b"0x" + os.urandom(16).hex().encode())]
        return pairs, 0x81

    def _parameters(self) -> tuple[Pairs, int]:
        return [
            (b"HeaderDigest", b"None"),
            (b"DataDigest", b"None"),
            (b"MaxConnections", b"8"),
            (b"MaxRecvDataSegmentLength", b"8192"),
            (b"ErrorRecoveryLevel", b"2"),
        ], 0x87

    def _pdu(self, pairs: Pairs, flags: int, /, **fields: object) -> bytes:
        text = b"".join(key + b"=" + value + b"\0" for key, value in pairs)
        given = {"immediate": 1, "flags": flags, "lun": self.isid << 16, "data": text} | fields
        return bytes(LoginRequest(**given))

    # What goes wrong

    def _keys(self, pairs: Pairs, flags: int) -> bool:
        draw = self.random
        for _ in range(draw.choice((1, 1, 2, 5))):
            at = draw.randrange(len(pairs) + 1)
            match draw.randrange(5):
                case 0:
                    pairs.insert(at, (draw.choice(KEYS), draw.choice(NASTY)))
                case 1 if at < len(pairs):
                    pairs[at] = (pairs[at][0], draw.choice(NASTY))
                case 2 if at < len(pairs):
                    pairs.insert(draw.randrange(len(pairs) + 1), pairs[at])
                case 3 if at < len(pairs):
                    del pairs[at]
                case _:
                    draw.shuffle(pairs)
        return self._send(self._pdu(pairs, flags))

    def _header(self, pairs: Pairs, flags: int) -> bool:
        draw = self.random
        field, width = draw.choice(FIELDS)
        return self._send(self._pdu(pairs, flags, **{field: draw.getrandbits(width)}))

    def _bytes(self, pairs: Pairs, flags: int) -> bool:
        broken = bytearray(self._pdu(pairs, flags))
        for _ in range(self.random.choice((1, 1, 2, 4))):
            broken[self.random.randrange(len(broken))] = self.random.getrandbits(8)
        if self.random.random() < 0.1:
            del broken[self.random.randrange(1, len(broken)) :]
        return self._send(bytes(broken))

    def _parts(self, pairs: Pairs, flags: int) -> bool:
        """In several requests (the C bit), the last of which may never come, or be far too many."""
        text = b"".join(key + b"=" + value + b"\0" for key, value in pairs)
        if self.random.random() < 0.2:
            text += b"X-com.example.long=" + b"x" * self.random.choice((7000, 100_000)) + b"\0"
        self._note(text)
        size = self.random.choice((1 + len(text) // 3, 1 + len(text) // 20))
        pieces = [text[at : at + size] for at in range(0, len(text), size)] or [b""]
        for piece in pieces[:-1]:
            if not self._send(self._pdu([], 0x40 | flags & 0x0C, data=piece[:8000])):
                return False
            if not self._receive():
                return False
        return self._send(self._pdu([], flags, data=pieces[-1][:8000]))

    def _command(self, pairs: Pairs, flags: int) -> bool:
        """A command before the login has ended."""
        write = bytes.fromhex("2a000000000000000100") + bytes(6)
        command = ScsiCommand(
            flags=0xA1, expected_data_transfer_length=512, cmd_sn=1, cdb=write, data=bytes(512)
        )
        return self._send(bytes(command))

    # What comes of it

    def _note(self, text: bytes) -> None:
        """Remember that the proof is sent; a broken byte of it may be an A for an a."""
        if self.proof and self.proof in text.lower():
            self.has_proved = True

    def _send(self, request: bytes) -> bool:
        self._note(request)
        try:
            self.socket.sendall(request)
        except OSError:
            self.tell.closed += 1
            return False
        self.tell.requests += 1
        return True

    def _receive(self) -> bool:
        """Take in the answer; tell if the login goes on."""
        tell = self.tell
        # Of a request whose length was broken the target waits for the rest: that is its right.
        patience = 5.0 if self._bytes not in self.broken.values() else 0.05
        if not select.select([self.socket], [], [], patience)[0]:
            tell.silent += 1
            return False
        answer = self._answer()
        if answer is None:
            tell.closed += 1
            return False
        tell.answers += 1
        status = answer.data_sn >> 16
        if answer.opcode != LOGIN_RESPONSE or status:
            tell.refused += 1
            return False
        if answer.flags & 0x83 == 0x83:
            if self.has_proved:
                tell.proved += 1
            else:
                tell.unproved += 1
            return False
        keys = dict(entry.partition(b"=")[::2] for entry in answer.data.split(b"\0"))
        if b"CHAP_I" in keys and b"CHAP_C" in keys:
            challenge = bytes.fromhex(keys[b"CHAP_C"][2:].decode())
            seed = bytes((int(keys[b"CHAP_I"]),)) + SECRET + challenge
            self.proof = b"0x" + hashlib.md5(seed).hexdigest().encode()
        return True

    def _answer(self) -> Answer | None:
        try:
            header = self._exactly(48)
            length = int.from_bytes(header[5:8], "big")
            return Answer(header + self._exactly(-(-length // 4) * 4)[:length])
        except (OSError, EOFError):
            return None

    def _exactly(self, length: int) -> bytes:
        received = b""
        while len(received) < length:
            piece = self.socket.recv(length - len(received))
            if not piece:
                raise EOFError
            received += piece
        return received


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[servers.Server]:
    for name, secret in (("alice", SECRET), ("store", b"the-target-proof")):
        (tmp_path / f"{name}.secret").write_bytes(secret)
        (tmp_path / f"{name}.secret").chmod(0o600)
    (tmp_path / "guarded.toml").write_text(CONFIG)
    with servers.target("--config", tmp_path / "guarded.toml") as server:
        yield server


def survive(storage: servers.Server, count: int) -> Intruder:
    """Attack with `count` logins and hold the target to what it promises."""
    Intruder(storage.address, SEED).attack(50)
    assert settles(lambda: footprint(storage.pid).threads <= 8)
    before = footprint(storage.pid)
    verifier = Verifier(storage.address, NAME, 0)
    verifier.start()
    intruder = Intruder(storage.address, SEED + 1)
    intruder.attack(count)
    verifier.done.set()
    verifier.join(30)

    assert not verifier.is_alive(), "the other session hangs"
    assert verifier.failure is None, storage.log()
    assert verifier.rounds >= 20
    assert intruder.unproved == 0
    assert intruder.silent < count / 10
    assert storage.alive(), storage.log()
    assert settles(lambda: footprint(storage.pid).threads <= before.threads + 1), storage.log()
    assert settles(lambda: footprint(storage.pid).files <= before.files + 1)
    assert footprint(storage.pid).memory <= before.memory + 16 * MiB
    assert "Traceback" not in storage.log()
    with WireClient(storage.address, NAME) as client:
        client.command(bytes(6))
        assert client.command(bytes(6)).status == 0
    return intruder


def test_broken_logins_let_nobody_in(storage):
    intruder = survive(storage, 1500)
    # They are worth something only if they get far and end in all ways.
    assert intruder.proved > 50
    assert intruder.refused > 300
    assert intruder.closed > 50
    assert intruder.requests > 2 * intruder.sequences


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_a_hundred_thousand_broken_logins_let_nobody_in(storage):
    survive(storage, 100_000)
