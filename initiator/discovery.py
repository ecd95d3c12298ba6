"""Which targets a portal knows: a discovery session of its own (RFC 7143 4.3, Appendix C)."""

from serverfree.initiator.connection import Timing
from serverfree.initiator.session import DEFAULT_INITIATOR_NAME, Session
from serverfree.iscsi.chap import Credentials
from serverfree.iscsi.names import DEFAULT_PORT, DiscoveredTarget

__all__ = ["DiscoveredTarget", "discover"]


def discover(
    host: str,
    port: int = DEFAULT_PORT,
    initiator_name: str = DEFAULT_INITIATOR_NAME,
    *,
    timing: Timing | None = None,
    credentials: Credentials | None = None,
    mutual: Credentials | None = None,
) -> list[DiscoveredTarget]:
    """Return the targets with the portals they announce. Raises LoginFailure or SessionLost."""
    session = Session(
        host, port, None, initiator_name, timing=timing, credentials=credentials, mutual=mutual
    )
    with session:
        return session.send_targets()
