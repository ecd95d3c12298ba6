"""HTTP for the management API: uvicorn's, and nobody may take all day over the head of a request.

A connection that says nothing, or a byte now and then, would keep its place among those that there
may be for ever; uvicorn bounds only the time between two requests.
"""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_TIME = 10.0  # seconds


class Http(H11Protocol):
    """A connection; it is closed when a request's head is not whole in time."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The time runs from here on: before a word has been said."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """What comes in small pieces has no more time for it."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """There is nothing to wait for any more."""
        super().connection_lost(exc)
        self._stop()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()  # a request is being answered; what its body may take, the guard says
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_TIME, self.transport.close)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
