"""How one command changes blocks while no other touches them (SBC-4 4.25, 4.29)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import TypeVar

Range = tuple[int, int]  # first byte, byte behind the last
Watcher = Callable[[int, int], None]
"""Is told (offset, length) before bytes change."""
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
        self._watchers: tuple[Watcher, ...] = ()

    @contextmanager
    def watching(self, watcher: Watcher, length: int) -> Iterator[None]:
        """Tell `watcher` of every change from now on; within this block there is none at all.

        `length` is that of the medium. Lasts until `unwatch`, or until the block raises.
        """
        with self._undisturbed(0, length):
            self._watchers = (*self._watchers, watcher)
            try:
                yield
            except BaseException:
                self.unwatch(watcher)
                raise

    def unwatch(self, watcher: Watcher) -> None:
        """Tell it no more. From any thread."""
        with self._change:
            self._watchers = tuple(one for one in self._watchers if one != watcher)

    def change(
        self, offset: int, length: int, action: Callable[[int, _Argument], None], value: _Argument
    ) -> None:
        """Run `action(offset, value)`, an ordinary change of these bytes."""
        under_way = self._under_way
        under_way.append(None)
        if self._watchers:
            self._tell_watchers(offset, length)
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
        self._tell_watchers(offset, length)  # of those too that came while it waited
        try:
            action(offset, value)
        finally:
            with self._change:
                self._slow.remove(mine)
                self._change.notify_all()

    @contextmanager
    def alone(self, offset: int, length: int) -> Iterator[None]:
        """Within this block no change and no other such block touches these bytes."""
        with self._undisturbed(offset, length):
            self._tell_watchers(offset, length)
            yield

    @contextmanager
    def _undisturbed(self, offset: int, length: int) -> Iterator[None]:
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

    def _tell_watchers(self, offset: int, length: int) -> None:
        for watcher in self._watchers:
            watcher(offset, length)

    def _tell(self) -> None:
        with self._change:
            self._change.notify_all()


def _meets(mine: Range, others: list[Range]) -> bool:
    return any(mine[0] < end and start < mine[1] for start, end in others)
