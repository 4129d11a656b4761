"""Calls between parts of a cluster, against a server that answers, refuses, floods, and is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from haystack.json_calls import AnswerTooLarge, NoAnswer, in_words, json_call, reason_given
from haystack.security import AUTH_HEADER, Verifier

SECRET = b"s" * 64


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    verifier = Verifier(SECRET)
    over = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        kind = request.match_info["kind"]
        if kind == "signed":
            verifier.verify(request.headers.get(AUTH_HEADER), request.method, request.raw_path, body)
            return web.json_response({"got": json.loads(body) if body else None, "path": request.raw_path})
        if kind == "refused":
            return web.json_response({"error": "a reason"}, status=409)
        if kind == "large":
            return web.Response(body=bytes(2000))
        if kind == "silent":
            await over.wait()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{kind}", handle)
    running = TestServer(app)
    await running.start_server()
    yield running
    over.set()
    await running.close()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def test_signed_calls(server: TestServer, session: aiohttp.ClientSession) -> None:
    base = f"http://{server.host}:{server.port}"
    answer = await json_call(session, "POST", f"{base}/signed?from=%2F1&b=", {"a": 1}, secret=SECRET)
    assert answer.document == {"got": {"a": 1}, "path": "/signed?from=%2F1&b="}
    assert (await json_call(session, "GET", f"{base}/signed", secret=SECRET)).status == 200


async def test_failures_in_words(server: TestServer, session: aiohttp.ClientSession, unused_tcp_port: int) -> None:
    base = f"http://{server.host}:{server.port}"
    refused = await json_call(session, "GET", f"{base}/refused")
    assert (refused.status, refused.reason) == (409, "a reason")
    with pytest.raises(AnswerTooLarge, match="larger than 1999 bytes"):
        await json_call(session, "GET", f"{base}/large", max_answer_bytes=1999)
    with pytest.raises(NoAnswer, match="no answer or no progress for 0.1 s"):
        await json_call(session, "GET", f"{base}/silent", timeout=aiohttp.ClientTimeout(sock_read=0.1))
    with pytest.raises(NoAnswer, match="the connection broke"):
        await json_call(session, "POST", f"{base}/abort", {})
    with pytest.raises(NoAnswer, match="^cannot connect: Connection refused$"):
        await json_call(session, "GET", f"http://127.0.0.1:{unused_tcp_port}/")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": "full"}', "full"),
        (b'{"error": 5}', '{"error": 5}'),
        (b"<html>\xff", "<html>\ufffd"),
        (b"", "status 502 without a reason"),
        (b'{"error": "' + b"x" * 1000 + b'"}', "x" * 500),
    ],
)
def test_reasons(body: bytes, reason: str) -> None:
    assert reason_given(body, 502) == reason


def test_words_for_what_has_no_text() -> None:
    assert in_words(TimeoutError()) == "no answer or no progress in time"
    assert in_words(ConnectionResetError()) == "the connection broke: ConnectionResetError"
