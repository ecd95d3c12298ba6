"""CHAP, the authentication that everybody speaks (RFC 7143 12.1.3, RFC 1994), both roles.

A response is a hash over identifier, secret and challenge, so the secret itself never travels. The
steps: the initiator names algorithms (CHAP_A); the target picks one and challenges (CHAP_A, CHAP_I,
CHAP_C); the initiator answers (CHAP_N, CHAP_R) and may challenge in turn (CHAP_I, CHAP_C), which
the target answers (CHAP_N, CHAP_R). A failure is LoginFailure with AUTHENTICATION FAILURE (0201h),
the same for an unknown name as for a wrong secret, and after the same work.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from serverfree.iscsi.codes import LoginStatus
from serverfree.iscsi.errors import LoginFailure
from serverfree.iscsi.text import Pair, parse_number

# 9.2.1: with a secret below 96 bits "a compliant implementation MUST NOT continue with the login".
SHORTEST_SECRET = 12
LONGEST_SECRET = 256
MAX_BINARY = 1024  # 12.1.3: what CHAP_C and CHAP_R may hold, decoded
MAX_NAME = 255  # 6.1: a text-value
_CHALLENGE = 32  # bytes: no less than the longest hash, so that none weakens it
_HEX = re.compile(r"0[xX]([0-9a-fA-F]+)")


class Algorithm(IntEnum):
    """CHAP_A (RFC 7143 12.1.3, IANA's "PPP Authentication Algorithms")."""

    MD5 = 5
    SHA1 = 6
    SHA256 = 7
    SHA3_256 = 8


_HASHES = {
    Algorithm.MD5: "md5",
    Algorithm.SHA1: "sha1",
    Algorithm.SHA256: "sha256",
    Algorithm.SHA3_256: "sha3_256",
}
# What an initiator offers, in this order. SHA-256 comes last because tgt takes its number 7 for
# SHA-1 and would fail; whoever has SHA3-256 takes that anyway.
OFFERED = (Algorithm.SHA3_256, Algorithm.SHA1, Algorithm.MD5, Algorithm.SHA256)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and the secret that goes with it. Its text never shows the secret.

    Raises ValueError for what CHAP cannot carry or RFC 7143 forbids.
    """

    name: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not self.name or len(self.name.encode()) > MAX_NAME or "\0" in self.name:
            raise ValueError(f"a CHAP name has 1 to {MAX_NAME} bytes")
        if not SHORTEST_SECRET <= len(self.secret) <= LONGEST_SECRET:
            raise ValueError(
                f"the CHAP secret of {self.name} has {len(self.secret)} bytes; it needs "
                f"{SHORTEST_SECRET} to {LONGEST_SECRET} (RFC 7143 9.2.1)"
            )


@dataclass(frozen=True, slots=True)
class Account:
    """What a target asks of an initiator, and what it proves itself with if asked to (`mutual`).

    One secret for both directions is refused (ValueError): whoever learns an answer of one side
    could then send it back as his own (9.2.1).
    """

    credentials: Credentials
    mutual: Credentials | None = None

    def __post_init__(self) -> None:
        refuse_one_secret(self.credentials, self.mutual)


def refuse_one_secret(one: Credentials, other: Credentials | None) -> None:
    """Raise ValueError if both directions would use one secret."""
    if other is not None and hmac.compare_digest(one.secret, other.secret):
        raise ValueError("CHAP needs a secret for each direction, and these are the same")


def response(algorithm: Algorithm, identifier: int, secret: bytes, challenge: bytes) -> bytes:
    """Return the answer to a challenge (RFC 1994 4.1): H(identifier, secret, challenge)."""
    # Not for security in the sense of FIPS: the protocol leaves no choice.
    digest = hashlib.new(_HASHES[algorithm], usedforsecurity=False)
    digest.update(bytes((identifier,)) + secret + challenge)
    return digest.digest()


def encode_binary(value: bytes) -> str:
    """Return a large binary value as hexadecimal text (6.1)."""
    return f"0x{value.hex()}"


def decode_binary(text: str) -> bytes:
    """Read hexadecimal or base64 text of 1 to 1024 bytes. Raises LoginFailure."""
    value = b""
    if len(text) <= 2 * MAX_BINARY + 2:
        if match := _HEX.fullmatch(text):
            digits = match[1]
            value = bytes.fromhex(digits.rjust(len(digits) + len(digits) % 2, "0"))
        elif text[:2] in ("0b", "0B"):
            try:
                value = base64.b64decode(text[2:], validate=True)
            except (binascii.Error, ValueError):
                value = b""
    if not 1 <= len(value) <= MAX_BINARY:
        raise _failed("a CHAP value is not 1 to 1024 bytes in hexadecimal or base64")
    return value


def _failed(why: str) -> LoginFailure:
    return LoginFailure(LoginStatus.AUTHENTICATION_FAILURE, why)


def _take(pairs: Mapping[str, str], allowed: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Refuse keys that do not belong to this step, and a step that lacks some of its own."""
    missing = [key for key in allowed if key not in pairs]
    strange = [key for key in pairs if key not in (*allowed, *optional)]
    if missing or strange:
        raise _failed(f"CHAP: missing {missing}, out of place {strange}")


def _identifier(text: str) -> int:
    number = parse_number(text)
    if number is None or number > 255:
        raise _failed("CHAP_I is not a number from 0 to 255")
    return number


def _algorithms(text: str) -> list[int | None]:
    return [parse_number(item) for item in text.split(",")]


class ChapTarget:
    """The side that asks who comes. Feed it what the initiator says until it is `done`.

    `accounts` are those that may come in here, by name.
    """

    def __init__(
        self,
        accounts: Mapping[str, Account],
        *,
        algorithms: Collection[Algorithm] = tuple(Algorithm),
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.done = False
        self.name = ""  # who came, once it is done
        self._accounts = accounts
        self._algorithms = algorithms
        self._random = random
        self._algorithm: Algorithm | None = None
        self._identifier = 0
        self._challenge = b""

    def receive(self, pairs: Mapping[str, str]) -> list[Pair]:
        """Take the CHAP keys of one request and return those of the answer. Raises LoginFailure."""
        if self.done:
            raise _failed("CHAP goes on after its end")
        return self._pick(pairs) if self._algorithm is None else self._verify(pairs)

    def _pick(self, pairs: Mapping[str, str]) -> list[Pair]:
        _take(pairs, ("CHAP_A",))
        # The initiator's order is its preference (6.2.1); what is weak here is weak there.
        for number in _algorithms(pairs["CHAP_A"]):
            if number is not None and number in self._algorithms:
                self._algorithm = Algorithm(number)
                break
        else:
            raise _failed("no CHAP algorithm in common")
        self._identifier = self._random(1)[0]
        self._challenge = self._random(_CHALLENGE)
        return [
            ("CHAP_A", str(int(self._algorithm))),
            ("CHAP_I", str(self._identifier)),
            ("CHAP_C", encode_binary(self._challenge)),
        ]

    def _verify(self, pairs: Mapping[str, str]) -> list[Pair]:
        assert self._algorithm is not None
        mutual = "CHAP_I" in pairs or "CHAP_C" in pairs
        _take(pairs, ("CHAP_N", "CHAP_R", "CHAP_I", "CHAP_C") if mutual else ("CHAP_N", "CHAP_R"))
        name = pairs["CHAP_N"]
        account = self._accounts.get(name)
        # A name that is unknown is judged like any other, by a secret that nobody has.
        secret = account.credentials.secret if account else self._random(SHORTEST_SECRET)
        expected = response(self._algorithm, self._identifier, secret, self._challenge)
        right = hmac.compare_digest(decode_binary(pairs["CHAP_R"]), expected)
        if not right or account is None:
            raise _failed("wrong CHAP name or secret")
        answer = self._prove(account, pairs) if mutual else []
        self.done, self.name = True, name
        return answer

    def _prove(self, account: Account, pairs: Mapping[str, str]) -> list[Pair]:
        """Answer the initiator's own challenge; never with its own words sent back (12.1.3)."""
        assert self._algorithm is not None
        challenge = decode_binary(pairs["CHAP_C"])
        if hmac.compare_digest(challenge, self._challenge):
            raise _failed("the initiator sent our challenge back")
        if account.mutual is None:
            raise _failed("the initiator asks for a proof that there is no secret for")
        own, identifier = account.mutual, _identifier(pairs["CHAP_I"])
        return [
            ("CHAP_N", own.name),
            ("CHAP_R", encode_binary(response(self._algorithm, identifier, own.secret, challenge))),
        ]


class ChapInitiator:
    """The side that shows who it is. Send `start`, feed it the answers until it is `done`.

    With `mutual` the target has to prove that it has that name and secret.
    """

    def __init__(
        self,
        credentials: Credentials,
        mutual: Credentials | None = None,
        *,
        algorithms: Sequence[Algorithm] = OFFERED,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        refuse_one_secret(credentials, mutual)
        self.done = False
        self._credentials = credentials
        self._mutual = mutual
        self._algorithms = algorithms
        self._random = random
        self._expected: bytes | None = None  # the target's proof, once we have asked for it

    @property
    def answered(self) -> bool:
        """Whether we have said all that we have to; the target's proof may still be due."""
        return self.done or self._expected is not None

    def start(self) -> list[Pair]:
        """Return the first keys."""
        return [("CHAP_A", ",".join(str(int(algorithm)) for algorithm in self._algorithms))]

    def receive(self, pairs: Mapping[str, str]) -> list[Pair]:
        """Take the CHAP keys of one response and return those to send. Raises LoginFailure."""
        if self.done:
            raise _failed("CHAP goes on after its end")
        return self._answer(pairs) if self._expected is None else self._verify(pairs)

    def _answer(self, pairs: Mapping[str, str]) -> list[Pair]:
        _take(pairs, ("CHAP_A", "CHAP_I", "CHAP_C"))
        [number, *more] = _algorithms(pairs["CHAP_A"])
        if more or number is None or number not in self._algorithms:
            raise _failed("the target picked a CHAP algorithm that was not offered")
        algorithm = Algorithm(number)
        challenge = decode_binary(pairs["CHAP_C"])
        identifier = _identifier(pairs["CHAP_I"])
        own = self._credentials
        answer = response(algorithm, identifier, own.secret, challenge)
        said: list[Pair] = [("CHAP_N", own.name), ("CHAP_R", encode_binary(answer))]
        if self._mutual is None:
            self.done = True
            return said
        # A fresh challenge cannot be the target's, but for a broken source of randomness.
        ours, number_of_ours = self._random(_CHALLENGE), self._random(1)[0]
        if hmac.compare_digest(ours, challenge):
            raise _failed("our challenge would be the target's own")
        self._expected = response(algorithm, number_of_ours, self._mutual.secret, ours)
        return [*said, ("CHAP_I", str(number_of_ours)), ("CHAP_C", encode_binary(ours))]

    def _verify(self, pairs: Mapping[str, str]) -> list[Pair]:
        assert self._mutual is not None
        assert self._expected is not None
        _take(pairs, ("CHAP_N", "CHAP_R"))
        right = hmac.compare_digest(decode_binary(pairs["CHAP_R"]), self._expected)
        named = hmac.compare_digest(pairs["CHAP_N"].encode(), self._mutual.name.encode())
        if not right or not named:
            raise _failed("the target could not prove that it is the one")
        self.done = True
        return []
