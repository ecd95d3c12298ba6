"""The management API as a server: in threads of this process, at a port of its own."""

import os
import socket
from threading import Thread

import uvicorn

from serverfree.iscsi.names import Portal
from serverfree.target.api.app import make_app
from serverfree.target.api.http import Http
from serverfree.target.config import ConfigError
from serverfree.target.service import Service

TOKEN_VARIABLE = "SERVERFREE_TOKEN"
_MOST_CONNECTIONS = 256
_LARGEST_HEAD = 16 << 10
_BACKLOG = 128
_STOP_TIME = 5  # seconds for answers that are on their way


def token_from_environment() -> str:
    """Return the token that requests have to bring. Raises ConfigError if there is none."""
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        raise ConfigError(
            f"the management API needs a token: set {TOKEN_VARIABLE}, here and for its clients"
        )
    if not (token.isascii() and token.isprintable()) or token.strip() != token:
        raise ConfigError(f"{TOKEN_VARIABLE} has characters that no HTTP header can carry")
    return token


class ApiServer:
    """The API over a service, from `start` to `stop`."""

    def __init__(self, service: Service, portal: Portal, token: str) -> None:
        """Listen. Raises OSError."""
        family = socket.AF_INET6 if ":" in portal.host else socket.AF_INET
        # By this protocol number asyncio knows that it may switch Nagle's delay (40 ms) off.
        self._listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((portal.host, portal.port))
            self._listener.listen(_BACKLOG)  # now: whoever is told of us may come at once
        except OSError as error:
            self._listener.close()
            raise OSError(error.errno, f"cannot listen at {portal}: {error.strerror}") from None
        host, port = self._listener.getsockname()[:2]
        self.url = f"http://{Portal(host, port)}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                make_app(service, token),
                http=Http,
                loop="asyncio",
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=_MOST_CONNECTIONS,
                h11_max_incomplete_event_size=_LARGEST_HEAD,
                timeout_graceful_shutdown=_STOP_TIME,
            )
        )
        self._thread: Thread | None = None

    def start(self) -> None:
        """Answer from now on."""
        self._thread = Thread(
            target=self._server.run, args=([self._listener],), name="management", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Answer what is being answered, then no more. Nobody waits for a snapshot by then."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
        self._listener.close()
