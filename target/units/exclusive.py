"""How one command changes blocks while no other touches them (SBC-4 4.25, 4.29)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import TypeVar

Range = tuple[int, int]  # first byte, byte behind the last
_Argument = TypeVar("_Argument")


class Exclusion:
    """Ordinary changes that run at once, and operations that must be alone in their range.

    An ordinary change announces itself before it looks whether anyone is alone, and who wants to be
    alone says so before looking for changes under way: one of the two sees the other. While nobody
    is alone that costs a change two list operations, each of them atomic, and no lock.
    """

    def __init__(self) -> None:
        self._under_way: list[None] = []  # changes that began while nobody was alone
        self._change = Condition()
        self._alone: list[Range] = []
        self._slow: list[Range] = []  # changes that began while somebody was

    def change(
        self, offset: int, length: int, action: Callable[[int, _Argument], None], value: _Argument
    ) -> None:
        """Run `action(offset, value)`, an ordinary change of these bytes."""
        under_way = self._under_way
        under_way.append(None)
        if self._alone:
            under_way.pop()
            self._change_beside(offset, length, action, value)
            return
        try:
            action(offset, value)
        finally:
            under_way.pop()
            if self._alone:
                self._tell()

    def _change_beside(
        self, offset: int, length: int, action: Callable[[int, _Argument], None], value: _Argument
    ) -> None:
        mine = (offset, offset + length)
        with self._change:
            self._change.notify_all()  # who wants to be alone may have counted this one
            self._change.wait_for(lambda: not _meets(mine, self._alone))
            self._slow.append(mine)
        try:
            action(offset, value)
        finally:
            with self._change:
                self._slow.remove(mine)
                self._change.notify_all()

    @contextmanager
    def alone(self, offset: int, length: int) -> Iterator[None]:
        """Within this block no change and no other such block touches these bytes."""
        mine = (offset, offset + length)
        with self._change:
            self._change.wait_for(lambda: not _meets(mine, self._alone))
            self._alone.append(mine)
            self._change.wait_for(lambda: not self._under_way and not _meets(mine, self._slow))
        try:
            yield
        finally:
            with self._change:
                self._alone.remove(mine)
                self._change.notify_all()

    def _tell(self) -> None:
        with self._change:
            self._change.notify_all()


def _meets(mine: Range, others: list[Range]) -> bool:
    return any(mine[0] < end and start < mine[1] for start, end in others)
