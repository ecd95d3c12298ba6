"""From a URL to a session."""

from serverfree.initiator.connection import Timing
from serverfree.initiator.secrets import login_from_environment
from serverfree.initiator.session import DEFAULT_INITIATOR_NAME, Session
from serverfree.iscsi.chap import OFFERED, Algorithm
from serverfree.iscsi.names import InvalidName, Url
from serverfree.iscsi.negotiation import Offer

_ALGORITHMS = {
    "md5": Algorithm.MD5,
    "sha1": Algorithm.SHA1,
    "sha-256": Algorithm.SHA256,
    "sha3-256": Algorithm.SHA3_256,
}
# What is asked for is insisted on; without a word there is no digest.
_DIGESTS = {None: ("None",), "none": ("None",), "crc32c": ("CRC32C",)}


def open_session(
    url: str | Url,
    initiator_name: str = DEFAULT_INITIATOR_NAME,
    *,
    timing: Timing | None = None,
    attended: bool = False,
) -> tuple[Session, int]:
    """Log in at the target of a unit's URL; return the session and the number of its LUN.

    Raises InvalidName for what names no unit, LoginFailure, SessionLost.
    """
    place = Url.parse(url) if isinstance(url, str) else url
    if place.lun is None:
        raise InvalidName(f"{place} names a target; add the number of a unit: {place}/0")
    session = open_target(place, initiator_name, timing=timing, attended=attended)
    return session, place.lun


def open_target(
    url: str | Url,
    initiator_name: str = DEFAULT_INITIATOR_NAME,
    *,
    timing: Timing | None = None,
    attended: bool = False,
) -> Session:
    """Log in at the target of a URL, whether it names a unit or not.

    User, password, digests and the like are those of the URL; what it does not say of CHAP comes
    from the environment (`initiator.secrets`). Raises SecretError besides the above.
    """
    place = Url.parse(url) if isinstance(url, str) else url
    login = login_from_environment(
        place.user, place.password, place.target_user, place.target_password
    )
    return Session(
        place.host,
        place.port,
        place.target_name,
        initiator_name,
        timing=timing,
        offer=Offer(
            header_digest=_DIGESTS[place.header_digest],
            data_digest=_DIGESTS[place.data_digest],
        ),
        credentials=login.credentials,
        mutual=login.mutual,
        algorithms=OFFERED if place.auth is None else (_ALGORITHMS[place.auth],),
        attended=attended,
    )
