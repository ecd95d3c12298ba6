"""CHAP by itself: the formula of RFC 1994, the encodings of RFC 7143 6.1, and who is let in."""

import base64
import hashlib
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serverfree.iscsi.chap import (
    Account,
    Algorithm,
    ChapInitiator,
    ChapTarget,
    Credentials,
    decode_binary,
    encode_binary,
    response,
)
from serverfree.iscsi.codes import LoginStatus
from serverfree.iscsi.errors import LoginFailure

ALICE = Credentials("alice", b"opensesame-alice")
STORE = Credentials("store", b"the-target-itself")
ACCOUNTS = {"alice": Account(ALICE, STORE)}
MD5SUM = "26148a415508d4282f2bba28d7ff702d"
HASHES = {5: hashlib.md5, 6: hashlib.sha1, 7: hashlib.sha256, 8: hashlib.sha3_256}


def answer_by_hand(number, identifier, secret, challenge):
    """RFC 1994 4.1: a hash over the identifier, the secret, the challenge, in that order."""
    return HASHES[number](bytes([identifier]) + secret + challenge).digest()


def scripted(*values):
    """A source of randomness that says these."""
    left = list(values)

    def random(size):
        value = left.pop(0)
        assert len(value) == size
        return value

    return random


@contextmanager
def refused(status=LoginStatus.AUTHENTICATION_FAILURE):
    with pytest.raises(LoginFailure) as caught:
        yield caught
    assert caught.value.status is status


def challenge_of(target, algorithms="5"):
    said = dict(target.receive({"CHAP_A": algorithms}))
    return int(said["CHAP_A"]), int(said["CHAP_I"]), bytes.fromhex(said["CHAP_C"][2:])


# ---------------------------------------------------------------------- formula and encodings


@pytest.mark.parametrize("number", HASHES)
def test_the_response_is_the_formula_of_the_rfc(number):
    challenge = bytes(range(40))
    expected = answer_by_hand(number, 0xA5, b"secret-of-twelve", challenge)
    assert response(Algorithm(number), 0xA5, b"secret-of-twelve", challenge) == expected


def test_md5_of_a_written_out_example():
    """md5(27h, "MS-CHAP is not it", eight zeros), computed by coreutils' md5sum."""
    digest = response(Algorithm.MD5, 0x27, b"MS-CHAP is not it", bytes(8))
    assert digest.hex() == MD5SUM


@given(st.binary(min_size=1, max_size=1024))
def test_binary_values_come_back_from_both_encodings(value):
    assert decode_binary(encode_binary(value)) == value
    assert decode_binary("0X" + value.hex().upper()) == value
    assert decode_binary("0b" + base64.b64encode(value).decode()) == value


def test_an_odd_number_of_hexadecimal_digits_has_a_zero_before_it():
    assert decode_binary("0xabc") == b"\x0a\xbc"


@pytest.mark.parametrize(
    "text",
    ["", "0x", "0b", "abcd", "0xzz", "0b!!", "0babc", "1234", "0x" + "00" * 1025,
     "0b" + "A" * 1400, "0x" + "0" * 100_000],
)  # fmt: skip
def test_what_is_no_binary_value_is_refused(text):
    with refused():
        decode_binary(text)


@pytest.mark.parametrize("secret", [b"", b"elevenbytes", bytes(257)])
def test_secrets_of_a_forbidden_length_are_refused(secret):
    with pytest.raises(ValueError, match="12 to 256"):
        Credentials("alice", secret)


def test_no_text_of_ours_shows_a_secret():
    shown = f"{ALICE!r} {ALICE} {ACCOUNTS!r} {ChapTarget(ACCOUNTS)!r} {ChapInitiator(ALICE)!r}"
    assert "sesame" not in shown
    with pytest.raises(ValueError, match="alice") as caught:
        Credentials("alice", b"short-sesam")
    assert "sesam" not in str(caught.value)


def test_one_secret_for_both_directions_is_refused():
    same = Credentials("store", ALICE.secret)
    with pytest.raises(ValueError, match="same"):
        Account(ALICE, same)
    with pytest.raises(ValueError, match="same"):
        ChapInitiator(ALICE, same)


# ---------------------------------------------------------------------- the target's side


@pytest.mark.parametrize("number", HASHES)
@pytest.mark.parametrize("encode", [lambda v: "0x" + v.hex(), lambda v: "0b" + _b64(v)])
def test_the_right_answer_lets_in(number, encode):
    target = ChapTarget(ACCOUNTS)
    chosen, identifier, challenge = challenge_of(target, f"99,{number}")
    assert chosen == number
    assert len(challenge) >= 16
    right = answer_by_hand(number, identifier, ALICE.secret, challenge)
    assert target.receive({"CHAP_N": "alice", "CHAP_R": encode(right)}) == []
    assert target.done
    assert target.name == "alice"


def _b64(value):
    return base64.b64encode(value).decode()


def test_the_target_proves_itself_when_asked():
    target = ChapTarget(ACCOUNTS)
    _, identifier, challenge = challenge_of(target, "7")
    right = answer_by_hand(7, identifier, ALICE.secret, challenge)
    theirs = b"another challenge"
    said = target.receive(
        {
            "CHAP_N": "alice",
            "CHAP_R": "0x" + right.hex(),
            "CHAP_I": "0x11",
            "CHAP_C": "0b" + _b64(theirs),
        }
    )
    proof = answer_by_hand(7, 0x11, STORE.secret, theirs)
    assert said == [("CHAP_N", "store"), ("CHAP_R", "0x" + proof.hex())]
    assert target.done


def test_challenges_are_never_the_same():
    challenges = {challenge_of(ChapTarget(ACCOUNTS))[2] for _ in range(64)}
    assert len(challenges) == 64


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("alice", b"not the secret"),
        ("bob", ALICE.secret),
        ("Alice", ALICE.secret),
        ("store", STORE.secret),
    ],
)
def test_a_wrong_secret_and_an_unknown_name_look_the_same(name, secret):
    target = ChapTarget(ACCOUNTS)
    _, identifier, challenge = challenge_of(target)
    wrong = answer_by_hand(5, identifier, secret, challenge)
    with refused() as caught:
        target.receive({"CHAP_N": name, "CHAP_R": "0x" + wrong.hex()})
    assert str(caught.value) == "wrong CHAP name or secret"
    assert not target.done


def test_our_challenge_sent_back_is_refused():
    """12.1.3: "Responders MUST check for this condition"."""
    target = ChapTarget(ACCOUNTS)
    _, identifier, challenge = challenge_of(target)
    right = answer_by_hand(5, identifier, ALICE.secret, challenge)
    with refused():
        target.receive(
            {
                "CHAP_N": "alice",
                "CHAP_R": "0x" + right.hex(),
                "CHAP_I": str(identifier ^ 1),
                "CHAP_C": "0b" + _b64(challenge),
            }
        )
    assert not target.done


def test_a_target_without_a_secret_of_its_own_gives_no_proof():
    target = ChapTarget({"alice": Account(ALICE)})
    _, identifier, challenge = challenge_of(target)
    right = answer_by_hand(5, identifier, ALICE.secret, challenge)
    proof_wanted = {"CHAP_I": "1", "CHAP_C": "0x0102030405"}
    with refused():
        target.receive({"CHAP_N": "alice", "CHAP_R": "0x" + right.hex()} | proof_wanted)


@pytest.mark.parametrize("algorithms", ["", "99", "five", "4,9", "0", "5;6"])
def test_no_algorithm_in_common(algorithms):
    with refused():
        ChapTarget(ACCOUNTS).receive({"CHAP_A": algorithms})


def test_only_the_algorithms_that_were_allowed():
    with refused():
        ChapTarget(ACCOUNTS, algorithms=[Algorithm.SHA256]).receive({"CHAP_A": "5,6"})


@pytest.mark.parametrize(
    "steps",
    [
        [{"CHAP_N": "alice", "CHAP_R": "0x00"}],
        [{"CHAP_A": "5", "CHAP_N": "alice"}],
        [{"CHAP_A": "5"}, {"CHAP_A": "5"}],
        [{"CHAP_A": "5"}, {"CHAP_N": "alice"}],
        [{"CHAP_A": "5"}, {"CHAP_R": "0x00"}],
        [{"CHAP_A": "5"}, {"CHAP_N": "alice", "CHAP_R": "0x00", "CHAP_I": "1"}],
        [{"CHAP_A": "5"}, {"CHAP_N": "alice", "CHAP_R": "0x00", "CHAP_X": "1"}],
    ],
)
def test_steps_out_of_order_or_incomplete_are_refused(steps):
    target = ChapTarget(ACCOUNTS)
    with refused():
        for step in steps:
            target.receive(step)
    assert not target.done


# ---------------------------------------------------------------------- the initiator's side


def test_the_initiator_offers_every_algorithm_and_7_last():
    assert ChapInitiator(ALICE).start() == [("CHAP_A", "8,6,5,7")]


@pytest.mark.parametrize("number", HASHES)
def test_the_initiator_answers_a_challenge(number):
    initiator = ChapInitiator(ALICE)
    challenge = b"0123456789abcdef"
    said = initiator.receive(
        {"CHAP_A": str(number), "CHAP_I": "200", "CHAP_C": "0b" + _b64(challenge)}
    )
    right = answer_by_hand(number, 200, ALICE.secret, challenge)
    assert said == [("CHAP_N", "alice"), ("CHAP_R", "0x" + right.hex())]
    assert initiator.done


def test_the_initiator_has_the_target_prove_itself():
    ours = bytes(range(32))
    initiator = ChapInitiator(ALICE, STORE, random=scripted(ours, b"\x07"))
    said = dict(initiator.receive({"CHAP_A": "6", "CHAP_I": "1", "CHAP_C": "0x0102"}))
    assert (said["CHAP_I"], said["CHAP_C"]) == ("7", "0x" + ours.hex())
    assert initiator.answered
    assert not initiator.done
    proof = answer_by_hand(6, 7, STORE.secret, ours)
    assert initiator.receive({"CHAP_N": "store", "CHAP_R": "0x" + proof.hex()}) == []
    assert initiator.done


@pytest.mark.parametrize(
    ("name", "secret", "identifier"),
    [("store", b"some other secret", 7), ("shop", STORE.secret, 7), ("store", STORE.secret, 8)],
)
def test_a_target_that_cannot_prove_itself_is_left(name, secret, identifier):
    ours = bytes(range(32))
    initiator = ChapInitiator(ALICE, STORE, random=scripted(ours, b"\x07"))
    initiator.receive({"CHAP_A": "6", "CHAP_I": "1", "CHAP_C": "0x0102"})
    proof = answer_by_hand(6, identifier, secret, ours)
    with refused():
        initiator.receive({"CHAP_N": name, "CHAP_R": "0x" + proof.hex()})
    assert not initiator.done


@pytest.mark.parametrize(
    "said",
    [
        {"CHAP_A": "5", "CHAP_I": "1"},
        {"CHAP_A": "5,6", "CHAP_I": "1", "CHAP_C": "0x01"},
        {"CHAP_A": "9", "CHAP_I": "1", "CHAP_C": "0x01"},
        {"CHAP_A": "5", "CHAP_I": "256", "CHAP_C": "0x01"},
        {"CHAP_A": "5", "CHAP_I": "-1", "CHAP_C": "0x01"},
        {"CHAP_A": "5", "CHAP_I": "1", "CHAP_C": "0x"},
        {"CHAP_A": "5", "CHAP_I": "1", "CHAP_C": "0x01", "CHAP_N": "x"},
    ],
)
def test_a_challenge_that_is_none_is_refused(said):
    with refused():
        ChapInitiator(ALICE).receive(said)
