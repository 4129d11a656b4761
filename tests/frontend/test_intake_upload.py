"""Uploads in one request, against a real Store: what is stored, what is told, what is refused."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from intake_harness import (
    OFFICE,
    Frontend,
    Intake,
    LocalStore,
    alternate,
    bearer,
    store_and_frontend,
    ticket,
)
from pictures import exif, file_of, opened, soft

from frontend.records import RECORD
from frontend.visibility import Visibility

PHOTO = file_of(soft(400, 300), exif=exif(place=True))
KEYS = (0, 1, 2, 3, 4, 11, 12, 13, 14)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalStore, Frontend, Intake]]:
    folder: Path = tmp_path_factory.mktemp("intake")
    with store_and_frontend(folder) as (store, front):
        intake = Intake(folder / "intake", store, front, window_seconds=0.4)
        yield store, front, intake
        assert intake.stop() == 0
        intake.end()


@pytest.fixture
def store(parts: tuple[LocalStore, Frontend, Intake]) -> LocalStore:
    return parts[0]


@pytest.fixture
def front(parts: tuple[LocalStore, Frontend, Intake]) -> Frontend:
    return parts[1]


@pytest.fixture
async def client(parts: tuple[LocalStore, Frontend, Intake]) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(parts[2].url) as opened_session:
        yield opened_session


async def test_an_upload_is_stored_with_its_renditions_and_published(
    client: aiohttp.ClientSession, store: LocalStore, front: Frontend
) -> None:
    one = ticket(len(PHOTO), tags=("bridge", "night"))
    async with client.post("/upload", data=PHOTO, headers=bearer(one)) as answer:
        document = await answer.json()
        assert answer.status == 201
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert document["photo"] == f"{alternate(one.fid, 0).key:x}"
    assert document["record"]["tags"] == ["bridge", "night"]
    for key in KEYS:
        status, body, mime = store.read(alternate(one.fid, key), signed=False)
        assert status == 200 and mime in ("image/jpeg", "image/webp")
        assert max(opened(body).size) <= 400
    assert store.status(alternate(one.fid, RECORD), signed=False) == 404  # it says where the photo was taken
    record = front.wait_for(one.fid)
    assert record == store.record(one.fid)
    assert (record.owner_id, record.title, record.width, record.height) == (7, "A bridge", 400, 300)
    assert record.latitude is not None and abs(record.latitude - 48.8582) < 0.001


async def test_the_same_ticket_again_gives_the_same_photo(client: aiohttp.ClientSession, front: Frontend) -> None:
    one = ticket(len(PHOTO))
    answers = []
    for _ in range(3):
        async with client.post("/upload", data=PHOTO, headers=bearer(one)) as answer:
            answers.append((answer.status, await answer.json()))
    assert [status for status, _ in answers] == [201, 200, 200]
    assert answers[0][1] == answers[1][1] == answers[2][1]
    front.wait_for(one.fid)
    assert [record.fid for record in front.told].count(one.fid) == 1


async def test_a_ticket_is_used_by_one_at_a_time(client: aiohttp.ClientSession, front: Frontend) -> None:
    one = ticket(len(PHOTO))

    async def upload() -> int:
        try:
            async with client.post("/upload", data=PHOTO, headers=bearer(one)) as answer:
                return answer.status
        except aiohttp.ClientError:
            return 0  # a later call has taken over while this one was still receiving

    statuses = await asyncio.gather(*(upload() for _ in range(6)))
    assert set(statuses) <= {0, 200, 201, 423} and statuses.count(201) <= 1
    assert await upload() in (200, 201)
    front.wait_for(one.fid)
    assert [record.fid for record in front.told].count(one.fid) == 1


async def test_a_form_is_taken(client: aiohttp.ClientSession, front: Frontend) -> None:
    one = ticket(len(PHOTO))
    form = aiohttp.FormData()
    form.add_field("title", "passed over")
    form.add_field("photo", PHOTO, filename="x.jpg", content_type="image/jpeg")
    async with client.post("/upload", data=form, headers=bearer(one)) as answer:
        assert answer.status == 201, await answer.text()
    assert front.wait_for(one.fid).title == "A bridge"


async def test_photos_that_are_not_public_are_signed(client: aiohttp.ClientSession, store: LocalStore) -> None:
    one = ticket(len(PHOTO), visibility=int(Visibility.PRIVATE), keep_place=False, keep_untouched=True)
    async with client.post("/upload", data=PHOTO, headers=bearer(one)) as answer:
        assert answer.status == 201
    for key in (*KEYS, 100, RECORD):
        assert store.status(alternate(one.fid, key), signed=False) == 404
        assert store.status(alternate(one.fid, key)) == 200
    assert store.read(alternate(one.fid, 100))[1] == PHOTO
    assert store.record(one.fid).latitude is None


async def test_tickets_that_are_none_are_refused(client: aiohttp.ClientSession) -> None:
    good = OFFICE.issue(ticket(len(PHOTO)))
    late = OFFICE.issue(ticket(len(PHOTO), expires=int(time.time()) - 1))
    wrong = ["", "Bearer", f"Basic {good}", f"Bearer {good[:-1]}", f"Bearer {late}", "Bearer ö", f"Bearer {good}=="]
    for text in wrong:
        async with client.post("/upload", data=PHOTO, headers={"Authorization": text}) as answer:
            assert answer.status == 403, text
            assert (await answer.json())["error"]


@pytest.mark.parametrize("change", (-1, 1))
async def test_another_size_is_refused(client: aiohttp.ClientSession, change: int) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield PHOTO

    one = ticket(len(PHOTO) + change)
    for body in (PHOTO, chunks()):  # with a Content-Length, and without
        async with client.post("/upload", data=body, headers=bearer(one)) as answer:
            assert answer.status == 400
            assert "ticket" in (await answer.json())["error"]
    async with client.get("/metrics") as answer:
        assert "haystack_intake_uploads_under_way 0\n" in await answer.text()


@pytest.mark.parametrize("body", (b"GIF89a", b"%PDF-1.7 no picture", PHOTO[:3000], b"\0" * 1000))
async def test_what_is_no_picture_is_refused_with_a_reason(client: aiohttp.ClientSession, body: bytes) -> None:
    one = ticket(len(body))
    async with client.post("/upload", data=body, headers=bearer(one)) as answer:
        assert answer.status == 422
        assert "picture" in (await answer.json())["error"]


async def test_a_compressed_body_is_refused(client: aiohttp.ClientSession) -> None:
    body = gzip.compress(PHOTO)
    headers = bearer(ticket(len(body))) | {"Content-Encoding": "gzip"}
    async with client.post("/upload", data=body, headers=headers) as answer:
        assert answer.status == 415


async def test_who_expects_100_is_refused_before_the_body(parts: tuple[LocalStore, Frontend, Intake]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", parts[2].port)
    head = "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\nAuthorization: {}\r\n\r\n"
    writer.write(head.format("Bearer none").encode())
    assert b" 403 " in await reader.readline()
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", parts[2].port)
    writer.write(head.format(bearer(ticket(9))["Authorization"]).encode())
    assert b" 100 " in await reader.readline()
    writer.close()


async def test_a_client_that_falls_silent_is_told_and_left(parts: tuple[LocalStore, Frontend, Intake]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", parts[2].port)
    authorization = bearer(ticket(99_999))["Authorization"]
    writer.write(
        f"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\nAuthorization: {authorization}\r\n\r\n".encode()
    )
    writer.write(b"some")
    async with asyncio.timeout(20):
        assert b" 408 " in await reader.readline()
        await reader.read()  # to the end: the connection is closed
    writer.close()


async def test_a_ticket_for_another_volume_is_told(client: aiohttp.ClientSession) -> None:
    elsewhere = dataclasses.replace(ticket(len(PHOTO)), fid="99,10123456789abcdef")
    async with client.post("/upload", data=PHOTO, headers=bearer(elsewhere)) as answer:
        assert answer.status == 503
        assert "another ticket" in (await answer.json())["error"]
        assert answer.headers["Retry-After"]


async def test_pages_for_operators(client: aiohttp.ClientSession) -> None:
    for path in ("/healthz", "/readyz"):
        async with client.get(path) as answer:
            assert answer.status == 200
    async with client.get("/metrics") as answer:
        text = await answer.text()
        assert 'haystack_intake_uploads_total{outcome="stored"}' in text
    async with client.get("/nothing") as answer:
        assert answer.status == 404 and (await answer.json())["error"]
    async with client.options("/upload", headers={"Origin": "https://photos.example"}) as answer:
        assert answer.status == 204 and "Authorization" in answer.headers["Access-Control-Allow-Headers"]
