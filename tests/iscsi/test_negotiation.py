import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.iscsi.codes import LoginStatus, Stage
from serverfree.iscsi.errors import LoginFailure, ProtocolError
from serverfree.iscsi.negotiation import KEYS, Kind, Negotiation, Offer, Parameters, Role

OPERATIONAL = Stage.OPERATIONAL

# RFC 7143 section 13, written down once more by hand: default as the RFC states it.
RFC_DEFAULTS = {
    "HeaderDigest": "None",
    "DataDigest": "None",
    "MaxConnections": 1,
    "InitialR2T": True,
    "ImmediateData": True,
    "MaxRecvDataSegmentLength": 8192,
    "MaxBurstLength": 262144,
    "FirstBurstLength": 65536,
    "DefaultTime2Wait": 2,
    "DefaultTime2Retain": 20,
    "MaxOutstandingR2T": 1,
    "DataPDUInOrder": True,
    "DataSequenceInOrder": True,
    "ErrorRecoveryLevel": 0,
    "TaskReporting": "RFC3720",
    "iSCSIProtocolLevel": 1,
}


@pytest.mark.parametrize(("name", "default"), RFC_DEFAULTS.items())
def test_parameters_begin_as_the_rfc_defaults(name, default):
    assert getattr(Parameters(), KEYS[name].field) == default


def target(offer=None, **more):
    return Negotiation(Role.TARGET, offer or Offer(), **more)


def initiator(offer=None, **more):
    return Negotiation(Role.INITIATOR, offer or Offer(), **more)


def answer(negotiation, *pairs):
    return negotiation.receive(pairs, OPERATIONAL)


@pytest.mark.parametrize(
    ("key", "offered", "ours", "outcome"),
    [
        ("InitialR2T", "Yes", False, "Yes"),
        ("InitialR2T", "No", True, "Yes"),
        ("InitialR2T", "No", False, "No"),
        ("ImmediateData", "Yes", False, "No"),
        ("ImmediateData", "No", True, "No"),
        ("ImmediateData", "Yes", True, "Yes"),
        ("DataPDUInOrder", "No", True, "Yes"),
        ("MaxBurstLength", "16776192", 262144, "262144"),
        ("MaxBurstLength", "0x1000", 262144, "4096"),
        ("FirstBurstLength", "262144", 65536, "65536"),
        ("MaxOutstandingR2T", "16", 4, "4"),
        ("DefaultTime2Wait", "0", 2, "2"),
        ("DefaultTime2Wait", "10", 2, "10"),
        ("DefaultTime2Retain", "20", 0, "0"),
        ("ErrorRecoveryLevel", "2", 0, "0"),
        ("MaxConnections", "8", 1, "1"),
    ],
)
def test_result_functions(key, offered, ours, outcome):
    negotiation = target(Offer(**{KEYS[key].field: ours}))
    assert answer(negotiation, (key, offered)) == [(key, outcome)]


@pytest.mark.parametrize(
    ("key", "offered"),
    [
        ("MaxBurstLength", "511"),
        ("MaxBurstLength", "16777216"),
        ("MaxOutstandingR2T", "0"),
        ("ErrorRecoveryLevel", "3"),
        ("DefaultTime2Wait", "3601"),
        ("InitialR2T", "Maybe"),
        ("MaxConnections", "many"),
        ("HeaderDigest", "CRC32C"),
        ("IFMarker", "Yes"),
        ("OFMarker", "No"),
        ("IFMarkInt", "2048~8192"),
    ],
)
def test_what_cannot_be_agreed_on_is_rejected_and_keeps_its_default(key, offered):
    negotiation = target()
    assert answer(negotiation, (key, offered)) == [(key, "Reject")]
    assert negotiation.finish() == Parameters()


def test_first_acceptable_value_of_a_list_is_chosen():
    assert answer(target(), ("HeaderDigest", "CRC32C,None")) == [("HeaderDigest", "None")]
    both = Offer(data_digest=("None", "CRC32C"))
    # The offerer's order counts, not ours.
    assert answer(target(both), ("DataDigest", "CRC32C,None")) == [("DataDigest", "CRC32C")]


def test_unknown_keys_are_not_understood():
    pairs = [("X-com.example.fast", "1"), ("X#NodeArchitecture", "x86"), ("Nonsense", "Yes")]
    assert answer(target(), *pairs) == [(key, "NotUnderstood") for key, _ in pairs]


def test_receive_length_is_declared_not_negotiated():
    negotiation = target()
    assert answer(negotiation, ("MaxRecvDataSegmentLength", "262144")) == []
    assert negotiation.finish().max_send_data_segment_length == 262144
    assert negotiation.finish().max_recv_data_segment_length == 8192  # we have declared nothing
    assert negotiation.declare_receive_length() == [("MaxRecvDataSegmentLength", "1048576")]
    assert negotiation.finish().max_recv_data_segment_length == 1048576


@pytest.mark.parametrize("value", ["511", "16777216", "big"])
def test_impossible_receive_length_ends_the_login(value):
    with pytest.raises(LoginFailure) as caught:
        answer(target(), ("MaxRecvDataSegmentLength", value))
    assert caught.value.status is LoginStatus.INITIATOR_ERROR


def test_a_key_negotiated_twice_ends_the_login():
    negotiation = target()
    answer(negotiation, ("MaxBurstLength", "8192"))
    with pytest.raises(LoginFailure):
        answer(negotiation, ("MaxBurstLength", "8192"))


def test_target_keys_from_an_initiator_end_the_login():
    with pytest.raises(LoginFailure):
        answer(target(), ("TargetPortalGroupTag", "1"))


def test_in_discovery_what_has_no_meaning_is_irrelevant():
    negotiation = target(discovery=True)
    assert answer(negotiation, ("MaxBurstLength", "8192"), ("DefaultTime2Wait", "2")) == [
        ("MaxBurstLength", "Irrelevant"),
        ("DefaultTime2Wait", "2"),
    ]


def test_operational_keys_in_the_security_stage_are_rejected():
    pairs = [("InitialR2T", "No")]
    assert target().receive(pairs, Stage.SECURITY) == [("InitialR2T", "Reject")]


def test_in_full_feature_phase_only_any_time_keys_can_change():
    negotiation = target()
    pairs = [("MaxRecvDataSegmentLength", "4096"), ("ImmediateData", "No")]
    assert negotiation.receive(pairs, Stage.FULL_FEATURE) == [("ImmediateData", "Reject")]
    assert negotiation.parameters.max_send_data_segment_length == 4096


def test_session_wide_keys_belong_to_the_leading_connection():
    with pytest.raises(LoginFailure):
        answer(target(leading=False), ("MaxBurstLength", "8192"))
    assert "MaxBurstLength" not in dict(initiator(leading=False).propose())


def test_first_burst_never_exceeds_max_burst():
    negotiation = target()
    answer(negotiation, ("MaxBurstLength", "4096"))  # FirstBurstLength stays at its default
    assert negotiation.finish().first_burst_length == 4096


@pytest.mark.parametrize(
    ("key", "ours", "answered"),
    [
        ("MaxBurstLength", 8192, "8193"),  # more than offered
        ("MaxBurstLength", 8192, "100"),  # out of range
        ("InitialR2T", True, "No"),
        ("ImmediateData", False, "Yes"),
        ("DefaultTime2Wait", 5, "4"),
        ("DefaultTime2Retain", 0, "1"),
        ("HeaderDigest", ("None",), "CRC32C"),
        ("ErrorRecoveryLevel", 0, "1"),
        ("MaxOutstandingR2T", 4, "x"),
    ],
)
def test_an_answer_that_the_offer_does_not_allow_ends_the_connection(key, ours, answered):
    negotiation = initiator(Offer(**{KEYS[key].field: ours}))
    negotiation.propose()
    with pytest.raises(ProtocolError):
        negotiation.receive([(key, answered)], OPERATIONAL)


@pytest.mark.parametrize("reserved", ["Reject", "Irrelevant", "NotUnderstood"])
def test_an_offer_refused_keeps_its_default(reserved):
    negotiation = initiator()
    negotiation.propose()
    assert negotiation.receive([("MaxBurstLength", reserved)], OPERATIONAL) == []
    assert negotiation.finish().max_burst_length == 262144


def test_an_initiator_answers_what_a_target_brings_up():
    negotiation = initiator()
    negotiation.propose()
    pairs = [("TaskReporting", "FastAbort,RFC3720"), ("X-foo", "1"), ("TargetAlias", "a")]
    assert negotiation.receive(pairs, OPERATIONAL) == [
        ("TaskReporting", "RFC3720"),
        ("X-foo", "NotUnderstood"),
    ]


_LENGTH = st.integers(512, (1 << 24) - 1)
_OFFERS = st.builds(
    Offer,
    max_recv_data_segment_length=_LENGTH,
    max_burst_length=_LENGTH,
    first_burst_length=_LENGTH,
    initial_r2t=st.booleans(),
    immediate_data=st.booleans(),
    max_outstanding_r2t=st.integers(1, 65535),
    max_connections=st.integers(1, 65535),
    error_recovery_level=st.integers(0, 2),
    data_pdu_in_order=st.booleans(),
    data_sequence_in_order=st.booleans(),
    default_time2wait=st.integers(0, 3600),
    default_time2retain=st.integers(0, 3600),
)


@settings(max_examples=60)
@given(_OFFERS, _OFFERS)
def test_both_sides_come_to_the_same_parameters(ours, theirs):
    one, other = initiator(ours), target(theirs)
    proposal = one.propose()
    answers = other.declare_receive_length() + other.receive(proposal, OPERATIONAL)
    assert one.receive(answers, OPERATIONAL) == []
    left, right = one.finish(), other.finish()
    assert left.max_send_data_segment_length == right.max_recv_data_segment_length
    assert left.max_recv_data_segment_length == right.max_send_data_segment_length
    for key in KEYS.values():
        if key.kind in (Kind.AND, Kind.OR, Kind.MINIMUM, Kind.MAXIMUM, Kind.LIST):
            assert getattr(left, key.field) == getattr(right, key.field), key.name
    assert left.first_burst_length <= left.max_burst_length
