"""Who may ask, and what a browser may do with the answer."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
COOKIE = "jinmaek-token"
ASKED_BY_PAGE = "x-jinmaek"
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Lets in whoever may come in.

    Without a token the server listens on loopback only, and a request must name it so (another name that leads here
    is a page of somebody else's: DNS rebinding). With a token every request must bring it: once in the address, which
    is answered by a cookie and the address without it, then by the cookie, or as a bearer token. What changes
    something must come from our own page: a header that no foreign page can send without asking first.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(Request(scope))
        await (refusal or self.app)(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        host = hostname(request.headers)
        if self.token is None and host not in LOOPBACK:
            return PlainTextResponse("This server answers on loopback only.", 421)
        if self.token is not None:
            given = request.query_params.get("token")
            if given is not None and request.method == "GET" and self._is_token(given):
                rest = request.url.remove_query_params("token")
                answer = RedirectResponse(rest.path + (f"?{rest.query}" if rest.query else ""), 303)
                answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict", path="/")
                return answer
            bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
            if not self._is_token(request.cookies.get(COOKIE, "")) and not self._is_token(bearer):
                return PlainTextResponse("Open the address with its token, as `jinmaek web` printed it.", 401)
        if request.method not in ("GET", "HEAD"):
            origin = request.headers.get("origin")
            foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
            if foreign or request.headers.get(ASKED_BY_PAGE) != "1":
                return PlainTextResponse("Only the page itself may ask for this.", 403)
        return None

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self.token or "").encode())


def hostname(headers: Headers) -> str:
    """The name by which the server was asked, without its port."""
    return urlsplit(f"//{headers.get('host', '')}").hostname or ""
