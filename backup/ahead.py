"""Plan ahead: while a copy manager does one command, the next is made."""

import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from serverfree.backup.planner import Command

Run = Callable[[Command], bytes]
"""Does one command to its end and returns what the copy manager holds of it."""


class Halted(BaseException):
    """Ends a command under way, as an interrupt from the terminal would."""


class Halt:
    """Lets one thread end what another does, where that one looks."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def ask(self) -> None:
        """Have the other end with Halted."""
        self._asked.set()

    def look(self) -> None:
        """Raise Halted if that was asked for."""
        if self._asked.is_set():
            raise Halted

    def sleep(self, seconds: float) -> None:
        """Sleep, not longer than until it is asked for."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._asked.wait(left):
            pass
        self.look()


def run_ahead(
    commands: Iterable[Command], run: Run, halt: Halt
) -> Generator[tuple[Command, bytes]]:
    """Yield each command when it is done, with what is held of it, in order.

    `run` is called in a thread of its own, the commands are made in the caller's: one is under way
    while at most one waits. Whatever ends it early, nothing is under way any more when it is
    left, provided that `run` looks at `halt`.
    """
    # A thread that has ended by the time this is left: whoever tidies up is alone.
    with ThreadPoolExecutor(1, "commands") as thread:
        under_way: tuple[Command, Future[bytes]] | None = None
        try:
            for command in commands:
                if under_way is not None:
                    done = under_way[0], under_way[1].result()
                    under_way = command, thread.submit(run, command)
                    yield done
                else:
                    under_way = command, thread.submit(run, command)
            if under_way is not None:
                yield under_way[0], under_way[1].result()
        except BaseException as error:
            halt.ask()
            if under_way is not None:
                with suppress(BaseException):
                    ended = under_way[1].exception()
                    if isinstance(ended, Halted):  # it tells what became of the command
                        for note in getattr(ended, "__notes__", ()):
                            error.add_note(note)
            raise
