"""From a URL to a session."""

from serverfree.initiator.connection import Timing
from serverfree.initiator.session import DEFAULT_INITIATOR_NAME, Session
from serverfree.iscsi.names import InvalidName, Url


def open_session(
    url: str | Url,
    initiator_name: str = DEFAULT_INITIATOR_NAME,
    *,
    timing: Timing | None = None,
) -> tuple[Session, int]:
    """Log in at the target of a unit's URL; return the session and the number of its LUN.

    Raises InvalidName for what names no unit, LoginFailure, SessionLost.
    """
    place = Url.parse(url) if isinstance(url, str) else url
    if place.lun is None:
        raise InvalidName(f"{place} names a target; add the number of a unit: {place}/0")
    return open_target(place, initiator_name, timing=timing), place.lun


def open_target(
    url: str | Url,
    initiator_name: str = DEFAULT_INITIATOR_NAME,
    *,
    timing: Timing | None = None,
) -> Session:
    """Log in at the target of a URL, whether it names a unit or not."""
    place = Url.parse(url) if isinstance(url, str) else url
    if place.user is not None:
        raise InvalidName("this version speaks no CHAP: leave user and password out of the URL")
    return Session(place.host, place.port, place.target_name, initiator_name, timing=timing)
