"""The security stage of login (RFC 7143 6.3.2, 12.1), redirection, and what comes before either."""

import hashlib

import pytest

from serverfree.iscsi import text
from serverfree.iscsi.chap import OFFERED, Account, Credentials
from serverfree.iscsi.codes import LoginStatus, Stage
from serverfree.iscsi.errors import LoginFailure, ProtocolError
from serverfree.iscsi.login import InitiatorLogin, Redirected, TargetLogin, TargetPolicy
from serverfree.iscsi.names import Portal
from serverfree.iscsi.pdu import LoginRequest, LoginResponse

ISID = bytes.fromhex("800102030000")
ME = "iqn.2026-11.com.example:me"
STORAGE = "iqn.2026-11.com.example:storage"
SECURITY, OPERATIONAL, FULL = Stage.SECURITY, Stage.OPERATIONAL, Stage.FULL_FEATURE
ALICE = Credentials("alice", b"opensesame-alice")
STORE = Credentials("store", b"the-target-itself")
WRONG = Credentials("alice", b"open barley, please")


def target_with(*accounts, **policy):
    by_name = {account.credentials.name: account for account in accounts}
    made = TargetPolicy(
        find=lambda login, name: "",
        establish=lambda login: 0x77,
        accounts=lambda login: by_name,
        **policy,
    )
    return TargetLogin(made)


def initiator_with(credentials=None, mutual=None, *, name=STORAGE, **more):
    return InitiatorLogin(ME, name, isid=ISID, credentials=credentials, mutual=mutual, **more)


def shake_hands(initiator, target):
    """Run a login to its end; return the texts of both sides, in turn."""
    said = []
    following = initiator.start()
    while following is not None:
        said.append(dict(text.unpack(following.data)))
        response = target.receive(LoginRequest.unpack(following.pack(), following.data))
        said.append(dict(text.unpack(response.data)))
        following = initiator.receive(LoginResponse.unpack(response.pack(), response.data))
    return said


def ask(target, *lines, csg=SECURITY, nsg=OPERATIONAL, transit=False):
    """Send one request of hand-made text; return the response and its pairs."""
    data = "".join(f"{line}\0" for line in lines).encode()
    answer = target.receive(
        LoginRequest(
            isid=ISID,
            tsih=0,
            initiator_task_tag=0,
            cid=0,
            cmd_sn=1,
            exp_stat_sn=0,
            current_stage=csg,
            next_stage=nsg if transit else 0,
            transit=transit,
            continued=False,
            data=data,
        )
    )
    return answer, dict(text.unpack(answer.data))


WHO = (f"InitiatorName={ME}", f"TargetName={STORAGE}", "SessionType=Normal")


def right_answer(said, secret):
    """What open-iscsi would compute."""
    challenge = bytes.fromhex(said["CHAP_C"][2:])
    return "0x" + hashlib.md5(bytes([int(said["CHAP_I"])]) + secret + challenge).hexdigest()


# ---------------------------------------------------------------------- back to back


@pytest.mark.parametrize("algorithm", OFFERED)
@pytest.mark.parametrize("mutual", [None, STORE])
@pytest.mark.parametrize("name", [STORAGE, None])
def test_every_algorithm_each_way_in_sessions_of_both_kinds(algorithm, mutual, name):
    initiator = initiator_with(ALICE, mutual, name=name, algorithms=[algorithm])
    target = target_with(Account(ALICE, STORE))
    said = shake_hands(initiator, target)
    assert initiator.complete
    assert target.complete
    assert target.chap_name == "alice"
    assert target.parameters.auth_method == initiator.parameters.auth_method == "CHAP"
    keys = [key for pairs in said for key in pairs if key.startswith("CHAP_")]
    assert keys.count("CHAP_R") == (2 if mutual else 1)
    assert not any("sesame" in str(pairs) or "itself" in str(pairs) for pairs in said)


def test_credentials_are_not_used_where_nobody_asks():
    initiator = initiator_with(ALICE)
    target = target_with()
    shake_hands(initiator, target)
    assert target.complete
    assert target.parameters.auth_method == "None"
    assert target.chap_name == ""


@pytest.mark.parametrize(
    ("credentials", "mutual", "accounts"),
    [
        (None, None, [Account(ALICE)]),
        (WRONG, None, [Account(ALICE)]),
        (STORE, None, [Account(ALICE)]),
        (ALICE, STORE, [Account(ALICE)]),
    ],
    ids=["none", "wrong secret", "unknown name", "a proof that there is no secret for"],
)
def test_the_target_refuses_with_0201(credentials, mutual, accounts):
    target = target_with(*accounts)
    with pytest.raises(LoginFailure) as caught:
        shake_hands(initiator_with(credentials, mutual), target)
    assert caught.value.status is LoginStatus.AUTHENTICATION_FAILURE
    assert not target.complete
    assert target.failure.status is LoginStatus.AUTHENTICATION_FAILURE


@pytest.mark.parametrize("accounts", [[Account(ALICE, WRONG)], []], ids=["wrong", "none"])
def test_the_initiator_leaves_a_target_that_does_not_prove_itself(accounts):
    target = target_with(*accounts)
    initiator = initiator_with(ALICE, STORE)
    with pytest.raises((LoginFailure, ProtocolError)):
        shake_hands(initiator, target)
    assert not initiator.complete


def test_mutual_needs_credentials():
    with pytest.raises(ValueError, match="no credentials"):
        initiator_with(None, STORE)


# ---------------------------------------------------------------------- the target by hand


def test_a_login_as_open_iscsi_makes_it():
    target = target_with(Account(ALICE))
    answer, said = ask(target, *WHO, "AuthMethod=CHAP,None")
    assert said["AuthMethod"] == "CHAP"
    assert not answer.transit
    answer, said = ask(target, "CHAP_A=5")
    assert said["CHAP_A"] == "5"
    lines = ("CHAP_N=alice", f"CHAP_R={right_answer(said, ALICE.secret)}")
    answer, said = ask(target, *lines, transit=True)
    assert (answer.status, answer.transit, said) == (0, True, {})
    assert (answer.current_stage, answer.next_stage) == (SECURITY, OPERATIONAL)
    answer, _ = ask(target, csg=OPERATIONAL, nsg=FULL, transit=True)
    assert (answer.status, answer.tsih) == (0, 0x77)
    assert target.complete


def test_chap_then_straight_into_full_feature_phase():
    target = target_with(Account(ALICE))
    ask(target, *WHO, "AuthMethod=CHAP")
    _, said = ask(target, "CHAP_A=5")
    lines = ("CHAP_N=alice", f"CHAP_R={right_answer(said, ALICE.secret)}")
    answer, _ = ask(target, *lines, nsg=FULL, transit=True)
    assert answer.transit
    assert target.complete


@pytest.mark.parametrize("nsg", [OPERATIONAL, FULL])
def test_nobody_leaves_the_stage_before_chap_is_done(nsg):
    target = target_with(Account(ALICE))
    for lines in ([*WHO, "AuthMethod=CHAP"], ["CHAP_A=5"], []):
        answer, _ = ask(target, *lines, nsg=nsg, transit=True)
        assert (answer.status, answer.transit) == (0, False)
    assert not target.complete


@pytest.mark.parametrize(
    "requests",
    [
        [{"lines": WHO, "csg": OPERATIONAL, "nsg": FULL, "transit": True}],
        [{"lines": WHO, "csg": OPERATIONAL}],
        [{"lines": WHO, "transit": True}],
        [{"lines": [*WHO, "AuthMethod=None"], "transit": True}],
        [{"lines": [*WHO, "AuthMethod=KRB5"]}],
        [{"lines": [*WHO, "CHAP_A=5"]}],
        [{"lines": [*WHO, "AuthMethod=CHAP"]}, {"lines": ["CHAP_N=alice", "CHAP_R=0x00"]}],
        [{"lines": [*WHO, "AuthMethod=CHAP"]}, {"lines": ["CHAP_A=1,2,3"]}],
        [
            {"lines": [*WHO, "AuthMethod=CHAP"]},
            {"lines": ["CHAP_A=5"]},
            {"lines": ["CHAP_N=alice", "CHAP_R=0x00"], "transit": True},
        ],
    ],
)
def test_ways_around_chap_end_with_0201(requests):
    target = target_with(Account(ALICE))
    for fields in requests:
        answer, _ = ask(target, *fields.pop("lines"), **fields)
    assert answer.status == LoginStatus.AUTHENTICATION_FAILURE
    assert not target.complete
    # And the login is over: no second guess on this connection.
    answer, _ = ask(target, "CHAP_A=5")
    assert answer.status == LoginStatus.INVALID_DURING_LOGIN


@pytest.mark.parametrize(
    "lines",
    [
        [*WHO, "AuthMethod=None", "CHAP_A=5"],
        [*WHO, "AuthMethod=CHAP,None", "CHAP_A=5", "CHAP_A=5"],
    ],
)
def test_chap_where_there_is_none_is_an_initiator_error(lines):
    target = target_with()
    answer, _ = ask(target, *lines)
    assert answer.status == LoginStatus.INITIATOR_ERROR


def test_an_unknown_name_and_a_wrong_secret_get_the_same_bytes():
    answers = []
    for name, secret in (("alice", b"wrong"), ("nobody", ALICE.secret)):
        target = target_with(Account(ALICE))
        ask(target, *WHO, "AuthMethod=CHAP")
        _, said = ask(target, "CHAP_A=5")
        lines = (f"CHAP_N={name}", f"CHAP_R={right_answer(said, secret)}")
        answer, _ = ask(target, *lines, transit=True)
        answers.append((answer.pack(), answer.data))
    assert answers[0] == answers[1]


# ---------------------------------------------------------------------- the initiator by hand


def answers_of(*texts, transit=()):
    """Return a target that says these texts in turn."""
    left = list(enumerate(texts))

    def answer(request):
        number, lines = left.pop(0)
        goes_on = number in transit
        return LoginResponse(
            isid=request.isid,
            tsih=0,
            initiator_task_tag=0,
            stat_sn=number,
            exp_cmd_sn=1,
            max_cmd_sn=1,
            transit=goes_on,
            continued=False,
            current_stage=request.current_stage,
            next_stage=OPERATIONAL if goes_on else 0,
            data="".join(f"{line}\0" for line in lines).encode(),
        )

    return answer


@pytest.mark.parametrize(
    ("texts", "transit"),
    [
        ([["AuthMethod=CHAP"]], [0]),
        ([["AuthMethod=CHAP"], ["CHAP_A=5", "CHAP_I=1", "CHAP_C=0x0102"]], [1]),
        ([["AuthMethod=CHAP"], ["CHAP_A=5", "CHAP_I=1", "CHAP_C=0x0102"], []], [2]),
        ([["CHAP_A=5", "CHAP_I=1", "CHAP_C=0x0102"]], []),
        ([[]], [0]),
    ],
    ids=["at once", "unanswered", "unproved", "unasked", "without a word"],
)
def test_a_target_that_skips_steps_is_left(texts, transit):
    initiator = initiator_with(ALICE, STORE)
    answer = answers_of(*texts, transit=transit)
    request = initiator.start()
    for _ in range(len(texts) - 1):
        request = initiator.receive(answer(request))
    with pytest.raises(ProtocolError):
        initiator.receive(answer(request))
    assert not initiator.complete


def test_with_mutual_authentication_none_is_not_even_offered():
    assert b"AuthMethod=CHAP\0" in initiator_with(ALICE, STORE).start().data
    assert b"AuthMethod=CHAP,None\0" in initiator_with(ALICE).start().data
    assert b"AuthMethod=None\0" in initiator_with().start().data


# ---------------------------------------------------------------------- redirection


@pytest.mark.parametrize(
    "status", [LoginStatus.TARGET_MOVED_TEMPORARILY, LoginStatus.TARGET_MOVED_PERMANENTLY]
)
def test_a_target_that_has_moved_says_where(status):
    def find(login, name):
        raise Redirected(status, Portal("192.0.2.7", 3299))

    target = TargetLogin(TargetPolicy(find=find, establish=lambda login: 1))
    answer, said = ask(target, *WHO, transit=True)
    assert answer.status == status
    assert said == {"TargetAddress": "192.0.2.7:3299"}
    assert not answer.transit
    initiator = initiator_with()
    initiator.start()
    with pytest.raises(Redirected) as caught:
        initiator.receive(LoginResponse.unpack(answer.pack(), answer.data))
    assert caught.value.address == Portal("192.0.2.7", 3299)
