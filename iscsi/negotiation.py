"""What two iSCSI nodes agree on: every key of RFC 7143 section 13 as one row, and the rules of 6.2.

The table says of a key what kind it is, its default and range, when it may be sent and in which
sessions it has a meaning. `Negotiation` walks the table for either role; the one key it knows by
name is MaxRecvDataSegmentLength, which both sides declare and each keeps twice: ours and theirs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, Flag, auto

from serverfree.iscsi.codes import LoginStatus, Stage
from serverfree.iscsi.errors import LoginFailure, ProtocolError
from serverfree.iscsi.text import (
    IRRELEVANT,
    NOT_UNDERSTOOD,
    REJECT,
    RESERVED_VALUES,
    Pair,
    format_boolean,
    parse_boolean,
    parse_number,
)

_MAX_LENGTH = (1 << 24) - 1
_KIB = 1024


class Role(Enum):
    INITIATOR = auto()
    TARGET = auto()


class Kind(Enum):
    """How a key comes to its value (6.2.1, 6.2.2)."""

    DECLARED = auto()  # one side says it, nothing is answered
    LIST = auto()  # the offerer's values in its order of preference; the first that the other takes
    AND = auto()
    OR = auto()
    MINIMUM = auto()
    MAXIMUM = auto()
    OBSOLETE = auto()  # 13.25: refused whatever is offered


RESULT: dict[Kind, Callable[[int, int], int]] = {
    Kind.AND: lambda offered, ours: offered and ours,
    Kind.OR: lambda offered, ours: offered or ours,
    Kind.MINIMUM: min,
    Kind.MAXIMUM: max,
}


class When(Flag):
    """The "Use" of a key in section 13."""

    SECURITY = auto()
    OPERATIONAL = auto()
    FULL_FEATURE = auto()
    LOGIN = SECURITY | OPERATIONAL
    ANY = LOGIN | FULL_FEATURE


_WHEN = {
    Stage.SECURITY: When.SECURITY,
    Stage.OPERATIONAL: When.OPERATIONAL,
    Stage.FULL_FEATURE: When.FULL_FEATURE,
}


@dataclass(frozen=True, slots=True)
class Key:
    """One row. `field` names the attribute of `Offer` (our wish) and `Parameters` (the outcome).

    `low` and `high` bound a number. `leading_only`: session-wide, so only the first connection may
    settle it (LO). `discovery` False: irrelevant in a discovery session.
    """

    name: str
    kind: Kind
    field: str = ""
    low: int = 0
    high: int = 0
    when: When = When.OPERATIONAL
    leading_only: bool = False
    discovery: bool = True
    sender: Role | None = None  # None: either side


def _session(name: str, kind: Kind, field: str, low: int = 0, high: int = 0) -> Key:
    """A key that the leading connection settles and that has no meaning in discovery (LO)."""
    return Key(name, kind, field, low, high, leading_only=True, discovery=False)


KEYS: dict[str, Key] = {
    key.name: key
    for key in (
        # Section 12 and the declarations that a login begins with.
        Key("AuthMethod", Kind.LIST, "auth_method", when=When.SECURITY),
        Key("InitiatorName", Kind.DECLARED, when=When.LOGIN, sender=Role.INITIATOR),
        Key("InitiatorAlias", Kind.DECLARED, when=When.ANY, sender=Role.INITIATOR),
        Key("TargetName", Kind.DECLARED, when=When.LOGIN, sender=Role.INITIATOR),
        Key("SessionType", Kind.DECLARED, when=When.LOGIN, sender=Role.INITIATOR),
        Key("TargetAlias", Kind.DECLARED, when=When.ANY, sender=Role.TARGET),
        Key("TargetAddress", Kind.DECLARED, when=When.ANY, sender=Role.TARGET),
        Key("TargetPortalGroupTag", Kind.DECLARED, when=When.LOGIN, sender=Role.TARGET),
        # 13.1
        Key("HeaderDigest", Kind.LIST, "header_digest"),
        Key("DataDigest", Kind.LIST, "data_digest"),
        # 13.2, 13.10-13.20
        _session("MaxConnections", Kind.MINIMUM, "max_connections", 1, 65535),
        _session("InitialR2T", Kind.OR, "initial_r2t"),
        _session("ImmediateData", Kind.AND, "immediate_data"),
        _session("MaxBurstLength", Kind.MINIMUM, "max_burst_length", 512, _MAX_LENGTH),
        _session("FirstBurstLength", Kind.MINIMUM, "first_burst_length", 512, _MAX_LENGTH),
        _session("MaxOutstandingR2T", Kind.MINIMUM, "max_outstanding_r2t", 1, 65535),
        _session("DataPDUInOrder", Kind.OR, "data_pdu_in_order"),
        _session("DataSequenceInOrder", Kind.OR, "data_sequence_in_order"),
        Key(
            "MaxRecvDataSegmentLength",
            Kind.DECLARED,
            "max_send_data_segment_length",
            512,
            _MAX_LENGTH,
            when=When.ANY,
        ),
        Key("DefaultTime2Wait", Kind.MAXIMUM, "default_time2wait", 0, 3600, leading_only=True),
        Key("DefaultTime2Retain", Kind.MINIMUM, "default_time2retain", 0, 3600, leading_only=True),
        Key("ErrorRecoveryLevel", Kind.MINIMUM, "error_recovery_level", 0, 2, leading_only=True),
        # 13.23, 13.24
        Key("TaskReporting", Kind.LIST, "task_reporting", leading_only=True, discovery=False),
        Key("iSCSIProtocolLevel", Kind.MINIMUM, "protocol_level", 0, 31, leading_only=True),
        # 13.25: SHOULD be answered Reject, never NotUnderstood.
        Key("IFMarker", Kind.OBSOLETE),
        Key("OFMarker", Kind.OBSOLETE),
        Key("IFMarkInt", Kind.OBSOLETE),
        Key("OFMarkInt", Kind.OBSOLETE),
    )
}

# What the initiator puts forward, in this order; the rest keeps its default unless a target asks.
PROPOSED = (
    "HeaderDigest",
    "DataDigest",
    "MaxRecvDataSegmentLength",
    "InitialR2T",
    "ImmediateData",
    "MaxBurstLength",
    "FirstBurstLength",
    "MaxOutstandingR2T",
    "MaxConnections",
    "DataPDUInOrder",
    "DataSequenceInOrder",
    "DefaultTime2Wait",
    "DefaultTime2Retain",
    "ErrorRecoveryLevel",
)


@dataclass(slots=True)
class Parameters:
    """What holds on one connection; it begins as the defaults of section 13.

    Lengths in bytes, times in seconds. `max_recv_data_segment_length` is what we take,
    `max_send_data_segment_length` what the peer declared it takes.
    """

    max_recv_data_segment_length: int = 8192
    max_send_data_segment_length: int = 8192
    max_burst_length: int = 262144
    first_burst_length: int = 65536
    initial_r2t: bool = True
    immediate_data: bool = True
    max_outstanding_r2t: int = 1
    max_connections: int = 1
    error_recovery_level: int = 0
    data_pdu_in_order: bool = True
    data_sequence_in_order: bool = True
    default_time2wait: int = 2
    default_time2retain: int = 20
    header_digest: str = "None"
    data_digest: str = "None"
    auth_method: str = "None"
    task_reporting: str = "RFC3720"
    protocol_level: int = 1


@dataclass(frozen=True, slots=True)
class Offer:
    """What one side wishes: values it proposes, and bounds for what the other proposes.

    The lengths are large because each PDU costs Python far more than each byte.
    """

    max_recv_data_segment_length: int = 1024 * _KIB
    max_burst_length: int = 8192 * _KIB
    first_burst_length: int = 1024 * _KIB
    initial_r2t: bool = False
    immediate_data: bool = True
    max_outstanding_r2t: int = 8
    max_connections: int = 1
    error_recovery_level: int = 0
    data_pdu_in_order: bool = True
    data_sequence_in_order: bool = True
    default_time2wait: int = 2
    default_time2retain: int = 0
    header_digest: tuple[str, ...] = ("None",)
    data_digest: tuple[str, ...] = ("None",)
    auth_method: tuple[str, ...] = ("None",)
    task_reporting: tuple[str, ...] = ("RFC3720",)
    protocol_level: int = 1


@dataclass(slots=True)
class Negotiation:
    """The rules of 6.2 for one side of one login (or of one text exchange later on).

    `parameters` is the outcome as far as it stands. Breaches raise LoginFailure with INITIATOR
    ERROR at the target, ProtocolError at the initiator (6.3: login reject; drop the connection).
    """

    role: Role
    offer: Offer = field(default_factory=Offer)
    discovery: bool = False
    leading: bool = True
    parameters: Parameters = field(default_factory=Parameters)
    declared: dict[str, str] = field(default_factory=dict)  # the peer's declarations, as sent
    _proposed: dict[str, str] = field(default_factory=dict)
    _received: set[str] = field(default_factory=set)

    def propose(self, names: Iterable[str] = PROPOSED) -> list[Pair]:
        """Return our offers (and our receive length) and remember that answers are due."""
        pairs = []
        for name in names:
            key = KEYS[name]
            if (self.discovery and not key.discovery) or (key.leading_only and not self.leading):
                continue
            value = self._wish(key)
            pairs.append((name, value))
            if key.kind is Kind.DECLARED:
                self.parameters.max_recv_data_segment_length = int(value)
            else:
                self._proposed[name] = value
        return pairs

    def declare_receive_length(self) -> list[Pair]:
        """Return our MaxRecvDataSegmentLength, which holds from the end of this stage on."""
        return self.propose(("MaxRecvDataSegmentLength",))

    def receive(self, pairs: Iterable[Pair], stage: Stage) -> list[Pair]:
        """Take the peer's pairs, answers to our offers or offers of its own; return our answers."""
        answers = []
        for name, value in pairs:
            if name in self._received:
                raise self._breach(f"{name} is negotiated twice")  # 6.3
            self._received.add(name)
            if name in self._proposed:
                self._take_answer(KEYS[name], self._proposed.pop(name), value)
            else:
                answer = self._take_offer(name, value, stage)
                if answer is not None:
                    answers.append((name, answer))
        return answers

    def settled(self, name: str) -> bool:
        """Whether a key that we proposed has been answered."""
        return name in self._received and name not in self._proposed

    def finish(self) -> Parameters:
        """Return the outcome. An offer left unanswered keeps its default."""
        outcome = self.parameters
        # 13.14: FirstBurstLength MUST NOT exceed MaxBurstLength, which a default may.
        outcome.first_burst_length = min(outcome.first_burst_length, outcome.max_burst_length)
        return outcome

    def _wish(self, key: Key) -> str:
        if key.name == "MaxRecvDataSegmentLength":
            return str(self.offer.max_recv_data_segment_length)
        wish = getattr(self.offer, key.field)
        if key.kind is Kind.LIST:
            return ",".join(wish)
        return format_boolean(wish) if key.kind in (Kind.AND, Kind.OR) else str(wish)

    def _take_offer(self, name: str, value: str, stage: Stage) -> str | None:
        """Return the answer to a key that the peer brought up, None if it takes none."""
        key = KEYS.get(name)
        if key is None:
            return None if value in RESERVED_VALUES else NOT_UNDERSTOOD  # X- keys too
        if key.sender is self.role:
            raise self._breach(f"{name} is not for the {self._peer} to send")
        if value in RESERVED_VALUES and key.kind is not Kind.DECLARED:
            raise self._breach(f"{name}={value} answers what was never offered")
        if not key.when & _WHEN[stage]:
            if stage is Stage.FULL_FEATURE:
                return REJECT
            # 13: a key of the wrong stage is an error of the peer, but one it can live with.
            return None if key.kind is Kind.DECLARED else REJECT
        if key.kind is Kind.DECLARED:
            return self._take_declaration(key, value)
        if key.leading_only and not self.leading:
            raise self._breach(f"{name} on a connection that is not the leading one")
        if self.discovery and not key.discovery:
            return IRRELEVANT
        return self._choose(key, value)

    def _take_declaration(self, key: Key, value: str) -> str | None:
        self.declared[key.name] = value
        if not key.field:
            return None
        number = parse_number(value)
        if number is None or not key.low <= number <= key.high:
            raise self._breach(f"{key.name}={value[:40]} is out of range")
        setattr(self.parameters, key.field, number)
        return None

    def _choose(self, key: Key, value: str) -> str:
        """Settle an offer by its kind's rule; what is not of that kind is refused (6.2)."""
        if key.kind is Kind.OBSOLETE:
            return REJECT
        if key.kind is Kind.LIST:
            ours = getattr(self.offer, key.field)
            chosen = next((item for item in value.split(",") if item in ours), None)
            if chosen is None:
                return REJECT
            setattr(self.parameters, key.field, chosen)
            return chosen
        offered = _parse(key, value)
        if offered is None:
            return REJECT
        outcome = RESULT[key.kind](offered, getattr(self.offer, key.field))
        setattr(self.parameters, key.field, outcome)
        return _format(key, outcome)

    def _take_answer(self, key: Key, offered: str, value: str) -> None:
        """Hold the peer's answer against our offer (6.2.1, 6.2.2)."""
        if value in RESERVED_VALUES:
            if key.kind is Kind.LIST and "None" not in offered.split(","):
                raise self._breach(f"{key.name}={offered} was answered {value}")
            return  # the default stays
        if key.kind is Kind.LIST:
            if value not in offered.split(","):
                raise self._breach(f"{key.name}={value[:40]} was not offered")
            setattr(self.parameters, key.field, value)
            return
        answered, ours = _parse(key, value), _parse(key, offered)
        # The responder gives the outcome, so our rule applied to it must not change it.
        if answered is None or ours is None or RESULT[key.kind](answered, ours) != answered:
            raise self._breach(f"{key.name}={value[:40]} is no answer to {offered}")
        setattr(self.parameters, key.field, answered)

    @property
    def _peer(self) -> str:
        return "initiator" if self.role is Role.TARGET else "target"

    def _breach(self, why: str) -> ProtocolError:
        if self.role is Role.TARGET:
            return LoginFailure(LoginStatus.INITIATOR_ERROR, why)
        return ProtocolError(why)


def _parse(key: Key, value: str) -> int | None:
    if key.kind in (Kind.AND, Kind.OR):
        return parse_boolean(value)
    number = parse_number(value)
    return number if number is not None and key.low <= number <= key.high else None


def _format(key: Key, outcome: int) -> str:
    return format_boolean(bool(outcome)) if key.kind in (Kind.AND, Kind.OR) else str(outcome)
