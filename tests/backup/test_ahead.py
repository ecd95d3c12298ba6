"""One command is under way while the next is made; whatever ends it early leaves nobody behind."""

import threading

import pytest

from serverfree.backup.ahead import Halt, Halted, run_ahead


def test_the_next_command_is_made_while_one_is_under_way_and_no_more():
    made, under_way, go_on = [], threading.Event(), threading.Event()

    def commands():
        for number in range(4):
            made.append(number)
            if number == 1:
                assert under_way.wait(10), "the first is done meanwhile"
                go_on.set()
            yield number

    def run(command):
        under_way.set()
        assert go_on.wait(10)
        assert command + 2 not in made, "one waits, not two"
        return bytes([command])

    found = list(run_ahead(commands(), run, Halt()))
    assert found == [(number, bytes([number])) for number in range(4)]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_in_either_thread_comes_out(error):
    def failing(_):
        raise error

    with pytest.raises(error):
        list(run_ahead(iter([1, 2]), failing, Halt()))
    threads = threading.active_count()

    def commands():
        yield 1
        raise error

    with pytest.raises(error):
        list(run_ahead(commands(), lambda _: b"", Halt()))
    assert threading.active_count() == threads


def test_a_command_under_way_is_halted_when_its_caller_goes():
    halt, ended, begun = Halt(), [], threading.Event()

    def run(command):
        if command == 1:
            return b""
        begun.set()
        try:
            halt.sleep(60)
        except Halted:
            ended.append(command)
            raise

    done = run_ahead(iter([1, 2, 3]), run, halt)
    assert next(done) == (1, b"")
    assert begun.wait(10)
    done.close()
    assert ended == [2]
