"""The generations by which ORWRITE commands are held together (SBC-4 4.27.2)."""

from serverfree.scsi.errors import illegal_request, invalid_field_in_cdb
from serverfree.scsi.sense import Asc


class OrWriteGenerations:
    """The generation codes and the policy of a unit's ORWRITE commands (4.27.2)."""

    # 4.27.4 table 29: by policy, what is done with the previous generation and with any other.
    _PERFORM, _DISCARD, _REFUSE = "PA", "DN", "CCG"
    _POLICIES = {
        0x0: (_PERFORM, _REFUSE),
        0x2: (_DISCARD, _REFUSE),
        0x3: (_PERFORM, _PERFORM),
        0x5: (_DISCARD, _DISCARD),
        0x7: (_REFUSE, _REFUSE),
    }

    def __init__(self) -> None:
        self.current = self.previous = 0
        self.policy = 0x7

    def performs(self, expected: int) -> bool:
        """Whether a set operation is performed (else its data is dropped). Raises 5/10/08."""
        if expected == self.current:
            return True
        previous, other = self._POLICIES[self.policy]
        action = previous if expected == self.previous else other
        if action == self._REFUSE:
            raise illegal_request(Asc.ORWRITE_GENERATION_DOES_NOT_MATCH)
        return action == self._PERFORM

    def require_current(self, expected: int) -> None:
        """Raise 5/10/08 unless this is the current generation."""
        if expected != self.current:
            raise illegal_request(Asc.ORWRITE_GENERATION_DOES_NOT_MATCH)

    def require_policy(self, policy: int) -> None:
        """Raise 5/24/00 if there is no such policy."""
        if policy not in self._POLICIES:
            raise invalid_field_in_cdb(3, 3)

    def advance(self, generation: int, policy: int) -> None:
        """Begin a generation."""
        self.previous, self.current, self.policy = self.current, generation, policy
