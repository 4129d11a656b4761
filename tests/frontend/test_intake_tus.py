"""Resumable uploads by tus 1.0, against a real Store: what the protocol asks for, broken connections, restarts."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from intake_harness import Frontend, Intake, LocalStore, alternate, bearer, store_and_frontend, ticket, tus
from pictures import file_of, noise

from frontend.intake.receiving import WRITE_BYTES
from frontend.tickets import Ticket

PHOTO = file_of(noise(200, 150))
LARGE = file_of(noise(1000, 700), quality=95)
HALF = len(PHOTO) // 2
BODY_TYPE = "application/offset+octet-stream"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tus")


@pytest.fixture(scope="module")
def parts(folder: Path) -> Iterator[tuple[LocalStore, Frontend, Intake]]:
    with store_and_frontend(folder) as (store, front):
        intake = Intake(folder / "intake", store, front, max_uploads=30)
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
def port(parts: tuple[LocalStore, Frontend, Intake]) -> int:
    return parts[2].port


@pytest.fixture
async def client(parts: tuple[LocalStore, Frontend, Intake]) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(parts[2].url) as opened:
        yield opened


async def create(client: aiohttp.ClientSession, one: Ticket, **more: str) -> str:
    headers = tus(one, Upload_Length=str(one.size_bytes), **more)
    async with client.post("/files", headers=headers) as answer:
        assert answer.status == 201, await answer.text()
        return answer.headers["Location"]


async def patch(
    client: aiohttp.ClientSession, url: str, one: Ticket, offset: int, data: bytes, **more: str
) -> tuple[int, str | None]:
    """Status, and the offset that is told."""
    headers = tus(one, Upload_Offset=str(offset), Content_Type=BODY_TYPE, **more)
    async with client.patch(url, data=data, headers=headers) as answer:
        return answer.status, answer.headers.get("Upload-Offset")


async def offset_of(client: aiohttp.ClientSession, url: str, one: Ticket) -> int:
    async with client.head(url, headers=tus(one)) as answer:
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Upload-Length"] == str(one.size_bytes)
        return int(answer.headers["Upload-Offset"])


async def broken_patch(port: int, url: str, one: Ticket, offset: int, data: bytes, length: int) -> asyncio.StreamWriter:
    """A PATCH that announces ``length`` bytes and sends fewer."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    more = {"Host": "x", "Content-Length": str(length), "Upload-Offset": str(offset), "Content-Type": BODY_TYPE}
    lines = [f"PATCH {url} HTTP/1.1", *(f"{name}: {text}" for name, text in (tus(one) | more).items())]
    writer.write("\r\n".join([*lines, "", ""]).encode() + data)
    await writer.drain()
    return writer


async def test_what_the_server_can_do(client: aiohttp.ClientSession) -> None:
    async with client.options("/files") as answer:
        assert answer.status == 204
        assert answer.headers["Tus-Version"] == "1.0.0"
        assert set(answer.headers["Tus-Extension"].split(",")) == {
            "creation",
            "creation-with-upload",
            "termination",
            "expiration",
            "checksum",
        }
        assert "sha1" in answer.headers["Tus-Checksum-Algorithm"].split(",")
        assert int(answer.headers["Tus-Max-Size"]) == 20 * 2**20
        assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]
        assert "Upload-Offset" in answer.headers["Access-Control-Expose-Headers"]


async def test_an_upload_in_pieces(client: aiohttp.ClientSession, store: LocalStore, front: Frontend) -> None:
    one = ticket(len(PHOTO))
    url = await create(client, one)
    assert await offset_of(client, url, one) == 0
    assert await patch(client, url, one, 0, PHOTO[:HALF]) == (204, str(HALF))
    assert await offset_of(client, url, one) == HALF
    headers = tus(one, Upload_Offset=str(HALF), Content_Type=BODY_TYPE)
    async with client.patch(url, data=PHOTO[HALF:], headers=headers) as answer:
        assert answer.status == 204
        assert answer.headers["Haystack-Photo"] == f"{alternate(one.fid, 0).key:x}"
    assert store.status(alternate(one.fid, 1), signed=False) == 200
    assert front.wait_for(one.fid).size_bytes == len(PHOTO)
    # A client that has not heard that asks once more, in whatever way.
    assert await offset_of(client, url, one) == len(PHOTO)
    assert await patch(client, url, one, len(PHOTO), b"") == (204, str(len(PHOTO)))
    assert (await patch(client, url, one, HALF, PHOTO[HALF:]))[0] == 409
    assert await create(client, one) == url
    assert [record.fid for record in front.told].count(one.fid) == 1


async def test_an_upload_goes_on_after_a_broken_connection(
    client: aiohttp.ClientSession, parts: tuple[LocalStore, Frontend, Intake], folder: Path
) -> None:
    one = ticket(len(LARGE))
    url = await create(client, one)
    writer = await broken_patch(parts[2].port, url, one, 0, LARGE[:-1000], len(LARGE))
    (file,) = (folder / "intake" / "uploads").glob(f"{one.id.hex()}.*")
    while file.stat().st_size < WRITE_BYTES:  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(0.01)
    writer.close()
    await writer.wait_closed()
    offset = await offset_of(client, url, one)
    assert WRITE_BYTES <= offset <= len(LARGE) - 1000
    assert (await patch(client, url, one, offset, LARGE[offset:]))[0] == 204
    assert parts[1].wait_for(one.fid).size_bytes == len(LARGE)


async def test_who_comes_back_takes_over_from_a_connection_that_hangs(client: aiohttp.ClientSession, port: int) -> None:
    one = ticket(len(PHOTO))
    url = await create(client, one)
    writer = await broken_patch(port, url, one, 0, PHOTO[:HALF], len(PHOTO))  # and the network is gone
    while (offset := await offset_of(client, url, one)) == 0:
        writer.close()
        writer = await broken_patch(port, url, one, 0, PHOTO[:HALF], len(PHOTO))
    assert offset == HALF
    assert (await patch(client, url, one, HALF, PHOTO[HALF:]))[0] == 204
    writer.close()


async def test_an_upload_begins_with_its_bytes(client: aiohttp.ClientSession, front: Frontend) -> None:
    whole, part = ticket(len(PHOTO)), ticket(len(PHOTO))
    headers = tus(whole, Upload_Length=str(len(PHOTO)), Content_Type=BODY_TYPE)
    async with client.post("/files", data=PHOTO, headers=headers) as answer:
        assert (answer.status, answer.headers["Upload-Offset"]) == (201, str(len(PHOTO)))
        assert answer.headers["Haystack-Photo"]
    front.wait_for(whole.fid)
    headers = tus(part, Upload_Length=str(len(PHOTO)), Content_Type=BODY_TYPE)
    for _ in range(2):  # the second time it has begun already
        async with client.post("/files", data=PHOTO[:HALF], headers=headers) as answer:
            assert (answer.status, answer.headers["Upload-Offset"]) == (201, str(HALF))
            assert "Haystack-Photo" not in answer.headers
            assert answer.headers["Upload-Expires"].endswith(" GMT")


async def test_an_upload_can_be_ended(client: aiohttp.ClientSession) -> None:
    one = ticket(len(PHOTO))
    url = await create(client, one)
    async with client.delete(url, headers=tus(one)) as answer:
        assert answer.status == 204
    async with client.head(url, headers=tus(one)) as answer:
        assert answer.status == 404
    assert await create(client, one) == url  # nothing was stored with the ticket, so it is still good
    async with client.post(url, headers=tus(one, X_HTTP_Method_Override="DELETE")) as answer:
        assert answer.status == 204
    async with client.post(url, headers=tus(one)) as answer:
        assert answer.status == 405


async def test_bytes_with_a_wrong_checksum_do_not_count(client: aiohttp.ClientSession) -> None:
    def checksum(data: bytes) -> str:
        return "sha1 " + base64.b64encode(hashlib.sha1(data).digest()).decode()  # noqa: S324 - what tus clients send

    one = ticket(len(PHOTO))
    url = await create(client, one)
    first, second = PHOTO[:HALF], PHOTO[HALF:]
    assert await patch(client, url, one, 0, first, Upload_Checksum=checksum(first)) == (204, str(HALF))
    assert (await patch(client, url, one, HALF, second, Upload_Checksum=checksum(first)))[0] == 460
    assert await offset_of(client, url, one) == HALF
    for wrong in ("crc32 AAAA", "sha1 %%%", "sha1"):
        assert (await patch(client, url, one, HALF, second, Upload_Checksum=wrong))[0] in (400, 460)
    assert (await patch(client, url, one, HALF, second, Upload_Checksum=checksum(second)))[0] == 204


async def test_what_breaks_the_protocol_is_refused(client: aiohttp.ClientSession) -> None:
    one, other = ticket(len(PHOTO)), ticket(len(PHOTO))
    for headers, status in (
        (bearer(one) | {"Upload-Length": str(len(PHOTO))}, 412),
        (tus(one) | {"Tus-Resumable": "0.2.2", "Upload-Length": str(len(PHOTO))}, 412),
        (tus(one, Upload_Length=str(len(PHOTO) + 1)), 400),
        (tus(one, Upload_Length="many"), 400),
        (tus(one, Upload_Defer_Length="1"), 400),
        ({"Tus-Resumable": "1.0.0", "Upload-Length": str(len(PHOTO))}, 403),
    ):
        async with client.post("/files", headers=headers) as answer:
            assert answer.status == status and (await answer.json())["error"]
    url = await create(client, one)
    assert (await patch(client, url, other, 0, PHOTO))[0] == 404  # somebody else's ticket
    assert (await patch(client, url, one, 1, PHOTO[1:]))[0] == 409
    assert (await patch(client, url, one, 0, PHOTO + b"x"))[0] == 400
    for headers in (tus(one, Upload_Offset="0"), tus(one, Upload_Offset="0", Content_Type="image/jpeg")):
        async with client.patch(url, data=PHOTO, headers=headers) as answer:
            assert answer.status == 415
    assert await offset_of(client, url, one) == 0


async def test_a_picture_that_is_refused_ends_its_upload(client: aiohttp.ClientSession) -> None:
    one = ticket(1000)
    url = await create(client, one)
    assert (await patch(client, url, one, 0, b"no picture" * 100))[0] == 422
    async with client.head(url, headers=tus(one)) as answer:
        assert answer.status == 404


async def test_no_more_than_so_many_are_begun(client: aiohttp.ClientSession) -> None:
    begun = []
    while True:
        one = ticket(10)
        async with client.post("/files", headers=tus(one, Upload_Length="10")) as answer:
            if answer.status != 201:
                break
            begun.append((one, answer.headers["Location"]))
            assert len(begun) <= 30
    assert answer.status == 503 and answer.headers["Retry-After"]
    for one, url in begun:
        async with client.delete(url, headers=tus(one)) as answer:
            assert answer.status == 204
    await create(client, ticket(10))


async def test_an_upload_survives_a_killed_intake(tmp_path: Path, parts: tuple[LocalStore, Frontend, Intake]) -> None:
    store, front, _ = parts
    one = ticket(len(PHOTO))
    intake = Intake(tmp_path / "intake", store, front)
    async with aiohttp.ClientSession(intake.url) as client:
        url = await create(client, one)
        assert (await patch(client, url, one, 0, PHOTO[:HALF]))[0] == 204
        checked = ticket(len(PHOTO))
        other = await create(client, checked)
        wrong = tus(checked, Upload_Checksum="sha1 AAAA")["Upload-Checksum"]
        assert (await patch(client, other, checked, 0, PHOTO[:10]))[0] == 204
        hanging = checked_patch(other, checked, wrong)
        _, writer = await asyncio.open_connection("127.0.0.1", intake.port)
        writer.write(hanging + PHOTO[10:HALF])
        await writer.drain()
        marks = tmp_path / "intake" / "uploads"
        while not list(marks.glob("*.from-10")):  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
    intake.kill()
    writer.close()
    intake.end()
    again = Intake(tmp_path / "intake", store, front)
    async with aiohttp.ClientSession(again.url) as client:
        assert await offset_of(client, url, one) == HALF
        assert await offset_of(client, other, checked) == 10  # what came unchecked does not count
        assert (await patch(client, url, one, HALF, PHOTO[HALF:]))[0] == 204
    front.wait_for(one.fid)
    assert again.stop() == 0
    again.end()


def checked_patch(url: str, one: Ticket, checksum: str) -> bytes:
    headers = tus(one, Upload_Offset="10", Content_Type=BODY_TYPE, Upload_Checksum=checksum)
    lines = [f"PATCH {url} HTTP/1.1", "Host: x", f"Content-Length: {one.size_bytes - 10}"]
    return "\r\n".join([*lines, *(f"{name}: {text}" for name, text in headers.items()), "", ""]).encode()
