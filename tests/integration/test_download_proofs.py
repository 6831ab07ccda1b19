"""What a download takes for the file: not a page for people, not a part, not other bytes."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from hashlib import md5
from pathlib import Path
from typing import Any

import anyio.lowlevel
import httpx
import pytest

from aioftrackjobs import AsyncSession, FileComponent, TransferError
from aioftrackjobs.config.retry import NO_RETRIES, RetryPolicy

pytestmark = [pytest.mark.every_loop, pytest.mark.either_loop]

BODY = b"%PDF-1.7 " + bytes(range(256)) * 40
PAGE = b"<html><h1>Please log in</h1></html>"
TAG = f'"{md5(BODY).hexdigest()}"'
OTHER_TAG = f'"{md5(b"made from the time of change").hexdigest()}"'
MD5 = b64encode(md5(BODY).digest()).decode()
DAMAGED = BODY[:-1] + b"?"


def whole(body: bytes = BODY, kind: str | None = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if kind is not None:
        named["content-type"] = kind
    return httpx.Response(200, headers=named, content=body)


def unsized(body: bytes, **headers: str) -> httpx.Response:
    """Return a response without a length: nothing shows that its body is cut off."""

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    return httpx.Response(200, headers=headers, content=pieces())


class Studio:
    """A server with one component, whose file arrives in *responses*, one after the other."""

    def __init__(self, *responses: httpx.Response, size: int = len(BODY)) -> None:
        self.responses = list(responses)
        self.row: dict[str, Any] = {
            "__entity_type__": "FileComponent",
            "id": "c",
            "size": size,
            "file_type": ".pdf",
            "system_type": "file",
        }
        self.asked = 0

    def respond(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/component/get":
            return self.responses.pop(0)
        self.asked += 1
        operations = json.loads(request.content)
        result = {"action": "query", "data": [self.row], "metadata": {}}
        return httpx.Response(200, json=[result] * len(operations))

    async def download(self, target: Path, *, loaded: bool, **options: Any) -> Any:
        retry = options.pop("retry", RetryPolicy(sleep=_no_pause, budget=5))
        async with (
            httpx.AsyncClient(transport=httpx.MockTransport(self.respond)) as client,
            AsyncSession("http://ftrack.test", "key", "u", client=client, retry=retry) as session,
        ):
            component: FileComponent | str = "c"
            if loaded:
                component = await session.query("FileComponent").of(FileComponent).one()
            return await session.download(component, target, **options)


async def _no_pause(_: float) -> None:
    await anyio.lowlevel.checkpoint()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "report.pdf"


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "by its id"])
@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(lambda: whole(PAGE, "text/html"), id="login page"),
        pytest.param(lambda: whole(PAGE), id="login page without a type"),
        pytest.param(lambda: whole(PAGE, "text/html", etag=f'"{md5(PAGE).hexdigest()}"'), id="tag"),
        pytest.param(
            lambda: whole(b'{"exception": "PermissionError"}', "application/json"), id="refusal"
        ),
        pytest.param(lambda: whole(b"Forbidden", "text/plain; charset=utf-8"), id="plain text"),
        pytest.param(lambda: unsized(BODY[:100]), id="cut off without a length"),
        pytest.param(lambda: unsized(b""), id="nothing"),
        pytest.param(lambda: whole(DAMAGED, etag=TAG), id="other bytes than the tag"),
        pytest.param(lambda: whole(DAMAGED, content_md5=MD5), id="Content-MD5"),
        pytest.param(lambda: whole(DAMAGED, digest=f"sha-256=abc, MD5={MD5}"), id="Digest"),
        pytest.param(lambda: whole(DAMAGED, repr_digest=f"md5=:{MD5}:"), id="Repr-Digest"),
        pytest.param(lambda: whole(DAMAGED, content_digest=f"md5=:{MD5}:"), id="Content-Digest"),
    ],
)
async def test_what_is_not_the_file_is_asked_for_again(
    target: Path, odd: Any, *, loaded: bool
) -> None:
    path = await Studio(odd(), odd(), whole(etag=TAG)).download(target, loaded=loaded)

    assert path == target
    assert target.read_bytes() == BODY
    assert path.verified_by == "digest"


@pytest.mark.parametrize("body", [PAGE, BODY[:-1], BODY + b"x"])
async def test_a_file_of_another_size_is_no_success(target: Path, body: bytes) -> None:
    studio = Studio(whole(body))
    with pytest.raises(TransferError, match="bytes arrived as component c, whose size is"):
        await studio.download(target, loaded=True, retry=NO_RETRIES)

    assert list(target.parent.iterdir()) == []


async def test_a_page_is_no_success(target: Path) -> None:
    with pytest.raises(TransferError, match="text/html arrived in place of component c"):
        await Studio(whole(PAGE, "text/html")).download(target, loaded=True, retry=NO_RETRIES)


@pytest.mark.parametrize(
    ("respond", "proof"),
    [
        (lambda: whole(etag=TAG), "digest"),
        (lambda: whole(etag=f'{TAG[:-1]}-2"'), "size"),
        (whole, "size"),
        (lambda: unsized(BODY), "size"),
    ],
)
async def test_the_result_says_what_was_known(
    target: Path, respond: Callable[[], httpx.Response], proof: str
) -> None:
    path = await Studio(respond()).download(target, loaded=True)

    assert (path, path.verified_by, path.read_bytes()) == (target, proof, BODY)


async def test_neither_size_nor_digest_is_said(
    target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = await Studio(unsized(BODY), size=0).download(target, loaded=False)

    assert (path, path.verified_by) == (target, None)
    assert "may be incomplete: neither its size nor its digest is known" in caplog.text


async def test_a_tag_that_only_looks_like_a_digest_can_be_ignored(target: Path) -> None:
    """As those of Starlette, which are made from the time of the file's last change."""
    with pytest.raises(TransferError, match="its MD5 digest differs"):
        await Studio(whole(etag=OTHER_TAG)).download(target, loaded=True, retry=NO_RETRIES)

    path = await Studio(whole(etag=OTHER_TAG)).download(target, loaded=True, checksum=False)

    assert (path.verified_by, path.read_bytes()) == ("size", BODY)


async def test_a_web_page_that_is_the_file_is_one(tmp_path: Path) -> None:
    studio = Studio(whole(PAGE, "text/html"), whole(PAGE, "text/html"), size=0)
    studio.row["file_type"] = ".html"
    assert (await studio.download(tmp_path / "a", loaded=True)).read_bytes() == PAGE
    assert (await studio.download(tmp_path / "b", loaded=False)).read_bytes() == PAGE


@pytest.mark.parametrize("damage", [False, True])
async def test_a_continued_download_is_verified_as_a_whole(target: Path, *, damage: bool) -> None:
    """The bytes of an earlier call are hashed, too."""
    part = target.with_name(".report.pdf.part")
    part.write_bytes(b"?" * 100 if damage else BODY[:100])
    part.with_name(".report.pdf.part.json").write_text(
        json.dumps({"component_id": "c", "etag": TAG})
    )
    size = len(BODY)
    headers = {"content-range": f"bytes 100-{size - 1}/{size}", "etag": TAG}
    studio = Studio(httpx.Response(206, headers=headers, content=BODY[100:]), whole(etag=TAG))

    path = await studio.download(target, loaded=True, resume=True)

    assert path.verified_by == "digest"
    assert target.read_bytes() == BODY
    assert len(studio.responses) == (0 if damage else 1)
