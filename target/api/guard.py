"""What stands before the management API: nothing passes without the token, or too much of it."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from hashlib import sha256
from http import HTTPStatus
from typing import Any

from serverfree.target.api.problems import problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LARGEST_BODY = 64 << 10
MOST_REQUESTS = 64  # at once
_BODY_TIME = 10.0
_SCHEME = b"bearer "


own_address: ContextVar[str] = ContextVar("own_address", default="")
"""The address of this machine that the request being answered has come to."""


class Guard:
    """An ASGI app that lets requests through to another if they bring the token.

    That holds for every path, those that do not exist and the OpenAPI document included: whoever
    has no token learns nothing. Bodies are read here, whole, so that they end somewhere.
    """

    def __init__(self, app: App, token: str) -> None:
        self._app = app
        self._digest = sha256(token.encode()).digest()
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # a server without WebSocket and lifespan asks for nothing else
        if not self._knows(scope):
            refusal = problem(
                HTTPStatus.UNAUTHORIZED,
                "no-token",
                "the token is missing or wrong: Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": "Bearer"},
            )
            await refusal(scope, receive, send)
            return
        if self._active >= MOST_REQUESTS:
            text = f"{self._active} requests are being answered already"
            refusal = problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "busy", text, headers={"Retry-After": "5"}
            )
            await refusal(scope, receive, send)
            return
        self._active += 1
        try:
            await self._pass(scope, receive, send)
        finally:
            self._active -= 1

    def _knows(self, scope: Scope) -> bool:
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(values) != 1 or values[0][: len(_SCHEME)].lower() != _SCHEME:
            return False
        # Of digests, which have one length: how long it takes says nothing of the token.
        brought = sha256(values[0][len(_SCHEME) :].strip()).digest()
        return hmac.compare_digest(brought, self._digest)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(_BODY_TIME):
                body = await _body(receive)
        except TimeoutError:
            late = problem(HTTPStatus.REQUEST_TIMEOUT, "late", "the body did not come in time")
            await late(scope, receive, send)
            return
        if body is None:
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            large = problem(status, "too-large", f"a body may have {LARGEST_BODY} bytes")
            await large(scope, receive, send)
            return
        first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return first.pop() if first else await receive()

        own_address.set((scope.get("server") or ("",))[0])
        await self._app(scope, replay, send)


async def _body(receive: Receive) -> bytes | None:
    """Return the body of a request, None if it is too large."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)  # whoever asked is gone; what came is all
        part = message.get("body", b"")
        size += len(part)
        if size > LARGEST_BODY:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
