"""Errors of the management API: every one is a problem document (RFC 9457)."""

import errno
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from serverfree.target.backstore.quiet import Cancelled, NotQuiet
from serverfree.target.snapshots import Busy, Conflict, InUse, NotFound

log = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"
_RETRY = {"Retry-After": "5"}
_LONGEST = 1000


def problem(
    status: HTTPStatus,
    kind: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """Return a problem document; its type is urn:serverfree:problem:`kind`."""
    body = {
        "type": f"urn:serverfree:problem:{kind}",
        "title": status.phrase,
        "status": int(status),
        "detail": " ".join(detail.split())[:_LONGEST],
        **more,
    }
    return JSONResponse(body, status, dict(headers or {}), media_type=PROBLEM_JSON)


def answer(error: Exception) -> JSONResponse:
    """Return what an error is to whoever asked."""
    text = str(error)
    match error:
        case NotQuiet():
            return problem(
                HTTPStatus.CONFLICT,
                "not-quiet",
                text,
                asked=error.asked,
                timeout=error.timeout,
                waited=round(error.waited, 3),
                last_write_age=round(error.last_change_age, 3),
            )
        case NotFound():
            return problem(HTTPStatus.NOT_FOUND, "not-found", text)
        case InUse():
            return problem(HTTPStatus.CONFLICT, "in-use", text)
        case Busy():
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, "busy", text, headers=_RETRY)
        case Cancelled():
            text = "the wait was given up: the disk is served no longer, or the server stops"
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, "cancelled", text)
        case Conflict() | ValueError():
            return problem(HTTPStatus.CONFLICT, "conflict", text)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return problem(HTTPStatus.INSUFFICIENT_STORAGE, "no-space", text)
        case OSError():
            log.error("management: %s", error)
            return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "storage", text)
    log.error("management", exc_info=error)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "the log says what happened")


def install(app: FastAPI) -> None:
    """Have every error of an app answered so."""

    def ours(request: Request, error: Exception) -> JSONResponse:
        return answer(error)

    def of_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        kind = status.phrase.lower().replace(" ", "-")
        return problem(status, kind, str(error.detail), headers=error.headers)

    def of_validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        found = [
            {"where": ".".join(map(str, one["loc"])), "what": one["msg"]} for one in error.errors()
        ]
        text = "; ".join(f"{one['where']}: {one['what']}" for one in found)
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return problem(status, "invalid", text, errors=found)

    for kind in (NotQuiet, NotFound, Conflict, Busy, Cancelled, ValueError, OSError, Exception):
        app.add_exception_handler(kind, ours)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_validation)
