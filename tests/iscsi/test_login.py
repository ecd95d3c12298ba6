"""Login of both roles: back to back, and against texts written as real initiators write them."""

import pytest

from serverfree.iscsi import text
from serverfree.iscsi.codes import LoginStatus, Stage
from serverfree.iscsi.errors import LoginFailure, ProtocolError
from serverfree.iscsi.login import (
    MAX_LOGIN_PDUS,
    InitiatorLogin,
    Redirected,
    TargetLogin,
    TargetPolicy,
)
from serverfree.iscsi.names import Portal
from serverfree.iscsi.negotiation import Offer
from serverfree.iscsi.pdu import LoginRequest, LoginResponse

ISID = bytes.fromhex("800102030000")
ME = "iqn.2026-11.com.example:me"
STORAGE = "iqn.2026-11.com.example:storage"
SECURITY, OPERATIONAL, FULL = Stage.SECURITY, Stage.OPERATIONAL, Stage.FULL_FEATURE


def find(login, name):
    if name != STORAGE:
        raise LoginFailure(LoginStatus.NOT_FOUND, f"no target {name}")
    return "a store"


def make_target(establish=lambda login: 0x1234, **more):
    return TargetLogin(TargetPolicy(find, establish, **more))


def request(data=b"", *, csg=OPERATIONAL, nsg=FULL, transit=True, continued=False, **more):
    fields = {
        "isid": ISID,
        "tsih": 0,
        "initiator_task_tag": 0,
        "cid": 0,
        "cmd_sn": 1,
        "exp_stat_sn": 0,
        "current_stage": csg,
        "next_stage": nsg,
        "transit": transit,
        "continued": continued,
        "data": data,
    }
    return LoginRequest(**(fields | more))


def login_text(*lines, name=f"InitiatorName={ME}", target=f"TargetName={STORAGE}"):
    return "".join(f"{line}\0" for line in (name, target, *lines) if line).encode()


def pairs(response):
    return text.unpack(response.data)


def shake_hands(initiator, target):
    """Run a login to its end; return how many round trips it took."""
    trips = 0
    following = initiator.start()
    while following is not None:
        trips += 1
        wire = LoginRequest.unpack(following.pack(), following.data)
        response = target.receive(wire)
        following = initiator.receive(LoginResponse.unpack(response.pack(), response.data))
    return trips


# ---------------------------------------------------------------------- back to back


def test_both_roles_agree():
    initiator = InitiatorLogin(ME, STORAGE, isid=ISID, initiator_alias="host one", cmd_sn=77)
    target = make_target()
    assert shake_hands(initiator, target) == 2
    assert target.complete
    assert initiator.complete
    assert initiator.tsih == target.tsih == 0x1234
    assert initiator.target_alias == "a store"
    assert initiator.portal_group_tag == 1
    assert (target.initiator_name, target.initiator_alias) == (ME, "host one")
    assert (target.target_name, target.session_type) == (STORAGE, "Normal")
    assert (target.isid, target.cid, target.requested_tsih) == (ISID, 0, 0)
    assert target.parameters == initiator.parameters
    assert initiator.exp_stat_sn == target.stat_sn
    assert initiator.cmd_sn == target.cmd_sn == 77
    assert initiator.max_cmd_sn == 77 + 127


def test_discovery_needs_no_target_name():
    initiator = InitiatorLogin(ME, None, isid=ISID)
    target = make_target()
    shake_hands(initiator, target)
    assert target.session_type == "Discovery"
    assert target.target_name == ""
    assert initiator.portal_group_tag is None


def test_names_of_both_sides_are_normalised():
    target = make_target()
    shake_hands(InitiatorLogin(ME.upper(), STORAGE.upper(), isid=ISID), target)
    assert (target.initiator_name, target.target_name) == (ME, STORAGE)


def test_the_smaller_offer_wins_on_both_sides():
    initiator = InitiatorLogin(
        ME, STORAGE, isid=ISID, offer=Offer(max_burst_length=65536, initial_r2t=False)
    )
    target = make_target(offer=Offer(first_burst_length=4096, initial_r2t=True))
    shake_hands(initiator, target)
    for side in (initiator.parameters, target.parameters):
        assert side.max_burst_length == 65536
        assert side.first_burst_length == 4096
        assert side.initial_r2t


@pytest.mark.parametrize(
    ("wanted", "status"),
    [("iqn.2026-11.com.example:nothing", LoginStatus.NOT_FOUND)],
)
def test_a_refusal_reaches_the_initiator(wanted, status):
    target = make_target()
    with pytest.raises(LoginFailure) as caught:
        shake_hands(InitiatorLogin(ME, wanted, isid=ISID), target)
    assert caught.value.status is status
    assert target.failure is not None
    assert not target.complete


def test_a_session_that_cannot_be_established_is_refused():
    def establish(login):
        raise LoginFailure(LoginStatus.OUT_OF_RESOURCES, "full")

    with pytest.raises(LoginFailure) as caught:
        shake_hands(InitiatorLogin(ME, STORAGE, isid=ISID), make_target(establish))
    assert caught.value.status is LoginStatus.OUT_OF_RESOURCES


def test_a_long_text_is_cut_and_joined_on_both_sides():
    """2,000 unknown keys: 26 KB out, 60 KB of NotUnderstood back, all by the C bit."""
    target = make_target()
    keys = "".join(f"X-k{number:05}=1\0" for number in range(2000)).encode()
    data = login_text() + keys
    pieces = [data[at : at + 8192] for at in range(0, len(data), 8192)]
    for piece in pieces[:-1]:
        response = target.receive(request(piece, transit=False, nsg=0, continued=True))
        assert (response.transit, response.continued, response.data) == (False, False, b"")
    response = target.receive(request(pieces[-1]))
    answer = bytes(response.data)
    while response.continued:
        assert len(response.data) == 8192
        assert not response.transit
        response = target.receive(request(transit=False, nsg=0))
        answer += response.data
    assert text.unpack(answer).count(("X-k01999", "NotUnderstood")) == 1
    assert sum(value == "NotUnderstood" for _, value in text.unpack(answer)) == 2000
    assert target.receive(request()).transit
    assert target.complete


def test_an_initiator_fetches_the_rest_of_a_long_answer():
    initiator = InitiatorLogin(ME, STORAGE, isid=ISID)
    initiator.start()
    fields = {"isid": ISID, "tsih": 0, "initiator_task_tag": 0, "exp_cmd_sn": 1, "max_cmd_sn": 1}
    first = LoginResponse(
        **fields, stat_sn=5, transit=False, continued=True, current_stage=0, next_stage=0,
        data=b"TargetAli",
    )  # fmt: skip
    following = initiator.receive(first)
    assert following is not None
    assert (following.data, following.transit, following.exp_stat_sn) == (b"", False, 6)
    rest = LoginResponse(
        **fields, stat_sn=6, transit=True, continued=False, current_stage=0, next_stage=1,
        data=b"as=joined\0AuthMethod=None\0",
    )  # fmt: skip
    assert initiator.receive(rest) is not None
    last = LoginResponse(
        **(fields | {"tsih": 9}), stat_sn=7, transit=True, continued=False, current_stage=1,
        next_stage=3,
    )  # fmt: skip
    assert initiator.receive(last) is None
    assert initiator.target_alias == "joined"


# ---------------------------------------------------------------------- texts of real initiators

# The keys, values and stages as these programs send them (order included).
OPEN_ISCSI = [
    (
        SECURITY,
        OPERATIONAL,
        login_text(
            "InitiatorAlias=debian",
            "SessionType=Normal",
            "AuthMethod=None",
            name="InitiatorName=iqn.1993-08.org.debian:01:5a3ab0c1ee2",
        ),
    ),
    (
        OPERATIONAL,
        FULL,
        b"HeaderDigest=None\0DataDigest=None\0DefaultTime2Wait=2\0DefaultTime2Retain=0\0"
        b"IFMarker=No\0OFMarker=No\0ErrorRecoveryLevel=0\0InitialR2T=No\0ImmediateData=Yes\0"
        b"MaxBurstLength=16776192\0FirstBurstLength=262144\0MaxOutstandingR2T=1\0"
        b"MaxConnections=1\0DataPDUInOrder=Yes\0DataSequenceInOrder=Yes\0"
        b"MaxRecvDataSegmentLength=262144\0",
    ),
]
LIBISCSI = [
    (
        SECURITY,
        OPERATIONAL,
        login_text(
            "InitiatorAlias=qemu", "SessionType=Normal", "AuthMethod=None",
            name="InitiatorName=iqn.2008-11.org.linux-kvm:guest",
        ),
    ),
    (
        OPERATIONAL,
        FULL,
        b"HeaderDigest=None,CRC32C\0DataDigest=None\0InitialR2T=No\0ImmediateData=Yes\0"
        b"MaxBurstLength=262144\0FirstBurstLength=262144\0DefaultTime2Wait=2\0"
        b"DefaultTime2Retain=0\0MaxOutstandingR2T=1\0ErrorRecoveryLevel=0\0IFMarker=No\0"
        b"OFMarker=No\0MaxConnections=1\0MaxRecvDataSegmentLength=262144\0DataPDUInOrder=Yes\0"
        b"DataSequenceInOrder=Yes\0",
    ),
]  # fmt: skip
ONE_STEP = [  # straight into the operational stage, as firmware initiators do
    (
        OPERATIONAL,
        FULL,
        login_text("HeaderDigest=None", "MaxRecvDataSegmentLength=8192", "X-vendor.speed=7"),
    ),
]


@pytest.mark.parametrize("texts", [OPEN_ISCSI, LIBISCSI, ONE_STEP])
def test_real_initiators_log_in(texts):
    target = make_target()
    answers = []
    for csg, nsg, data in texts:
        response = target.receive(request(data, csg=csg, nsg=nsg))
        assert response.status == LoginStatus.SUCCESS
        assert response.transit
        assert response.next_stage == nsg
        answers += pairs(response)
    assert target.complete
    assert response.tsih == 0x1234
    asked = [key for key, _ in text.unpack(b"".join(data for _, _, data in texts))]
    told = dict(answers)
    assert len(told) == len(answers)
    # Everything offered is answered; what is declared is not.
    declared = {
        "InitiatorName", "TargetName", "InitiatorAlias", "SessionType", "MaxRecvDataSegmentLength",
    }  # fmt: skip
    assert {key for key in asked if key not in declared} <= told.keys()
    assert told["TargetPortalGroupTag"] == "1"
    assert told["MaxRecvDataSegmentLength"] == "1048576"
    if "IFMarker" in asked:
        assert told["IFMarker"] == told["OFMarker"] == "Reject"


def test_portal_group_tag_comes_with_the_first_response():
    response = make_target().receive(
        request(login_text("AuthMethod=CHAP,None"), csg=SECURITY, nsg=OPERATIONAL)
    )
    assert ("TargetPortalGroupTag", "1") in pairs(response)
    assert ("AuthMethod", "None") in pairs(response)


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("why", "status", "wrong"),
    [
        ("no name", LoginStatus.MISSING_PARAMETER, request(b"SessionType=Discovery\0")),
        ("no target", LoginStatus.MISSING_PARAMETER, request(login_text(target=""))),
        ("bad name", LoginStatus.INITIATOR_ERROR, request(login_text(name="InitiatorName=me"))),
        (
            "unknown target",
            LoginStatus.NOT_FOUND,
            request(login_text(target="TargetName=iqn.2026-11.com.example:x")),
        ),
        (
            "unthinkable target",
            LoginStatus.NOT_FOUND,
            request(login_text(target="TargetName=whatever")),
        ),
        (
            "session type",
            LoginStatus.SESSION_TYPE_NOT_SUPPORTED,
            request(login_text("SessionType=Boot")),
        ),
        (
            "CHAP only",
            LoginStatus.AUTHENTICATION_FAILURE,
            request(login_text("AuthMethod=CHAP"), csg=SECURITY, nsg=OPERATIONAL),
        ),
        ("version", LoginStatus.UNSUPPORTED_VERSION, request(login_text(), version_min=1)),
        ("garbage", LoginStatus.INITIATOR_ERROR, request(b"\xff\xfe\0")),
        ("stage 2", LoginStatus.INITIATOR_ERROR, request(login_text(), csg=2)),
        ("stage 3", LoginStatus.INITIATOR_ERROR, request(login_text(), csg=3)),
        ("to itself", LoginStatus.INITIATOR_ERROR, request(login_text(), nsg=1)),
        ("backwards", LoginStatus.INITIATOR_ERROR, request(login_text(), nsg=0)),
        ("to 2", LoginStatus.INITIATOR_ERROR, request(login_text(), csg=SECURITY, nsg=2)),
        ("T and C", LoginStatus.INITIATOR_ERROR, request(login_text(), continued=True)),
        (
            "key twice",
            LoginStatus.INITIATOR_ERROR,
            request(login_text("MaxConnections=1", "MaxConnections=1")),
        ),
    ],
)
def test_bad_logins_are_refused_with_their_status(why, status, wrong):
    target = make_target()
    response = target.receive(wrong)
    assert response.status == status, why
    assert not response.transit
    assert target.failure is not None
    assert not target.complete


@pytest.mark.parametrize("changed", [{"isid": bytes(6)}, {"tsih": 5}, {"cid": 1}, {"csg": 0}])
def test_a_login_keeps_its_identity_and_never_goes_back(changed):
    target = make_target()
    assert target.receive(request(login_text(), transit=False, nsg=0)).status == 0
    assert target.receive(request(**changed)).status == LoginStatus.INITIATOR_ERROR


def test_nothing_follows_a_refusal():
    target = make_target()
    target.receive(request(b""))
    assert target.receive(request(login_text())).status != LoginStatus.SUCCESS


def test_a_login_without_end_is_ended():
    target = make_target()
    statuses = [target.receive(request(login_text(), transit=False, nsg=0)).status]
    for _ in range(MAX_LOGIN_PDUS + 1):
        statuses.append(target.receive(request(transit=False, nsg=0)).status)
    assert statuses[MAX_LOGIN_PDUS - 1] == LoginStatus.SUCCESS
    assert statuses[MAX_LOGIN_PDUS] == LoginStatus.INVALID_DURING_LOGIN


def test_a_text_without_end_is_ended():
    target = make_target()
    piece = b"A" * 8192
    statuses = [
        target.receive(request(piece, transit=False, nsg=0, continued=True)).status
        for _ in range(10)
    ]
    assert statuses[0] == LoginStatus.SUCCESS
    assert statuses[-1] != LoginStatus.SUCCESS


# ---------------------------------------------------------------------- bad targets


def response(data=b"", **more):
    fields = {
        "isid": ISID,
        "tsih": 0,
        "initiator_task_tag": 0,
        "stat_sn": 1,
        "exp_cmd_sn": 1,
        "max_cmd_sn": 1,
        "transit": True,
        "continued": False,
        "current_stage": 0,
        "next_stage": 1,
        "data": data,
    }
    return LoginResponse(**(fields | more))


@pytest.mark.parametrize(
    "wrong",
    [
        {"isid": bytes(6)},
        {"initiator_task_tag": 9},
        {"version_active": 1},
        {"current_stage": 1},
        {"next_stage": 3},
        {"next_stage": 0},
        {"continued": True},
        {"data": b"nonsense\0"},
        {"data": b"InitiatorName=iqn.2001-04.com.example:x\0"},
    ],
)
def test_an_initiator_leaves_a_target_that_breaks_the_rules(wrong):
    initiator = InitiatorLogin(ME, STORAGE, isid=ISID)
    initiator.start()
    with pytest.raises(ProtocolError):
        initiator.receive(response(**wrong))


def test_stat_sn_must_go_on_by_one():
    initiator = InitiatorLogin(ME, STORAGE, isid=ISID)
    initiator.start()
    initiator.receive(response(stat_sn=0xFFFFFFFF))
    with pytest.raises(ProtocolError):
        initiator.receive(response(stat_sn=1, current_stage=1, next_stage=3, tsih=1))


def test_a_completed_login_has_a_session_handle():
    initiator = InitiatorLogin(ME, STORAGE, isid=ISID)
    initiator.start()
    initiator.receive(response())
    with pytest.raises(ProtocolError):
        initiator.receive(response(stat_sn=2, current_stage=1, next_stage=3, tsih=0))


@pytest.mark.parametrize("status", [0x0101, 0x0102, 0x01FF])
def test_a_redirection_tells_where_to_go(status):
    initiator = InitiatorLogin(ME, STORAGE, isid=ISID)
    initiator.start()
    with pytest.raises(Redirected) as caught:
        initiator.receive(
            response(b"TargetAddress=[fd00::1]:3261,2\0", status=status, transit=False)
        )
    assert caught.value.address == Portal("fd00::1", 3261, 2)


def test_a_redirection_to_nowhere_is_a_failure():
    initiator = InitiatorLogin(ME, STORAGE, isid=ISID)
    initiator.start()
    with pytest.raises(LoginFailure) as caught:
        initiator.receive(response(status=0x0101, transit=False))
    assert not isinstance(caught.value, Redirected)


def test_a_refusal_need_have_no_other_field_right():
    initiator = InitiatorLogin(ME, STORAGE, isid=ISID)
    initiator.start()
    with pytest.raises(LoginFailure) as caught:
        initiator.receive(response(status=0x0203, isid=bytes(6), initiator_task_tag=9, stat_sn=0))
    assert caught.value.status is LoginStatus.NOT_FOUND


def test_an_unknown_status_counts_as_its_class():
    for status, known in (
        (0x02EE, LoginStatus.INITIATOR_ERROR),
        (0x0399, LoginStatus.TARGET_ERROR),
    ):
        initiator = InitiatorLogin(ME, STORAGE, isid=ISID)
        initiator.start()
        with pytest.raises(LoginFailure) as caught:
            initiator.receive(response(status=status, transit=False))
        assert caught.value.status is known
