"""Two initiators at one disk: writes, reservations, resets and restarts, beside a small model."""

from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from serverfree.scsi.sense import SenseKey
from serverfree.scsi.status import Status
from serverfree.target.backstore.file import open_file_store
from serverfree.target.backstore.state import StateFile
from serverfree.target.units.block import BlockUnit
from support.reserving import (
    CLEAR,
    EA,
    EA_AR,
    EA_RO,
    IGNORE,
    PREEMPT,
    RELEASE,
    TARGET,
    TYPES,
    WE_AR,
    WE_RO,
    Member,
)

BLOCKS = 8
WHO = st.sampled_from(("a", "b"))
KEY = st.integers(1, 3)
KIND = st.sampled_from(TYPES)


class Cluster(RuleBasedStateMachine):
    """The model: bytes, keys by name, and who holds what."""

    path: Path
    number = 0

    @initialize()
    def make(self) -> None:
        Cluster.number += 1
        self.folder = self.path / str(Cluster.number)
        self.folder.mkdir()
        self.content = bytearray(BLOCKS * 512)
        self.keys: dict[str, int] = {}
        self.kind = 0
        self.holder = ""
        self.kept = False
        self.serve()

    def serve(self) -> None:
        store = open_file_store(self.folder / "d", BLOCKS * 512)
        self.unit = BlockUnit(
            "d",
            store,
            target=TARGET,
            state=StateFile(self.folder / "d.state"),
            journal=self.folder / "d.journal",
        )
        self.members = {name: Member(self.unit, name) for name in ("a", "b")}

    def teardown(self) -> None:
        if hasattr(self, "unit"):
            self.unit.close()

    # What the model knows of reservations

    def holds(self, who: str) -> bool:
        if not self.kind:
            return False
        return who in self.keys if self.kind in (WE_AR, EA_AR) else who == self.holder

    def may(self, who: str, *, write: bool) -> bool:
        if not self.kind or self.holds(who):
            return True
        if self.kind >= WE_RO and who in self.keys:
            return True
        return not write and self.kind not in (EA, EA_RO, EA_AR)

    def leave(self, who: str) -> None:
        held = self.holds(who)
        self.keys.pop(who, None)
        if held and (self.kind not in (WE_AR, EA_AR) or not self.keys):
            self.kind, self.holder = 0, ""

    def member(self, who: str) -> Member:
        member = self.members[who]
        member.key = self.keys.get(who, 0)
        # Attentions are not what this is about.
        while member.good(bytes.fromhex("03 00 00 00 12 00"))[2] == SenseKey.UNIT_ATTENTION:
            pass
        return member

    # What hosts do

    @rule(who=WHO, key=st.integers(0, 3), kept=st.booleans())
    def register(self, who: str, key: int, kept: bool) -> None:
        assert self.member(who).out(IGNORE, new=key, flags=kept).status is Status.GOOD
        self.kept = kept
        if key:
            self.keys[who] = key
        else:
            self.leave(who)

    @rule(who=WHO, kind=KIND)
    def reserve(self, who: str, kind: int) -> None:
        status = self.member(who).reserve(kind)
        can = who in self.keys and (not self.kind or (self.holds(who) and kind == self.kind))
        assert (status is Status.GOOD) == can
        if can and not self.kind:
            self.kind, self.holder = kind, "" if kind in (WE_AR, EA_AR) else who

    @rule(who=WHO)
    def release(self, who: str) -> None:
        status = self.member(who).out(RELEASE, kind=self.kind or 1).status
        assert (status is Status.GOOD) == (who in self.keys)
        if who in self.keys and self.holds(who):
            self.kind, self.holder = 0, ""

    @rule(who=WHO)
    def clear(self, who: str) -> None:
        status = self.member(who).out(CLEAR).status
        assert (status is Status.GOOD) == (who in self.keys)
        if status is Status.GOOD:
            self.keys, self.kind, self.holder = {}, 0, ""

    @rule(who=WHO, victim=KEY, kind=KIND)
    def preempt(self, who: str, victim: int, kind: int) -> None:
        status = self.member(who).out(PREEMPT, kind=kind, new=victim).status
        victims = [name for name, key in self.keys.items() if key == victim]
        if who not in self.keys or not victims:
            assert status is Status.RESERVATION_CONFLICT
            return
        assert status is Status.GOOD
        takes_over = self.kind not in (0, WE_AR, EA_AR) and self.keys[self.holder] == victim
        for name in victims:
            if not (takes_over and name == who):
                self.leave(name)
        if takes_over:
            self.kind, self.holder = kind, "" if kind in (WE_AR, EA_AR) else who

    @rule(who=WHO, lba=st.integers(0, BLOCKS - 1), byte=st.integers(0, 255), forced=st.booleans())
    def write(self, who: str, lba: int, byte: int, forced: bool) -> None:
        cdb = bytes((0x2A, forced << 3, 0, 0, 0, lba, 0, 0, 1, 0))
        data = bytes((byte,)) * 512
        status = self.member(who)(cdb, data).status
        assert (status is Status.GOOD) == self.may(who, write=True)
        if status is Status.GOOD:
            self.content[lba * 512 : lba * 512 + 512] = data

    @rule(who=WHO, byte=st.integers(0, 255))
    def write_atomically(self, who: str, byte: int) -> None:
        cdb = bytes.fromhex("9c 00 0000000000000002 0000 0004 00 00")
        status = self.member(who)(cdb, bytes((byte,)) * 2048).status
        assert (status is Status.GOOD) == self.may(who, write=True)
        if status is Status.GOOD:
            self.content[1024:3072] = bytes((byte,)) * 2048

    @rule(who=WHO)
    def read(self, who: str) -> None:
        reply = self.member(who)(bytes((0x28, 0, 0, 0, 0, 0, 0, 0, BLOCKS, 0)))
        assert (reply.status is Status.GOOD) == self.may(who, write=False)
        if reply.status is Status.GOOD:
            assert bytes(reply.data) == self.content

    # What happens to them

    @rule()
    def reset(self) -> None:
        self.unit.reset()

    @rule(who=WHO)
    def lose(self, who: str) -> None:
        self.unit.detach(self.members[who].nexus)
        self.unit.attach(self.members[who].nexus)

    @rule()
    def restart(self) -> None:
        self.unit.close()
        if not self.kept:
            self.keys, self.kind, self.holder = {}, 0, ""
        self.serve()

    @invariant()
    def it_tells_what_is(self) -> None:
        if not hasattr(self, "unit"):
            return
        one = self.member("a")
        assert sorted(one.keys()) == sorted(self.keys.values())
        key = self.keys.get(self.holder, 0)
        assert one.reservation() == ((key, self.kind) if self.kind else None)


def test_two_initiators_at_one_disk(tmp_path: Path) -> None:
    Cluster.path = tmp_path
    machine = Cluster.TestCase
    machine.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
    machine("runTest").runTest()
