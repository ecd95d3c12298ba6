"""Task attributes (SAM-5 8.6): what may begin before what, in a task set and over a connection."""

import random
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.target.task_set import Job, TaskSet
from serverfree.target.units.command import Command, Lane, Nexus
from support.portal import DETACHED, QUEUED, SHORT, Client, PatientUnit, serving, until

SIMPLE, ORDERED, HEAD, ACA = 1, 2, 3, 4
NEXUS = Nexus("i", "t")


@pytest.fixture
def unit() -> PatientUnit:
    return PatientUnit("disk")


@pytest.fixture
def client(unit: PatientUnit) -> Iterator[Client]:
    with serving([unit]) as server, Client(server) as client:
        client.attentions()
        yield client


class TestOrdered:
    def test_waits_for_what_is_before_it_even_a_copy(
        self, client: Client, unit: PatientUnit
    ) -> None:
        copy = client.start(DETACHED, 1)
        assert until(lambda: unit.begun == [1])
        ordered = client.start(SHORT, 2, attribute=ORDERED)
        assert client.silent()
        unit.let(1)
        assert client.answer(copy).status == client.answer(ordered).status == 0
        assert unit.begun == [1, 2]

    def test_holds_back_what_comes_behind_it(self, client: Client, unit: PatientUnit) -> None:
        client.start(QUEUED, 1)
        assert until(lambda: unit.begun == [1])
        client.start(QUEUED, 2, attribute=ORDERED)
        tags = [client.start(SHORT, 3), client.start(DETACHED, 4)]
        assert client.silent()
        unit.let(1)
        assert until(lambda: unit.begun == [1, 2])
        assert client.silent() is False  # the answer of the first
        assert client.silent()
        unit.let(2, 4)
        for tag in tags:
            assert client.answer(tag).status == 0
        assert unit.begun[:2] == [1, 2]
        assert sorted(unit.begun[2:]) == [3, 4]

    def test_alone_waits_for_nobody(self, client: Client, unit: PatientUnit) -> None:
        assert client.answer(client.start(SHORT, 1, attribute=ORDERED)).status == 0
        assert unit.begun == [1]

    def test_aborted_holds_back_no_more(self, client: Client, unit: PatientUnit) -> None:
        client.start(DETACHED, 1)
        assert until(lambda: unit.begun == [1])
        ordered = client.start(SHORT, 2, attribute=ORDERED)
        behind = client.start(SHORT, 3)
        assert client.silent()
        assert client.answer(client.manage(1, task=ordered)).response == 0
        assert client.answer(behind).status == 0
        assert unit.begun == [1, 3]


class TestHeadOfQueue:
    @pytest.mark.parametrize("opcode", [SHORT, QUEUED])
    def test_passes_what_waits(self, client: Client, unit: PatientUnit, opcode: int) -> None:
        client.start(QUEUED, 1)
        assert until(lambda: unit.begun == [1])
        client.start(QUEUED, 2, attribute=ORDERED)
        unit.let(3)
        assert client.answer(client.start(opcode, 3, attribute=HEAD)).status == 0
        assert unit.begun == [1, 3]

    def test_is_put_first_where_the_order_matters(self) -> None:
        """On a tape the command that runs is not interrupted."""
        tape = PatientUnit("tape", ordered=True)
        with serving([tape]) as server, Client(server) as client:
            client.attentions()
            client.start(QUEUED, 1)
            assert until(lambda: tape.begun == [1])
            client.start(QUEUED, 2)
            head = client.start(SHORT, 3, attribute=HEAD)
            assert client.silent()
            tape.let(1, 2)
            assert client.answer(head).status == 0
            assert until(lambda: len(tape.ended) == 3)
            assert tape.begun == [1, 3, 2]


def test_simple_commands_pass_a_queued_one_where_order_does_not_matter(
    client: Client, unit: PatientUnit
) -> None:
    client.start(QUEUED, 1)
    assert until(lambda: unit.begun == [1])
    assert client.answer(client.start(SHORT, 2)).status == 0


@pytest.mark.parametrize("attribute", [ACA, 5, 7])
def test_an_attribute_that_has_no_meaning_here(
    client: Client, unit: PatientUnit, attribute: int
) -> None:
    answer = client.answer(client.start(SHORT, 1, attribute=attribute))
    assert answer.status == 2
    assert (answer.data[4], answer.data[14:16].hex()) == (5, "4900")  # INVALID MESSAGE ERROR
    assert unit.begun == []
    assert client.attention() == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from((SHORT, QUEUED, DETACHED)), st.sampled_from((SIMPLE, ORDERED, HEAD))
        ),
        max_size=12,
    ),
    st.integers(0, 1 << 32),
)
def test_nothing_begins_before_what_it_has_to_wait_for(
    commands: list[tuple[int, int]], seed: int
) -> None:
    """Any mixture, commands ended in any order: SAM-5 8.6 as two sentences over a log."""
    unit = PatientUnit("disk")
    tasks = TaskSet(unit)
    over = threading.Event()
    left = [len(commands)]
    lock = threading.Lock()

    def done(reply: object) -> None:
        with lock:
            left[0] -= 1
            if not left[0]:
                over.set()

    log: list[tuple[str, int]] = []
    unit.begun = _Log("begun", log)  # type: ignore[assignment]
    unit.ended = _Log("ended", log)  # type: ignore[assignment]
    lanes = {SHORT: Lane.QUEUED, QUEUED: Lane.QUEUED, DETACHED: Lane.DETACHED}
    for name, (opcode, attribute) in enumerate(commands):
        cdb = bytes((opcode, name)).ljust(16, b"\0")
        tasks.submit(Job(Command(NEXUS, cdb), done, attribute, lanes[opcode]))
    names = list(range(len(commands)))
    random.Random(seed).shuffle(names)
    for name in names:
        unit.let(name)
    assert not commands or over.wait(10)
    tasks.close()
    assert tasks.idle
    assert not tasks.held
    for name, (_, attribute) in enumerate(commands):
        if attribute == HEAD:
            continue
        begins = log.index(("begun", name))
        for before in range(name):
            must_wait = ORDERED in (attribute, commands[before][1]) and commands[before][1] != HEAD
            if must_wait:
                assert log.index(("ended", before)) < begins, (name, before, log)


class _Log(list[int]):
    def __init__(self, what: str, log: list[tuple[str, int]]) -> None:
        super().__init__()
        self._what, self._log = what, log

    def append(self, name: int) -> None:
        self._log.append((self._what, name))
        super().append(name)
