"""The HTTP surface of a Store's data path: uploads, reads, deletes, and what each is refused with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from store_data_harness import FORM_TYPE, MIB, Client, LocalStore, chunked, form, head, new_fid, running

from haystack.fid import Locator
from haystack.store.control_cells import Counter

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 20
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStore]:
    folder: Path = tmp_path_factory.mktemp("surface")
    with running(
        folder,
        max_photo_bytes=2 * MIB,
        upload_memory_bytes=256 * 1024,
        upload_memory_total_bytes=8 * MIB,
        stop_timeout_seconds=5,
    ) as started:
        yield started


@pytest.fixture
def client(store: LocalStore) -> Iterator[Client]:
    with store.client() as opened:
        yield opened


BODIES = {
    "nothing": b"",
    "one byte": b"x",
    "a photo": JPEG,
    "larger than a segment": JPEG * 40,
    "spilled": JPEG * 200,
}


def upload(client: Client, fid: object, body: bytes, way: str) -> None:
    """Send a body in one of the ways that clients do."""
    if way == "raw":
        answer = client.put(f"/{fid}", body, ("Content-Type", "image/jpeg"))
    elif way == "form":
        answer = client.request("POST", f"/{fid}", form(body), [FORM_TYPE])
    elif way == "expect":
        client.send(head("PUT", f"/{fid}", body, [("Expect", "100-continue"), ("Content-Type", "image/jpeg")]))
        if body:
            assert client.answer().status == 100
        client.send(body)
        answer = client.answer()
    else:
        size = int(way.removeprefix("chunks of "))
        headers = [("Transfer-Encoding", "chunked"), ("Content-Type", "image/jpeg")]
        client.send(head("PUT", f"/{fid}", body, headers) + chunked(body, size))
        answer = client.answer()
    assert answer.status == 201, answer
    assert answer.json()["size"] == len(body)


WAYS = ("raw", "form", "expect", "chunks of 1", "chunks of 7000", "chunks of 100000")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", BODIES)
def test_what_is_uploaded_is_what_is_read(client: Client, what: str, way: str) -> None:
    body, fid = BODIES[what], new_fid()
    if way == "chunks of 1":
        body = body[: 400 * 1024]
    upload(client, fid, body, way)
    for _ in range(3):  # copied, parsed, cached
        answer = client.get(f"/{fid}")
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["content-type"] == "image/jpeg"


def test_answer_of_an_upload(client: Client) -> None:
    fid = new_fid()
    answer = client.request("POST", f"/{fid}", form(JPEG, "cat.jpg"), [FORM_TYPE])
    document = answer.json()
    assert document.keys() == {"name", "size", "eTag", "fid", "locator"}
    assert (document["name"], document["size"], document["fid"]) == ("cat.jpg", len(JPEG), str(fid))
    assert re.fullmatch("[0-9a-f]{16}", document["eTag"])
    assert Locator.parse(document["locator"]).fid == fid
    assert client.get(f"/{fid}").headers["etag"] == f'"{document["eTag"]}"'


def test_all_names_of_a_needle(client: Client) -> None:
    fid = new_fid(key=0xABC)
    locator = client.put(f"/{fid}", JPEG).json()["locator"]
    needle = str(fid).partition(",")[2]
    for path in (
        f"/{fid}",
        f"/{fid}.jpg",
        f"/1/{needle}",
        f"/1/{needle}.jpeg",
        f"/1/{needle}/any name.jpg".replace(" ", "%20"),
        f"/{locator}",
        f"/{locator}.png",
        f"/1,000{needle.upper()}",
        f"/001,{needle}",
        f"http://store/{fid}",
        f"/{fid}?width=100",
    ):
        answer = client.get(path)
        assert (answer.status, answer.body) == (200, JPEG), path


def test_alternates_are_needles_of_their_own(client: Client) -> None:
    fid = new_fid()
    for alternate in (0, 1, 2**32 - 1):
        assert client.put(f"/{replace(fid, alternate=alternate)}", b"rendition %d" % alternate).status == 201
    for alternate in (0, 1, 2**32 - 1):
        assert client.get(f"/{replace(fid, alternate=alternate)}.jpg").body == b"rendition %d" % alternate
    assert client.get(f"/{fid}_2").status == 404
    assert client.delete(f"/{fid}_1").status == 202
    assert client.get(f"/{fid}_1").status == 404
    assert client.get(f"/{fid}").status == 200


MALFORMED = (
    "/",
    "/3",
    "/favicon.ico",
    "/1,",
    "/1,123",
    "/0,0123456789abcdef01",
    "/4294967296,0123456789abcdef01",
    "/99999999999,0123456789abcdef01",
    "/-1,0123456789abcdef01",
    "/1,0123456789abcdefg1",
    "/1,0x23456789abcdef01",
    "/1,+123456789abcdef01",
    "/1,0123456789abcdef01_",
    "/1,0123456789abcdef01_4294967296",
    "/1,0123456789abcdef01_-1",
    "/1,0123456789abcdef0123456789abcdef012",
    "/1@,0123456789abcdef01",
    "/1@7,0123456789abcdef01",
    "/1@fffffffffff8,0123456789abcdef01",
    "/1/0123456789abcdef01/a/b",
    "/1//0123456789abcdef01",
    "/1,0123456789abcdef01.",
    "/1,0123456789abcdef01.jpg.jpg",
    "/%D9%A1,0123456789abcdef01",
    "/1,0123456789abcdef01%20",
)


@pytest.mark.parametrize("path", MALFORMED)
def test_malformed_names_are_400(client: Client, path: str) -> None:
    for method, body in (("GET", None), ("HEAD", None), ("PUT", b"x"), ("POST", b"x"), ("DELETE", None)):
        if client.sock.fileno() < 0:
            break
        answer = client.request(method, path, body)
        assert answer.status == 400, (method, answer)
        if method != "HEAD":
            assert answer.error
        if answer.headers.get("connection") == "close":
            client.close()


def test_unknown_needles_and_volumes(client: Client, store: LocalStore) -> None:
    fid, tail = new_fid(), store.tail()
    for path in (f"/{fid}", f"/{fid}.jpg", f"/1@40,{str(fid)[2:]}", f"/1@7fffffffff8,{str(fid)[2:]}"):
        assert client.get(path).status == 404, path
        assert client.request("HEAD", path).status == 404, path
    assert client.delete(f"/{fid}").status == 404
    stranger = replace(fid, volume=77)
    assert client.get(f"/{stranger}").status == 404
    assert client.delete(f"/{stranger}").status == 404
    answer = client.put(f"/{stranger}", JPEG)
    assert answer.status == 404 and "77" in answer.error
    assert store.tail() == tail


def test_a_wrong_cookie_opens_nothing(client: Client, store: LocalStore) -> None:
    fid = new_fid()
    wrong = replace(fid, cookie=fid.cookie ^ 1)
    locator = client.put(f"/{fid}", JPEG).json()["locator"]
    tail = store.tail()
    for _ in range(3):
        unknown, refused = client.get(f"/{new_fid()}"), client.get(f"/{wrong}")
        assert refused.status == unknown.status == 404
        assert refused.headers.keys() == unknown.headers.keys()
        assert client.get(f"/{fid}").status == 200
    assert client.get("/" + locator.replace(f"{fid.cookie:016x}", f"{wrong.cookie:016x}")).status == 404
    assert client.delete(f"/{wrong}").status == 404
    assert client.get(f"/{fid}").body == JPEG
    with_reason = client.put(f"/{wrong}", b"usurper")
    assert with_reason.status == 409 and "cookie" in with_reason.error
    assert client.get(f"/{fid}").body == JPEG
    assert store.tail() == tail


def test_delete_and_overwrite(client: Client) -> None:
    fid = new_fid()
    first = client.put(f"/{fid}", b"first").json()
    for _ in range(3):
        assert client.get(f"/{fid}").body == b"first"
    second = client.put(f"/{fid}", b"second!").json()
    assert second["eTag"] != first["eTag"] and second["locator"] != first["locator"]
    for path in (f"/{fid}", "/" + first["locator"], "/" + second["locator"]):
        for _ in range(3):
            assert client.get(path).body == b"second!", path
    answer = client.delete(f"/{fid}")
    assert (answer.status, answer.json()) == (202, {"size": 7})
    for path in (f"/{fid}", f"/{fid}.jpg", "/" + first["locator"], "/" + second["locator"]):
        assert client.get(path).status == 404, path
    assert client.delete(f"/{fid}").status == 404
    assert client.put(f"/{replace(fid, cookie=1)}", b"x").status == 409  # nobody takes over a deleted photo's name
    assert client.put(f"/{fid}", b"again").status == 201
    assert client.get(f"/{fid}").body == b"again"


RANGES = [
    ("bytes=0-0", 206, slice(0, 1)),
    ("bytes=0-", 206, slice(0, None)),
    ("bytes=10-19", 206, slice(10, 20)),
    ("bytes=-5", 206, slice(-5, None)),
    ("bytes=-999999999", 206, slice(0, None)),
    ("bytes=5100-999999", 206, slice(5100, None)),
    ("bytes=5123-", 206, slice(5123, None)),
    ("bytes=5124-", 416, None),
    ("bytes=999999-", 416, None),
    ("bytes=-0", 416, None),
    ("bytes=0-1,3-4", 200, None),
    ("bytes=9-3", 200, None),
    ("bytes=a-b", 200, None),
    ("items=0-3", 200, None),
]


@pytest.mark.parametrize(("value", "status", "part"), RANGES)
def test_ranges(client: Client, value: str, status: int, part: slice | None) -> None:
    fid = new_fid()
    assert len(JPEG) == 5124
    client.put(f"/{fid}", JPEG)
    for method in ("GET", "HEAD"):
        answer = client.request(method, f"/{fid}", headers=[("Range", value)])
        assert answer.status == status
        if status == 206:
            assert part is not None
            start, end, _ = part.indices(len(JPEG))
            assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(JPEG)}"
            assert answer.headers["content-length"] == str(end - start)
            assert answer.body == (JPEG[part] if method == "GET" else b"")
        elif status == 416:
            assert answer.headers["content-range"] == f"bytes */{len(JPEG)}"
        elif method == "GET":
            assert answer.body == JPEG


def test_range_of_nothing(client: Client) -> None:
    fid = new_fid()
    client.put(f"/{fid}", b"")
    assert client.get(f"/{fid}", Range="bytes=0-").status == 416
    assert client.get(f"/{fid}", Range="bytes=-1").status == 416


def test_conditions(client: Client) -> None:
    fid = new_fid()
    client.put(f"/{fid}", JPEG)
    plain = client.get(f"/{fid}")
    tag, modified = plain.headers["etag"], plain.headers["last-modified"]
    earlier = "Sun, 06 Nov 1994 08:49:37 GMT"
    for headers, status in (
        ({"If_None_Match": tag}, 304),
        ({"If_None_Match": f'"other", W/{tag}'}, 304),
        ({"If_None_Match": "*"}, 304),
        ({"If_None_Match": '"other"'}, 200),
        ({"If_Modified_Since": modified}, 304),
        ({"If_Modified_Since": earlier}, 200),
        ({"If_Modified_Since": "yesterday"}, 200),
        ({"If_None_Match": '"other"', "If_Modified_Since": modified}, 200),
        ({"If_Range": tag, "Range": "bytes=0-3"}, 206),
        ({"If_Range": modified, "Range": "bytes=0-3"}, 206),
        ({"If_Range": '"other"', "Range": "bytes=0-3"}, 200),
        ({"If_Range": f"W/{tag}", "Range": "bytes=0-3"}, 200),
        ({"If_None_Match": tag, "Range": "bytes=0-3"}, 304),
    ):
        answer = client.get(f"/{fid}", **headers)
        assert answer.status == status, headers
        assert answer.headers["etag"] == tag
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.body == {200: JPEG, 206: JPEG[:4], 304: b""}[status]


def test_head_is_get_without_its_body(client: Client) -> None:
    fid = new_fid()
    client.put(f"/{fid}", JPEG, ("Content-Type", "image/jpeg"), ("X-Haystack-Meta-Place", "Oslo"))
    for _ in range(3):
        got, headed = client.get(f"/{fid}"), client.request("HEAD", f"/{fid}")
        assert headed.status == 200 and headed.body == b""
        assert {**got.headers, "date": ""} == {**headed.headers, "date": ""}
    assert got.headers["accept-ranges"] == "bytes"
    assert got.headers["content-length"] == str(len(JPEG))


TYPES = [
    # declared, name, first bytes, type
    ("image/webp", "a.png", PNG, "image/webp"),
    ("image/svg+xml; charset=utf-8", "", b"<svg/>", "image/svg+xml; charset=utf-8"),
    ("application/octet-stream", "a.gif", JPEG, "image/gif"),
    (None, "a.HEIC", b"?", "image/heic"),
    (None, "a.avif", b"?", "image/avif"),
    (None, "", JPEG, "image/jpeg"),
    (None, "noending", PNG, "image/png"),
    (None, "a.unheardof", b"RIFF1234WEBPVP8 ", "image/webp"),
    (None, "", b"?", "application/octet-stream"),
    (None, "", b"", "application/octet-stream"),
    ("application/x-www-form-urlencoded", "", PNG, "image/png"),
]


@pytest.mark.parametrize(("declared", "name", "body", "kind"), TYPES)
def test_content_type(client: Client, declared: str | None, name: str, body: bytes, kind: str) -> None:
    fid = new_fid()
    headers = [("Content-Type", declared)] if declared else []
    if name:
        headers.append(("Content-Disposition", f'attachment; filename="{name}"'))
    assert client.put(f"/{fid}", body, *headers).status == 201
    assert client.get(f"/{fid}").headers["content-type"] == kind
    assert client.get(f"/{fid}").headers["x-content-type-options"] == "nosniff"
    form_fid = new_fid()
    answer = client.request("POST", f"/{form_fid}", form(body, name, declared), [FORM_TYPE])
    assert answer.status == 201
    if declared != "application/x-www-form-urlencoded":
        assert client.get(f"/{form_fid}").headers["content-type"] == kind


@pytest.mark.parametrize("way", ["raw", "chunks of 1", "chunks of 3"])
def test_content_type_by_signature_of_any_upload(client: Client, way: str) -> None:
    for size in (1000, 400 * 1024):  # the second one spills
        fid, body = new_fid(), PNG + bytes(size)
        if way == "raw":
            assert client.put(f"/{fid}", body).status == 201
        else:
            size = int(way.removeprefix("chunks of "))
            raw = chunked(body[:20], size).removesuffix(b"0\r\n\r\n") + chunked(body[20:], 50_000)
            client.send(head("PUT", f"/{fid}", body, [("Transfer-Encoding", "chunked")]) + raw)
            assert client.answer().status == 201
        assert client.get(f"/{fid}").headers["content-type"] == "image/png"


NAMES = [
    # Content-Disposition of a raw upload, the name, what a read says
    ('inline; filename="cat.jpg"', "cat.jpg", 'inline; filename="cat.jpg"'),
    ("inline; filename=cat.jpg", "cat.jpg", 'inline; filename="cat.jpg"'),
    ('attachment; FILENAME="a;b.jpg"', "a;b.jpg", 'inline; filename="a;b.jpg"'),
    (r'attachment; filename="a\"b.jpg"', 'a"b.jpg', "inline; filename=\"a_b.jpg\"; filename*=UTF-8''a%22b.jpg"),
    ('inline; filename="a=b.jpg"', "a=b.jpg", 'inline; filename="a=b.jpg"'),
    (
        "inline; filename*=UTF-8''na%C3%AFve.jpg",
        "naïve.jpg",
        "inline; filename=\"na_ve.jpg\"; filename*=UTF-8''na%C3%AFve.jpg",
    ),
    ("inline; filename=\"x\"; filename*=utf-8'en'%E2%82%AC", "€", "inline; filename=\"_\"; filename*=UTF-8''%E2%82%AC"),
    (
        'inline; filename="na\xc3\xafve.jpg"',
        "naïve.jpg",
        "inline; filename=\"na_ve.jpg\"; filename*=UTF-8''na%C3%AFve.jpg",
    ),
    (
        "inline; filename*=UTF-8''a%0D%0ASet-Cookie:%20x",
        "a__Set-Cookie: x",
        'inline; filename="a__Set-Cookie: x"',
    ),
    ("inline; filename*=UTF-8''a%00b", "a_b", 'inline; filename="a_b"'),
    ("inline; filename=..", "", None),
    ("inline; filename*=UTF-8''%FF%FE", "\ufffd\ufffd", None),
    ("inline; filename*=UTF-8''%ED%A0%80", "\ufffd\ufffd\ufffd", None),
    ('inline; filename="../../etc/passwd"', "passwd", 'inline; filename="passwd"'),
    ('inline; filename="C:\\\\photos\\\\cat.jpg"', "cat.jpg", 'inline; filename="cat.jpg"'),
    ("inline", "", None),
    ("", "", None),
    (";;;", "", None),
    ("inline; filename", "", None),
    ('inline; filename="', "", None),
    ("inline; filename=\xff", "\ufffd", None),
]


@pytest.mark.parametrize(("disposition", "name", "said"), NAMES)
def test_names(client: Client, disposition: str, name: str, said: str | None) -> None:
    fid = new_fid()
    answer = client.put(f"/{fid}", JPEG, ("Content-Disposition", disposition))
    assert answer.status == 201
    for _ in range(3):
        got = client.get(f"/{fid}")
        assert got.status == 200 and got.body == JPEG
        assert "set-cookie" not in got.headers
    if said is not None:
        assert answer.json()["name"] == name
        assert got.headers["content-disposition"] == said
        assert client.get(f"/{fid}?dl").headers["content-disposition"] == said.replace("inline", "attachment", 1)
    elif not name:
        assert answer.json()["name"] == ""
        assert "content-disposition" not in got.headers
        assert client.get(f"/{fid}?dl=true").headers["content-disposition"] == "attachment"


def test_a_very_long_name_is_cut(client: Client) -> None:
    fid, name = new_fid(), "ä" * 2000
    quoted = "%C3%A4" * 2000
    answer = client.put(f"/{fid}", JPEG, ("Content-Disposition", f"inline; filename*=UTF-8''{quoted}"))
    assert answer.status == 201
    assert answer.json()["name"] == name[:1024]
    assert client.get(f"/{fid}").status == 200


def test_pairs_come_back_as_they_were(client: Client) -> None:
    fid = new_fid()
    sent = {
        "X-Haystack-Meta-Camera": "Leica M6",
        "X-Haystack-Meta-Quote": '"; \\ , =',
        "X-Haystack-Meta-Place": "Tromsø ☃".encode().decode("latin-1"),
        "X-Haystack-Meta-Empty": "",
        "x-haystack-meta-!#$%&'*+.^_`|~-9": "odd",
    }
    assert client.put(f"/{fid}", JPEG, *sent.items()).status == 201
    for _ in range(3):
        got = client.request("HEAD", f"/{fid}.jpg").headers
        assert got["x-haystack-meta-camera"] == "Leica M6"
        assert got["x-haystack-meta-quote"] == '"; \\ , ='
        assert got["x-haystack-meta-place"] == sent["X-Haystack-Meta-Place"]
        assert got["x-haystack-meta-empty"] == ""
        assert got["x-haystack-meta-!#$%&'*+.^_`|~-9"] == "odd"


def test_too_many_or_too_large_pairs_are_refused(client: Client, store: LocalStore) -> None:
    tail, fid = store.tail(), new_fid()
    many = [(f"X-Haystack-Meta-{number}", "x") for number in range(33)]
    with store.client() as other:
        answer = other.put(f"/{fid}", JPEG, *many)
        assert answer.status == 400 and "32" in answer.error
    with store.client() as other:
        assert other.put(f"/{fid}", JPEG, ("X-Haystack-Meta-", "without a name")).status == 400
    answer = client.put(f"/{fid}", JPEG, ("X-Haystack-Meta-A", "x" * 9000))
    assert answer.status == 400 and "8192" in answer.error
    assert store.tail() == tail
    assert store.counter(Counter.UPLOAD_MEMORY_BYTES) == 0


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    fids = [new_fid() for _ in range(30)]
    client.send(b"".join(head("PUT", f"/{fid}", b"%d" % number) + b"%d" % number for number, fid in enumerate(fids)))
    for _ in fids:
        assert client.answer().status == 201
    client.send(b"".join(head("GET", f"/{fid}") + head("DELETE", f"/{fid}") for fid in fids))
    for number in range(len(fids)):
        got, deleted = client.answer(), client.answer()
        assert (got.status, got.body, deleted.status) == (200, b"%d" % number, 202)


def test_keep_alive_and_close(store: LocalStore) -> None:
    fid = new_fid()
    with store.client() as client:
        client.put(f"/{fid}", JPEG)
        answer = client.get(f"/{fid}", Connection="close")
        assert answer.headers["connection"] == "close" and answer.body == JPEG
        assert client.at_end()
    with store.client() as client:
        client.send(f"GET /{fid} HTTP/1.0\r\n\r\n".encode())
        assert client.answer().body == JPEG
        assert client.at_end()


REFUSED = [
    # what, request, status
    ("declared too large", head("PUT", "/{fid}", None, [("Content-Length", str(2 * MIB + 1))]), 413),
    ("declared far too large", head("PUT", "/{fid}", None, [("Content-Length", "9" * 18)]), 413),
    ("declared too large for the volume", head("PUT", "/{fid}", None, [("Content-Length", str(2**40))]), 413),
    (
        "declared too large, 100-continue",
        head("PUT", "/{fid}", None, [("Content-Length", str(2 * MIB + 1)), ("Expect", "100-continue")]),
        413,
    ),
    (
        "chunked too large",
        head("PUT", "/{fid}", b"", [("Transfer-Encoding", "chunked")]) + b"200001\r\n" + bytes(2 * MIB + 1),
        413,
    ),
    ("bad chunk size", head("PUT", "/{fid}", b"", [("Transfer-Encoding", "chunked")]) + b"5\r\nabcde\r\nxyz\r\n", 400),
    ("bad chunk end", head("PUT", "/{fid}", b"", [("Transfer-Encoding", "chunked")]) + b"5\r\nabcdefg\r\n", 400),
    ("two lengths", head("PUT", "/{fid}", None, [("Content-Length", "5"), ("Content-Length", "6")]) + b"abcde", 400),
    (
        "length and chunked",
        head("PUT", "/{fid}", None, [("Content-Length", "5"), ("Transfer-Encoding", "chunked")]) + b"0\r\n\r\n",
        400,
    ),
    ("no number", head("PUT", "/{fid}", None, [("Content-Length", "-1")]), 400),
    ("form too large", head("POST", "/{fid}", form(bytes(2 * MIB + 1)), [FORM_TYPE]) + form(bytes(2 * MIB + 1)), 413),
    ("no boundary", head("POST", "/{fid}", b"x", [("Content-Type", "multipart/form-data")]) + b"x", 400),
    ("no form", head("POST", "/{fid}", b"x", [FORM_TYPE]) + b"x", 400),
    ("form without end", head("POST", "/{fid}", form(JPEG)[:-4], [FORM_TYPE]) + form(JPEG)[:-4], 400),
    ("form without file", head("POST", "/{fid}", form(JPEG)[:60], [FORM_TYPE]) + form(JPEG)[:60], 400),
    (
        "spilled form without end",
        head("POST", "/{fid}", form(bytes(MIB))[:-4], [FORM_TYPE]) + form(bytes(MIB))[:-4],
        400,
    ),
    ("unknown method", head("PATCH", "/{fid}", b"x") + b"x", 405),
    ("upload to a locator", head("PUT", "/1@40,0123456789abcdef01", b"x") + b"x", 400),
]


@pytest.mark.parametrize(("what", "request_bytes", "status"), REFUSED, ids=[one[0] for one in REFUSED])
def test_refused_uploads_leave_nothing(store: LocalStore, what: str, request_bytes: bytes, status: int) -> None:
    tail, fid = store.tail(), new_fid()
    with store.client() as client:
        client.send(request_bytes.replace(b"{fid}", str(fid).encode(), 1))
        answer = client.answer()
        assert answer.status == status, (what, answer)
        assert answer.error
    with store.client() as client:
        assert client.get(f"/{fid}").status == 404
    assert store.tail() == tail
    assert list((store.folder / "tmp").iterdir()) == []
    assert store.counter(Counter.UPLOAD_MEMORY_BYTES) == 0


def test_pages_about_the_worker(client: Client) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    page = client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"haystack_store_requests_total" in page.body
    for path in ("/healthz", "/readyz", "/metrics"):
        answer = client.request("HEAD", path)
        assert answer.status == 200 and int(answer.headers["content-length"]) > 0
        assert client.request("DELETE", path).status == 400
    answer = client.request("OPTIONS", "*")
    assert answer.status == 405 and "PUT" in answer.headers["allow"]
