"""Who may see the pages: the log-in by API key, its cookie, and what keeps other pages out.

A browser sends the cookie with each request to this host, whichever page makes it, also one of
another port. So requests of other pages are refused, each form has a token that other pages cannot
know, and no script runs that is not a file of the server.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qs, urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from aioftrackjobs.devserver.api_errors import (
    ApiError,
    BusyError,
    InvalidCredentialsError,
    RequestError,
)
from aioftrackjobs.devserver.auth import Identity
from aioftrackjobs.devserver.bodies import read_body
from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.pages.rendering import html_response

Result = TypeVar("Result")
#: Runs a function in the thread of the database, in its turn.
Run: TypeAlias = Callable[..., Awaitable[Any]]

#: Seconds that a log-in lasts.
_LASTING = 30 * 24 * 3600
#: Bytes of a form, and its fields.
_LARGEST_FORM, _LARGEST_LOG_IN, _MOST_FIELDS = 256 * 1024, 16 * 1024, 3000
#: Seconds that one may take to arrive.
_SECONDS = 10.0

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(slots=True)
class Visit:
    """One request of a browser.

    Attributes:
        identity: The user who is logged in; none on the page for that.
        token: What each form sends along, so that no other page can send it.
        form: The fields of the form that was sent.
    """

    request: Request
    identity: Identity | None = None
    token: str = ""
    form: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def user(self) -> Identity:
        """The user who is logged in."""
        assert self.identity is not None  # noqa: S101 - checked before an endpoint is called
        return self.identity

    def field(self, name: str) -> str:
        """Return a field of the form; the last one of that name."""
        return self.form.get(name, [""])[-1]

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """Return the response with a page."""
        user = None if self.identity is None else self.identity.username
        path = self.request.url.path
        return html_response(template, status, user=user, token=self.token, path=path, **values)


Endpoint: TypeAlias = Callable[[Visit], Awaitable[Response]]


class Access:
    """Lets those see the pages of *engine* who have a key."""

    def __init__(self, engine: Engine, run: Run) -> None:
        self._engine = engine
        self._run = run

    def to(
        self, endpoint: Endpoint, *, is_public: bool = False
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return *endpoint* for those who may see it; *is_public* for all, without a cookie."""

        async def respond(request: Request) -> Response:
            visit = Visit(request)
            try:
                _refuse_other_pages(request)
                await self._recognize(visit)
                if request.method == "POST":
                    is_known = visit.identity is not None
                    largest = _LARGEST_FORM if is_known else _LARGEST_LOG_IN
                    visit.form = await _form_of(request, largest)
                if visit.identity is None and not is_public:
                    response = _log_in_page(visit)
                elif request.method == "POST" and not is_public and not _has_token(visit):
                    raise RequestError("This form is of an earlier log-in: reload the page.", 403)
                else:
                    response = await endpoint(visit)
            except ClientDisconnect:
                response = Response(status_code=400)
            except ApiError as error:
                response = visit.page("error.html", error.status, reason=error.content)
                if isinstance(error, BusyError):
                    response.headers["Retry-After"] = str(error.retry_after)
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return respond

    async def _recognize(self, visit: Visit) -> None:
        """Note the user of a visit, if there is one."""
        cookie = visit.request.cookies.get(_cookie_name(visit.request), "")
        identity = self.identity(cookie)
        if identity is None:
            return
        try:
            await self._run(self._engine.check_user, identity)
        except InvalidCredentialsError:  # not active any more, or renamed
            return
        visit.identity = identity
        visit.token = hashlib.sha256(b"token\0" + cookie.encode()).hexdigest()

    def identity(self, cookie: str) -> Identity | None:
        """Return who has got *cookie*; None if it is not good, or not any more."""
        try:
            until, name, signature = cookie.split(".")
            username = urlsafe_b64decode(name).decode()
            is_over = int(until) < time.time()
        except ValueError:
            return None
        if is_over:
            return None
        for digest in self._engine.credentials.digests:
            if hmac.compare_digest(_signature(digest, until, name), signature):
                return self._engine.credentials.identity(username, digest)
        return None

    async def log_in(self, visit: Visit) -> Response:
        """Exchange a user name and a key for a cookie."""
        username, api_key = visit.field("user").strip(), visit.field("key").strip()
        try:
            identity = self._engine.credentials.check(username, api_key)
            await self._run(self._engine.check_user, identity)
        except InvalidCredentialsError:
            return _log_in_page(visit, is_refused=True)
        response = RedirectResponse(_own_path(visit.field("next")), 303)
        request, cookie = visit.request, self._cookie(username, api_key)
        response.set_cookie(
            _cookie_name(request),
            cookie,
            max_age=_LASTING,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    def _cookie(self, username: str, api_key: str) -> str:
        """Return a text that shows nothing of the key, and ends with it; it needs no table."""
        name = urlsafe_b64encode(username.encode()).decode()
        until = str(int(time.time()) + _LASTING)
        digest = hashlib.sha256(api_key.encode("utf-8", "surrogatepass")).digest()
        return f"{until}.{name}.{_signature(digest, until, name)}"

    async def log_out(self, visit: Visit) -> Response:
        """Remove the cookie."""
        response = RedirectResponse("/", 303)
        response.delete_cookie(_cookie_name(visit.request), httponly=True, samesite="strict")
        return response


def _signature(digest: bytes, until: str, name: str) -> str:
    return hmac.digest(digest, f"page\0{until}\0{name}".encode(), "sha256").hex()


def _cookie_name(request: Request) -> str:
    """Return a name of this server alone: a browser keeps one set of cookies for all ports."""
    return f"aioftrackjobs-{request.url.port or 80}"


def _log_in_page(visit: Visit, *, is_refused: bool = False) -> Response:
    url = visit.request.url
    own = f"{url.path}?{url.query}" if url.query else url.path
    target = visit.field("next") if url.path == "/pages/login" else own
    user = visit.field("user") or visit.request.app.state.engine.api_user
    status = 401 if is_refused or url.path != "/" else 200
    base_url = str(visit.request.base_url).rstrip("/")
    return visit.page(
        "login.html",
        status,
        given=user,
        next=_own_path(target),
        is_refused=is_refused,
        base_url=base_url,
    )


def _own_path(target: str) -> str:
    """Return *target* if it is a page of this server, and else the first page."""
    is_own = target.startswith(("/?", "/pages/")) and "\\" not in target and target.isprintable()
    return target if is_own else "/"


def _refuse_other_pages(request: Request) -> None:
    """Refuse what another page makes a browser send; links to pages may be anywhere.

    Raises:
        RequestError: If it is one.
    """
    headers = request.headers
    origin = headers.get("origin")
    is_other = origin is not None and urlsplit(origin).netloc != headers.get("host")
    is_link = request.method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    if is_other or not (is_link or headers.get("sec-fetch-site", "none") in _OWN_SITES):
        raise RequestError("Another page has sent this request.", 403)


#: What browsers say of requests that the server's own pages or their users make.
_OWN_SITES = frozenset({"same-origin", "none"})


def _has_token(visit: Visit) -> bool:
    return hmac.compare_digest(visit.field("token").encode(), visit.token.encode())


async def _form_of(request: Request, largest: int) -> dict[str, list[str]]:
    body = await read_body(request, largest, seconds=_SECONDS, idle=_SECONDS)
    try:
        return parse_qs(
            body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict"
        )
    except ValueError as error:
        raise RequestError(f"This is no form: {error}.") from None
