"""The login phase of RFC 7143 (section 6.3, 11.12, 11.13), both roles, without I/O.

A login is a lock step: one request, one response, until both have said T with NSG = FULL FEATURE.
Text that does not fit one PDU goes on in the next (C bit); the other side sends empty PDUs
meanwhile.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from serverfree.iscsi import text
from serverfree.iscsi.chap import (
    OFFERED,
    Account,
    Algorithm,
    ChapInitiator,
    ChapTarget,
    Credentials,
)
from serverfree.iscsi.codes import LoginStatus, Stage
from serverfree.iscsi.errors import LoginFailure, ProtocolError
from serverfree.iscsi.names import InvalidName, Portal, normalize_name
from serverfree.iscsi.negotiation import Negotiation, Offer, Parameters, Role
from serverfree.iscsi.pdu import LoginRequest, LoginResponse
from serverfree.iscsi.text import Pair, TextBuffer, TextError

# 6.3, figure of stage transitions: from CSG, the NSG that a T bit may name.
TRANSITIONS: dict[int, frozenset[int]] = {
    Stage.SECURITY: frozenset((Stage.OPERATIONAL, Stage.FULL_FEATURE)),
    Stage.OPERATIONAL: frozenset((Stage.FULL_FEATURE,)),
}
VERSION = 0  # 11.12.4: the only one there is
# 13.12: the receive length that holds for both sides until full feature phase.
LOGIN_SEGMENT = 8192
# A login that has not come to its end by then never will; the longest honest one takes about ten.
MAX_LOGIN_PDUS = 64

NORMAL, DISCOVERY = "Normal", "Discovery"
NONE, CHAP = "None", "CHAP"  # AuthMethod, 12.1
_CHAP_KEYS = "CHAP_"


class Redirected(LoginFailure):
    """The target lives elsewhere (status class 1): log in at `address`."""

    def __init__(self, status: LoginStatus, address: Portal) -> None:
        super().__init__(status, f"the target has moved to {address}")
        self.address = address


def _legal_transition(current: int, following: int) -> bool:
    return following in TRANSITIONS.get(current, ())


def _split_chap(pairs: list[Pair]) -> tuple[dict[str, str], list[Pair]]:
    """Part the keys of CHAP, which are said and answered but not negotiated, from the others."""
    chap: dict[str, str] = {}
    others = []
    for key, value in pairs:
        if not key.startswith(_CHAP_KEYS):
            others.append((key, value))
        elif key in chap:
            raise ProtocolError(f"{key} is said twice")
        else:
            chap[key] = value
    return chap, others


class _Outbox:
    """Text waiting to be sent, in pieces that fit a login PDU."""

    def __init__(self) -> None:
        self._data = b""

    def put(self, pairs: list[Pair]) -> None:
        self._data += text.pack(pairs)

    def take(self) -> tuple[bytes, bool]:
        """Return the next piece and whether more follow."""
        piece, self._data = self._data[:LOGIN_SEGMENT], self._data[LOGIN_SEGMENT:]
        return piece, bool(self._data)


@dataclass(slots=True)
class TargetPolicy:
    """What a portal lets in and what it tells of itself.

    `find(target_name)` returns the target's alias (or "") and raises LoginFailure for a target
    that is not there or not for this initiator. `accounts(login)` returns by CHAP name those who
    may log in there; where there are any, nobody comes in without. `establish(login)` is called
    once, when everything is agreed: it makes or reinstates the session (6.3.5) and returns its
    TSIH, not 0, or raises LoginFailure. `command_window` is how many commands the first MaxCmdSN
    lets in.
    """

    find: Callable[["TargetLogin", str], str]
    establish: Callable[["TargetLogin"], int]
    accounts: Callable[["TargetLogin"], Mapping[str, Account]] = lambda login: {}
    offer: Offer = field(default_factory=Offer)
    portal_group_tag: int = 1
    command_window: int = 128


def _unauthenticated(why: str) -> LoginFailure:
    return LoginFailure(LoginStatus.AUTHENTICATION_FAILURE, why)


class TargetLogin:
    """The target's side of one connection's login.

    Feed each LoginRequest to `receive` and send the LoginResponse it returns. Then either
    `complete` is true and the attributes tell what came out, or `failure` says why the login was
    refused and the connection must be closed, or the next request is due.

    Outcome: `parameters`, `initiator_name`, `initiator_alias`, `target_name` ("" in discovery),
    `chap_name` ("" if nobody was asked),
    `session_type`, `isid`, `cid`, `requested_tsih` (0: a new session), `tsih`, and the numbers to
    go on with: `stat_sn` of the next response, `cmd_sn` expected next.
    """

    def __init__(self, policy: TargetPolicy) -> None:
        self.policy = policy
        self.complete = False
        self.failure: LoginFailure | None = None
        self.parameters = Parameters()
        self.initiator_name = ""
        self.initiator_alias = ""
        self.target_name = ""
        self.session_type = NORMAL
        self.chap_name = ""
        self.isid = b""
        self.cid = 0
        self.requested_tsih = 0
        self.tsih = 0
        self.stat_sn = 0
        self.cmd_sn = 0
        self._stage = Stage.SECURITY
        self._pdus = 0
        self._inbox = TextBuffer()
        self._outbox = _Outbox()
        self._chap: ChapTarget | None = None  # to be passed before anything else
        self._negotiation = Negotiation(Role.TARGET, policy.offer)
        self._introduced = False
        self._declared = False

    def receive(self, request: LoginRequest) -> LoginResponse:
        """Take a request and return the response to send; a refusal is a response too."""
        data = b""
        try:
            return self._advance(request)
        except Redirected as moved:
            self.failure = moved
            data = text.pack([("TargetAddress", str(moved.address))])
        except LoginFailure as failure:
            self.failure = failure
        except ProtocolError as error:
            self.failure = LoginFailure(LoginStatus.INITIATOR_ERROR, str(error))
        return self._respond(request, status=self.failure.status, data=data)

    def _advance(self, request: LoginRequest) -> LoginResponse:
        self._check(request)
        self._inbox.append(request.data)
        if request.continued:
            return self._respond(request)  # 11.12.2: an empty response asks for the rest
        chap, pairs = _split_chap(self._inbox.take())
        self._introduce(dict(pairs))
        answers = self._negotiation.receive(pairs, self._stage)
        authentic = self._authenticate(chap, pairs, answers, request)
        self._outbox.put(self._declarations() + answers)
        data, more = self._outbox.take()
        if more or not request.transit or not authentic:
            return self._respond(request, data=data, continued=more)
        if request.next_stage == Stage.FULL_FEATURE:
            self.parameters = self._negotiation.finish()
            self.tsih = self.policy.establish(self)
            self.complete = True
        self._stage = Stage(request.next_stage)
        return self._respond(request, data=data, transit=True)

    def _check(self, request: LoginRequest) -> None:
        """Hold the header against 11.12, and against the requests before it."""
        self._pdus += 1
        if self.complete or self.failure is not None or self._pdus > MAX_LOGIN_PDUS:
            raise LoginFailure(LoginStatus.INVALID_DURING_LOGIN, "the login has no end")
        if request.version_min > VERSION:
            raise LoginFailure(
                LoginStatus.UNSUPPORTED_VERSION, f"version {request.version_min} or later wanted"
            )
        if self._pdus == 1:
            self._begin(request)
        elif (request.isid, request.tsih, request.cid) != (
            self.isid,
            self.requested_tsih,
            self.cid,
        ):
            raise ProtocolError("ISID, TSIH or CID changed during login")
        if request.current_stage != self._stage:
            raise ProtocolError(f"stage {request.current_stage} while in {self._stage.name}")
        if request.transit and request.continued:
            raise ProtocolError("T and C bits together")  # 11.12.2
        if request.transit and not _legal_transition(request.current_stage, request.next_stage):
            raise ProtocolError(
                f"no transition from stage {request.current_stage} to {request.next_stage}"
            )

    def _begin(self, request: LoginRequest) -> None:
        self.isid, self.cid = request.isid, request.cid
        self.requested_tsih = request.tsih
        # 11.12.8: CmdSN of the first command equals that of the login, which is immediate.
        self.cmd_sn = request.cmd_sn
        self.stat_sn = request.exp_stat_sn
        self._negotiation.leading = request.tsih == 0
        if request.current_stage not in TRANSITIONS:
            raise ProtocolError(f"login begins in stage {request.current_stage}")
        self._stage = Stage(request.current_stage)

    def _introduce(self, declared: dict[str, str]) -> None:
        """Who comes, for what, to whom: said in the first request (6.3.1, 13.4, 13.5, 13.21)."""
        if self._introduced:
            return
        if "InitiatorName" not in declared:
            raise LoginFailure(LoginStatus.MISSING_PARAMETER, "no InitiatorName")
        self.initiator_name = normalize_name(declared["InitiatorName"])
        self.initiator_alias = declared.get("InitiatorAlias", "")
        self.session_type = declared.get("SessionType", NORMAL)
        if self.session_type not in (NORMAL, DISCOVERY):
            raise LoginFailure(
                LoginStatus.SESSION_TYPE_NOT_SUPPORTED, f"SessionType={self.session_type[:40]}"
            )
        if self.session_type == DISCOVERY:
            self._negotiation.discovery = True
        elif "TargetName" not in declared:
            raise LoginFailure(LoginStatus.MISSING_PARAMETER, "no TargetName")
        else:
            self.target_name = self._find(declared["TargetName"])
            # 13.9: in the first response of a normal session.
            self._outbox.put([("TargetPortalGroupTag", str(self.policy.portal_group_tag))])
        accounts = self.policy.accounts(self)
        if accounts:
            self._chap = ChapTarget(accounts)
        # What is not wanted is not offered: a method would be agreed on and then never used.
        self._negotiation.offer = replace(
            self.policy.offer, auth_method=(CHAP,) if accounts else (NONE,)
        )
        self._introduced = True

    def _find(self, wanted: str) -> str:
        try:
            name = normalize_name(wanted)
        except InvalidName as error:
            raise LoginFailure(LoginStatus.NOT_FOUND, str(error)) from None
        alias = self.policy.find(self, name)
        if alias:
            self._outbox.put([("TargetAlias", alias)])
        return name

    def _authenticate(
        self, said: dict[str, str], pairs: list[Pair], answers: list[Pair], request: LoginRequest
    ) -> bool:
        """Go on with the security stage; tell whether the initiator may leave it (12.1).

        What we have to say goes into `answers`.
        """
        if self._chap is None:
            if said:
                raise ProtocolError("CHAP, which was not agreed on")
        elif self._stage is not Stage.SECURITY:
            if not self._chap.done:
                raise _unauthenticated("the initiator would skip authentication")
            if said:
                raise ProtocolError("CHAP after its stage")
        # An initiator that insists on a method we do not want is not let in.
        if any(name == "AuthMethod" for name, _ in pairs) and ("AuthMethod", "Reject") in answers:
            raise _unauthenticated("no authentication method in common")
        if self._chap is None or self._chap.done:
            return True
        if self._negotiation.parameters.auth_method != CHAP:
            if said or request.transit:
                raise _unauthenticated("the initiator offers no CHAP")
        elif said:
            answers += self._chap.receive(said)
            self.chap_name = self._chap.name
        return self._chap.done

    def _declarations(self) -> list[Pair]:
        if self._stage is not Stage.OPERATIONAL or self._declared:
            return []
        self._declared = True
        return self._negotiation.declare_receive_length()

    def _respond(
        self,
        request: LoginRequest,
        *,
        status: int = LoginStatus.SUCCESS,
        data: bytes = b"",
        transit: bool = False,
        continued: bool = False,
    ) -> LoginResponse:
        stat_sn = self.stat_sn
        self.stat_sn = stat_sn + 1 & 0xFFFFFFFF
        return LoginResponse(
            isid=request.isid,
            tsih=self.tsih or request.tsih,
            initiator_task_tag=request.initiator_task_tag,
            stat_sn=stat_sn,
            exp_cmd_sn=self.cmd_sn,
            max_cmd_sn=self.cmd_sn + self.policy.command_window - 1 & 0xFFFFFFFF,
            transit=transit,
            continued=continued,
            current_stage=request.current_stage,
            next_stage=request.next_stage if transit else 0,
            status=status,
            version_max=VERSION,
            version_active=VERSION,
            data=data,
        )


class InitiatorLogin:
    """The initiator's side of one connection's login.

    Send what `start` returns; feed each LoginResponse to `receive` and send what it returns, until
    it returns None: then the login is complete. `target_name` None opens a discovery session.
    With `credentials` CHAP is offered; with `mutual` it is insisted on, and the target has to prove
    that it has that name and secret too.

    Outcome: `parameters`, `tsih`, `target_alias`, `portal_group_tag`, and the numbers to go on
    with: `cmd_sn` of the next command, `exp_stat_sn`, `exp_cmd_sn`, `max_cmd_sn`.
    """

    def __init__(
        self,
        initiator_name: str,
        target_name: str | None,
        *,
        isid: bytes,
        offer: Offer | None = None,
        initiator_alias: str = "",
        cid: int = 0,
        tsih: int = 0,
        cmd_sn: int = 1,
        credentials: Credentials | None = None,
        mutual: Credentials | None = None,
        algorithms: Sequence[Algorithm] = OFFERED,
    ) -> None:
        """Raises ValueError for `mutual` without `credentials`, or with the same secret."""
        if mutual is not None and credentials is None:
            raise ValueError("the target proves itself only to who does so too: no credentials")
        self.initiator_name = normalize_name(initiator_name)
        self.target_name = None if target_name is None else normalize_name(target_name)
        self.isid, self.cid, self.tsih, self.cmd_sn = isid, cid, tsih, cmd_sn
        self._chap = (
            None
            if credentials is None
            else ChapInitiator(credentials, mutual, algorithms=algorithms)
        )
        methods = (NONE,) if credentials is None else (CHAP, NONE) if mutual is None else (CHAP,)
        self.offer = replace(offer or Offer(), auth_method=methods)
        self.parameters = Parameters()
        self.target_alias = ""
        self.portal_group_tag: int | None = None
        self.exp_stat_sn = 0
        self.exp_cmd_sn = self.max_cmd_sn = cmd_sn
        self.complete = False
        self._alias = initiator_alias
        self._stage = Stage.SECURITY
        self._proposed: set[Stage] = set()
        self._asked = False  # CHAP_A has been sent
        self._pdus = 0
        self._inbox = TextBuffer()
        self._outbox = _Outbox()
        self._negotiation = Negotiation(
            Role.INITIATOR, self.offer, discovery=target_name is None, leading=tsih == 0
        )

    def start(self) -> LoginRequest:
        """Return the first request. Stage 0 comes first: some targets refuse logins without it."""
        pairs: list[Pair] = [("InitiatorName", self.initiator_name)]
        if self._alias:
            pairs.append(("InitiatorAlias", self._alias))
        if self.target_name is None:
            pairs.append(("SessionType", DISCOVERY))
        else:
            pairs += [("SessionType", NORMAL), ("TargetName", self.target_name)]
        self._outbox.put(pairs)
        return self._request()

    def receive(self, response: LoginResponse) -> LoginRequest | None:
        """Take a response; return the next request, None when login is complete.

        Raises LoginFailure when the target refuses, Redirected when it sends us elsewhere,
        ProtocolError when it breaks the rules.
        """
        self._check(response)
        self._inbox.append(response.data)
        if response.status != LoginStatus.SUCCESS:
            self._refused(response.status)
        if response.continued:
            return self._request(idle=True)
        said, pairs = _split_chap(self._inbox.take())
        answers = self._negotiation.receive(pairs, self._stage)
        self._outbox.put(answers + self._authenticate(said))
        if response.transit:
            self._enter(response)
            if self.complete:
                return None
        return self._request()

    def _check(self, response: LoginResponse) -> None:
        self._pdus += 1
        if self.complete or self._pdus > MAX_LOGIN_PDUS:
            raise ProtocolError("the target's login has no end")
        if response.status != LoginStatus.SUCCESS:
            return  # 11.13: the other fields are not valid then, and tgt sends them as zeros
        if response.initiator_task_tag != 0 or response.isid != self.isid:
            raise ProtocolError("login response to another login")
        if response.version_active != VERSION:
            raise ProtocolError(f"the target speaks iSCSI version {response.version_active}")
        if self._pdus > 1 and response.stat_sn != self.exp_stat_sn:
            raise ProtocolError(f"StatSN {response.stat_sn}, {self.exp_stat_sn} expected")
        if response.current_stage != self._stage:
            raise ProtocolError(f"stage {response.current_stage} while in {self._stage.name}")
        if response.transit and response.continued:
            raise ProtocolError("T and C bits together")
        self.exp_stat_sn = response.stat_sn + 1 & 0xFFFFFFFF
        self.exp_cmd_sn, self.max_cmd_sn = response.exp_cmd_sn, response.max_cmd_sn

    def _refused(self, code: int) -> None:
        try:
            status = LoginStatus(code)
        except ValueError:
            # 11.13.5: an unknown detail is read as detail 0 of its class.
            status = LoginStatus.TARGET_ERROR if code >> 8 == 3 else LoginStatus.INITIATOR_ERROR
        if code >> 8 == 1:
            status = status if status >> 8 == 1 else LoginStatus.TARGET_MOVED_TEMPORARILY
            try:
                addresses = [v for k, v in self._inbox.take() if k == "TargetAddress"]
            except TextError:
                addresses = []
            if addresses:
                raise Redirected(status, Portal.parse(addresses[0]))
        raise LoginFailure(status, f"login refused: {status.name.lower().replace('_', ' ')}")

    def _authenticate(self, said: dict[str, str]) -> list[Pair]:
        """Return what to say to what the target said of CHAP."""
        chosen = self._negotiation.parameters.auth_method == CHAP
        if said and (self._chap is None or not chosen or self._stage is not Stage.SECURITY):
            raise ProtocolError("the target goes into CHAP, which was not agreed on")
        if self._chap is None or not chosen or self._chap.done:
            return []
        if said:
            return self._chap.receive(said)
        if self._asked:
            return []  # it may have more text to fetch, or has nothing to say: see `_enter`
        self._asked = True
        return self._chap.start()

    @property
    def _nothing_to_say(self) -> bool:
        """Whether our part of the security stage is done; the target's proof may still be due."""
        if self._stage is not Stage.SECURITY or self._chap is None:
            return True
        if not self._negotiation.settled("AuthMethod"):
            return False
        return self._negotiation.parameters.auth_method != CHAP or self._chap.answered

    @property
    def _unproved(self) -> bool:
        chosen = self._negotiation.parameters.auth_method == CHAP
        return self._chap is not None and chosen and not self._chap.done

    def _enter(self, response: LoginResponse) -> None:
        """The target agrees to leave the stage."""
        if not self._nothing_to_say or self._unproved:
            raise LoginFailure(
                LoginStatus.AUTHENTICATION_FAILURE, "the target goes on before CHAP is done"
            )
        wanted = self._next_stage
        if response.next_stage != wanted:
            raise ProtocolError(f"transition to stage {response.next_stage}, {wanted} asked for")
        self._stage = Stage(response.next_stage)
        if self._stage is not Stage.FULL_FEATURE:
            return
        if response.tsih == 0:
            raise ProtocolError("login complete without a TSIH")  # 11.13.3
        self.tsih = response.tsih
        self.target_alias = self._negotiation.declared.get("TargetAlias", "")
        tag = self._negotiation.declared.get("TargetPortalGroupTag")
        self.portal_group_tag = None if tag is None else text.parse_number(tag)
        self.parameters = self._negotiation.finish()
        self.complete = True

    @property
    def _next_stage(self) -> Stage:
        return Stage.OPERATIONAL if self._stage is Stage.SECURITY else Stage.FULL_FEATURE

    def _request(self, *, idle: bool = False) -> LoginRequest:
        """Return the next request: our offers when a stage begins, T when there is no more."""
        if not idle and self._stage not in self._proposed:
            self._proposed.add(self._stage)
            security = self._stage is Stage.SECURITY
            propose = self._negotiation.propose
            self._outbox.put(propose(("AuthMethod",)) if security else propose())
        data, more = (b"", False) if idle else self._outbox.take()
        transit = self._nothing_to_say and not (idle or more)
        return LoginRequest(
            isid=self.isid,
            tsih=self.tsih,
            initiator_task_tag=0,
            cid=self.cid,
            cmd_sn=self.cmd_sn,
            exp_stat_sn=self.exp_stat_sn,
            transit=transit,
            continued=more,
            current_stage=self._stage,
            next_stage=self._next_stage if transit else 0,
            version_max=VERSION,
            version_min=VERSION,
            data=data,
        )
