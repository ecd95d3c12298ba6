"""Both roles back to back, without sockets: every test of one checks the other."""

from collections.abc import Iterable, Iterator

from serverfree.iscsi.framing import Receiver, padding
from serverfree.iscsi.initiator import InitiatorConnection, Request
from serverfree.iscsi.login import LOGIN_SEGMENT, InitiatorLogin, TargetLogin, TargetPolicy
from serverfree.iscsi.negotiation import Offer
from serverfree.iscsi.pdu import Buffer, LoginRequest, LoginResponse
from serverfree.iscsi.target import OFFER, Event, TargetConnection

INITIATOR = "iqn.2026-11.com.example:initiator"
TARGET = "iqn.2026-11.com.example:storage"
_ISID = b"\x80\x00\x00\x00\x00\x01"


def feed(receiver: Receiver, data: Iterable[Buffer], step: int = 1 << 30) -> Iterator[None]:
    """Give a receiver these bytes, at most `step` at a time; yield after each piece."""
    stream = b"".join(data)
    while stream:
        piece, stream = stream[:step], stream[step:]
        while piece:
            taken = 0
            for buffer in receiver.buffers():
                part = piece[taken : taken + len(buffer)]
                buffer[: len(part)] = part
                taken += len(part)
            assert taken, "the receiver has no room left"
            receiver.received(taken)
            piece = piece[taken:]
            yield


class ConnectionPair:
    """An initiator core and a target core that have logged in to each other.

    `to_target` and `to_initiator` carry what each has to say; `step` cuts the stream into pieces
    of at most that many bytes, as TCP may.
    """

    def __init__(
        self,
        initiator_offer: Offer | None = None,
        target_offer: Offer = OFFER,
        step: int = 1 << 30,
    ) -> None:
        self.step = step
        policy = TargetPolicy(find=lambda login, name: "", establish=lambda login: 1)
        policy.offer = target_offer
        target_login = TargetLogin(policy)
        initiator_login = InitiatorLogin(INITIATOR, TARGET, isid=_ISID, offer=initiator_offer)
        request: LoginRequest | None = initiator_login.start()
        while request is not None:
            response = target_login.receive(LoginRequest.unpack(request.pack(), request.data))
            request = initiator_login.receive(LoginResponse.unpack(response.pack(), response.data))
        assert target_login.complete
        self.initiator_receiver = Receiver(LOGIN_SEGMENT)
        self.target_receiver = Receiver(LOGIN_SEGMENT)
        self.initiator = InitiatorConnection(self.initiator_receiver, initiator_login)
        self.target = TargetConnection(
            self.target_receiver,
            target_login.parameters,
            target_login.cmd_sn,
            target_login.stat_sn,
        )

    def to_target(self, raw: Buffer | None = None) -> Iterator[Event]:
        """Carry what the initiator has to send, or `raw` in its place; yield what it means."""
        while data := self.initiator.take_output() if raw is None else [raw]:
            for _ in feed(self.target_receiver, data, self.step):
                yield from self.target.events()
            if raw is not None:
                return

    def to_initiator(self) -> list[Request]:
        """Carry what the target has to send; return the requests that ended with it."""
        ended: list[Request] = []
        output, self.target.output = self.target.output, []
        for _ in feed(self.initiator_receiver, output, self.step):
            ended += self.initiator.process()
        return ended


def wire(header: bytes, data: Buffer = b"") -> bytes:
    """Return a PDU as it goes over the wire."""
    return header + bytes(data) + padding(len(data))
