"""Logins of every kind, ours against others: CHAP algorithm x direction x digests x MaxConnections.

Each login that succeeds carries data that is compared, so that a digest computed wrongly, or not
at all, would show.
"""

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from serverfree.initiator.discovery import discover
from serverfree.initiator.disk import Disk
from serverfree.initiator.session import Session
from serverfree.iscsi.chap import OFFERED, Account, Algorithm, Credentials
from serverfree.iscsi.codes import LoginStatus
from serverfree.iscsi.errors import LoginFailure, ProtocolError
from serverfree.iscsi.names import Portal
from serverfree.iscsi.negotiation import Offer
from serverfree.target.access import AccessList, Entry
from serverfree.target.backstore.file import open_file_store
from serverfree.target.server import Server
from serverfree.target.session import Target
from serverfree.target.units.block import BlockUnit
from support import peers
from support.login_peers import ALICE, STORE, AskingTgt, Istgt
from support.servers import empty_file

pytestmark = pytest.mark.peer

MIB = 1 << 20
WRONG = Credentials("alice", b"open barley, please")
DIGESTS = list(itertools.product(["None", "CRC32C"], repeat=2))
PROOF = f"&target_user={STORE.name}&target_password={STORE.secret.decode()}"


@pytest.fixture(scope="module")
def tgt(tmp_path_factory) -> Iterator[AskingTgt]:
    with AskingTgt(empty_file(tmp_path_factory.mktemp("tgt") / "disk", 8 * MIB)) as server:
        yield server


@pytest.fixture(scope="module")
def istgt(tmp_path_factory) -> Iterator[Istgt]:
    with Istgt(empty_file(tmp_path_factory.mktemp("istgt") / "disk", 16 * MIB)) as server:
        yield server


class Ours:
    """Our target, asking the same."""

    NAME = "iqn.2026-11.com.example:asking"

    def __init__(self, path: Path) -> None:
        account = Account(ALICE, STORE)
        disk = BlockUnit("d", open_file_store(path, 8 * MIB), target=self.NAME)
        target = Target(self.NAME, [disk], access=AccessList([Entry("*", account=account)]))
        accounts = {ALICE.name: account}
        self.server = Server([target], [Portal("127.0.0.1", 0)], discovery=accounts)
        self.port = self.server.start()[0].port


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Iterator[Ours]:
    made = Ours(tmp_path_factory.mktemp("ours") / "disk")
    yield made
    made.server.stop()


def offer(header, data):
    return Offer(header_digest=(header,), data_digest=(data,))


def moves_data(session, lun):
    """Write and read back through a session, large and small."""
    disk = Disk(session.unit(lun))
    data = os.urandom(1000 * 512)
    disk.write(7, data)
    disk.write(5, data[:512])
    assert bytes(disk.read(7, 1000)) == data
    assert bytes(disk.read(5, 1)) == data[:512]
    assert disk.inquiry().vendor


@pytest.mark.parametrize(("header", "data"), DIGESTS)
@pytest.mark.parametrize("mutual", [None, STORE])
@pytest.mark.parametrize("algorithms", [[Algorithm.MD5], OFFERED], ids=["MD5", "all"])
def test_our_client_at_tgt(tgt, algorithms, mutual, header, data):
    with Session(
        "127.0.0.1", tgt.port, tgt.NAME,
        credentials=ALICE, mutual=mutual, algorithms=algorithms, offer=offer(header, data),
    ) as session:  # fmt: skip
        assert session.parameters.auth_method == "CHAP"
        assert session.parameters.header_digest == header
        assert session.parameters.data_digest == data
        moves_data(session, 1)


@pytest.mark.parametrize(("header", "data"), DIGESTS)
@pytest.mark.parametrize("mutual", [None, STORE])
def test_our_client_at_istgt(istgt, mutual, header, data):
    with Session(
        "127.0.0.1", istgt.port, istgt.NAME,
        credentials=ALICE, mutual=mutual, offer=offer(header, data),
    ) as session:  # fmt: skip
        assert session.parameters.auth_method == "CHAP"
        assert (session.parameters.header_digest, session.parameters.data_digest) == (header, data)
        moves_data(session, 0)


@pytest.mark.parametrize(("header", "data"), DIGESTS)
@pytest.mark.parametrize("mutual", [None, STORE])
@pytest.mark.parametrize("algorithm", Algorithm)
def test_our_client_at_our_target(ours, algorithm, mutual, header, data):
    with Session(
        "127.0.0.1", ours.port, ours.NAME,
        credentials=ALICE, mutual=mutual, algorithms=[algorithm], offer=offer(header, data),
    ) as session:  # fmt: skip
        assert (session.parameters.header_digest, session.parameters.data_digest) == (header, data)
        moves_data(session, 0)


@pytest.mark.parametrize(
    ("peer", "lun", "agreed"), [("tgt", 1, 1), ("istgt", 0, 4), ("ours", 0, 1)]
)
@pytest.mark.parametrize(("header", "data"), DIGESTS)
@pytest.mark.parametrize("mutual", [None, STORE])
def test_as_many_connections_as_both_can_have(request, peer, lun, agreed, mutual, header, data):
    """The least of what both say (13.2)."""
    server = request.getfixturevalue(peer)
    wish = Offer(header_digest=(header,), data_digest=(data,), max_connections=8)
    with Session(
        "127.0.0.1", server.port, server.NAME, credentials=ALICE, mutual=mutual, offer=wish
    ) as session:
        assert session.parameters.max_connections == agreed
        moves_data(session, lun)


@pytest.mark.parametrize("peer", ["tgt", "istgt", "ours"])
@pytest.mark.parametrize(
    ("credentials", "mutual"),
    [(WRONG, None), (None, None), (STORE, None), (ALICE, WRONG)],
    ids=["wrong secret", "no CHAP", "another's name", "the target is not who it should be"],
)
def test_whoever_cannot_prove_himself_stays_out(request, peer, credentials, mutual):
    server = request.getfixturevalue(peer)
    with pytest.raises(ProtocolError) as caught:
        Session("127.0.0.1", server.port, server.NAME, credentials=credentials, mutual=mutual)
    assert not any(word in str(caught.value) for word in ("sesame", "proof", "barley"))
    if isinstance(caught.value, LoginFailure):
        assert caught.value.status is LoginStatus.AUTHENTICATION_FAILURE


@pytest.mark.parametrize("peer", ["istgt", "ours"])
def test_discovery_asks_too(request, peer):
    server = request.getfixturevalue(peer)
    [found] = discover("127.0.0.1", server.port, credentials=ALICE, mutual=STORE)
    assert found.name == server.NAME
    with pytest.raises(ProtocolError):
        discover("127.0.0.1", server.port)


# ---------------------------------------------------------------------- libiscsi at our target


def libiscsi(program, url):
    peers.require(program)
    return subprocess.run([program, url], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("header", ["none", "crc32c"])
@pytest.mark.parametrize("proof", ["", PROOF], ids=["one way", "mutual"])
def test_libiscsi_at_our_target(ours, header, proof):
    who = f"{ALICE.name}%{ALICE.secret.decode()}"
    url = f"iscsi://{who}@127.0.0.1:{ours.port}/{ours.NAME}/0?header_digest={header}{proof}"
    done = libiscsi("iscsi-inq", url)
    assert done.returncode == 0, done.stderr
    assert "SRVFREE" in done.stdout


@pytest.mark.parametrize(
    "who", ["alice%open-barley-please@", "alyce%opensesame-alice@", ""], ids=lambda who: who[:5]
)
def test_libiscsi_is_told_0201(ours, who):
    done = libiscsi("iscsi-inq", f"iscsi://{who}127.0.0.1:{ours.port}/{ours.NAME}/0")
    assert done.returncode != 0
    assert "Authentication" in done.stdout + done.stderr
