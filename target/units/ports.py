"""Which target port a nexus came through. A portal group is a target port (RFC 7143 4.4.2)."""

from serverfree.target.units.command import Nexus

_SEPARATOR = ",t,0x"
ONLY_PORT = 1


def relative_port(nexus: Nexus) -> int:
    """Return the RELATIVE TARGET PORT IDENTIFIER of a nexus: its portal group tag.

    A nexus whose target port is not named as iSCSI names them (a copy within the target) comes
    through port 1.
    """
    _, separator, tag = nexus.target.rpartition(_SEPARATOR)
    try:
        return int(tag, 16) or ONLY_PORT if separator else ONLY_PORT
    except ValueError:
        return ONLY_PORT
