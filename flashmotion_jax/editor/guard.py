"""Middleware that checks every request: host, origin, token and size.

A page of another site can make a visitor's browser send requests to 127.0.0.1. The `Origin` header
reveals such a page. The `Host` header reveals a domain that was rebound to 127.0.0.1.
"""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flashmotion_jax.runtime.limits import EDITOR, limited

#: Bytes of a request. A 4K photograph as PNG has 25 MB, and again as much in its project.
MAX_UPLOAD = 96 * 2**20
#: Bytes of a refused request that are read and discarded. A browser whose upload is cut off shows a
#: network error instead of the answer.
_MAX_DRAINED = 2**31
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _TooLargeError(Exception):
    pass


class Guard:
    """ASGI middleware that checks requests, limits what their files may hold, and sets headers.

    Args:
      app: The protected application.
      token: Must be sent as a cookie, as a bearer token or once as `?token=`; None: no token is
        needed, and only requests to `localhost` are served.
    """

    def __init__(self, app: ASGIApp, token: str | None):
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            refusal = self._refusal(request)
        except ValueError:  # a port or an IPv6 address that is none
            refusal = _error(400, "malformed Host, Origin or Content-Length header")
        if refusal:
            if request.headers.get("expect", "").lower() != "100-continue":
                await _drain(receive)
            await refusal(scope, receive, answer)
            return
        try:
            with limited(EDITOR):
                await self._app(scope, _counted(receive), answer)
        except ClientDisconnect:
            return  # nobody is there to be answered
        except _TooLargeError:
            await _drain(receive)
            if not started:
                await _too_large(None)(scope, receive, answer)

    def _refusal(self, request: Request) -> Response | None:
        host = urlsplit(f"//{request.headers.get('host', '')}")
        _ = host.port  # raises for one that is none
        if self._token is None and host.hostname not in _LOOPBACK:
            return _error(403, f"this server answers to localhost, not to {host.hostname!r}")
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host.netloc:
            return _error(403, f"requests from pages of {origin} are not allowed")
        if self._token is not None and (answer := self._unauthorized(request, self._token)):
            return answer
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_UPLOAD:
            return _too_large(int(length) if length.isdecimal() else None)
        return None

    def _unauthorized(self, request: Request, token: str) -> Response | None:
        cookie = f"flashmotion_{request.url.port or 80}"
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        given = (request.cookies.get(cookie, ""), bearer)
        if any(secrets.compare_digest(one.encode(), token.encode()) for one in given):
            return None
        by_link = request.query_params.get("token", "")
        if request.method == "GET" and secrets.compare_digest(by_link.encode(), token.encode()):
            answer = RedirectResponse(request.url.path, status_code=303)
            answer.set_cookie(cookie, token, httponly=True, samesite="strict")
            return answer
        return _error(401, "open the link with the token that `flashmotion edit` printed")


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


async def _drain(receive: Receive) -> None:
    """Reads the rest of a request and discards it."""
    total, more = 0, True
    while more and total < _MAX_DRAINED:
        message = await receive()
        total += len(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)


def _counted(receive: Receive) -> Receive:
    """Raises `_TooLargeError` when a body of unknown length exceeds the limit."""
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MAX_UPLOAD:
            raise _TooLargeError
        return message

    return counted


def _too_large(length: int | None) -> Response:
    size = "" if length is None else f" of {length / 2**20:.0f} MB"
    limit = MAX_UPLOAD / 2**20
    return _error(413, f"an upload{size} is too large: at most {limit:.0f} MB; use a smaller image")
