"""Photos that are not in the page cache: past it on the first sighting, into it on the second; failures are answers."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_data_harness import LocalStore, drop_cache, new_fid, running

from haystack.fid import Fid
from haystack.store import lanes
from haystack.store.control_cells import Counter
from haystack.store.lanes import Lane
from haystack.store.recent import MAX_PHOTOS, RecentReads
from haystack.volume.direct import LENT_BUFFERS, DirectReads
from haystack.volume.files import VolumeFile, prefetch
from haystack.volume.mapping import VolumeMap

PHOTO = random.Random(3).randbytes(200_000)


@pytest.fixture(params=["strict", "fast"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalStore]:
    with running(tmp_path) as store:
        if request.param == "fast":  # header fields that were seen before: plain GETs pass by the parser
            assert store.once("GET", "/healthz").status == 200
        yield store


def cold_photos(store: LocalStore, count: int) -> list[tuple[Fid, bytes]]:
    """Photos on the disk that no worker has touched, in a volume whose pages the kernel was made to forget."""
    photos = [(new_fid(), number.to_bytes(4, "big") + PHOTO) for number in range(count)]
    with store.client() as client:
        for fid, body in photos:
            assert client.put(f"/{fid}", body).status == 201
    file = VolumeFile(store.path())
    direct = file.direct_fd() >= 0
    file.close()
    drop_cache(store.path())
    if not direct or resident(store.path(), 0, 2 * len(PHOTO)):
        pytest.skip("this file system has no O_DIRECT, or keeps its pages")
    return photos


def resident(path: Path, offset: int, size_bytes: int) -> bool:
    fd = os.open(path, os.O_RDWR)
    try:
        return VolumeMap(fd).view(offset, size_bytes) is not None
    finally:
        os.close(fd)


def test_cold_photo_passes_the_page_cache_once_and_is_kept_the_second_time(store: LocalStore) -> None:
    photos = cold_photos(store, 3)
    entry = store.volumes[1].find(photos[1][0].key)
    assert entry is not None
    with store.client() as client:
        for cold, kept in ((1, False), (2, True), (2, True), (2, True)):
            answer = client.get(f"/{photos[1][0]}")
            assert (answer.status, answer.body) == (200, photos[1][1])
            assert store.counter(Counter.COLD_READS) == cold
            assert resident(store.path(), entry.offset, entry.total_bytes) is kept
        assert client.get(f"/{photos[2][0]}").body == photos[2][1]


def test_cold_photos_answer_every_kind_of_request(store: LocalStore) -> None:
    photos = cold_photos(store, 5)
    with store.client() as client:
        head = client.request("HEAD", f"/{photos[0][0]}")
        assert (head.status, head.body, int(head.headers["content-length"])) == (200, b"", len(photos[0][1]))
        part = client.get(f"/{photos[1][0]}", Range="bytes=1000-1999")
        assert (part.status, part.body) == (206, photos[1][1][1000:2000])
        assert client.get(f"/{photos[2][0]}", Range="bytes=900000-").status == 416
        same = client.get(f"/{photos[3][0]}", If_None_Match="*")
        assert (same.status, same.body) == (304, b"")
        closing = client.get(f"/{photos[4][0]}", Connection="close")
        assert (closing.status, closing.body) == (200, photos[4][1])
        assert client.at_end()


def test_cold_photos_pipelined_come_in_order(store: LocalStore) -> None:
    photos = cold_photos(store, 9)
    with store.client() as client:
        client.send(b"".join(b"GET /%s HTTP/1.1\r\nHost: store\r\n\r\n" % str(fid).encode() for fid, _ in photos))
        for _, body in photos:
            assert client.answer().body == body


def test_cold_photo_with_a_wrong_cookie_is_not_found(store: LocalStore) -> None:
    (fid, _), (other, body) = cold_photos(store, 2)
    with store.client() as client:
        for _ in range(3):
            drop_cache(store.path())
            assert client.get(f"/{Fid(fid.volume, fid.key, fid.cookie ^ 1)}").status == 404
        assert client.get(f"/{other}").body == body


def test_cold_photo_that_is_damaged_is_an_answer_and_nothing_more(store: LocalStore) -> None:
    (fid, _), (other, body) = cold_photos(store, 2)
    entry = store.volumes[1].find(fid.key)
    assert entry is not None
    with store.path().open("r+b") as file:
        file.seek(entry.offset + 100_000)
        file.write(b"wrong")
    drop_cache(store.path())
    with store.client() as client:
        assert client.get(f"/{fid}").status == 500
        assert client.get(f"/{fid}").status == 500
        assert client.get(f"/{other}").body == body
    assert store.counter(Counter.DAMAGED_READS) == 2


def test_cold_photo_behind_the_end_of_a_cut_file_is_an_answer_and_nothing_more(store: LocalStore) -> None:
    (other, body), (fid, _) = cold_photos(store, 2)
    entry = store.volumes[1].find(fid.key)
    assert entry is not None
    os.truncate(store.path(), entry.offset + 1000)
    with store.client() as client:
        answer = client.get(f"/{fid}")
        assert answer.status == 500 and "the file ends" in answer.error
        assert client.get(f"/{other}").body == body


def test_cold_photos_that_nobody_reads_leave_buffers_for_others(store: LocalStore) -> None:
    photos = cold_photos(store, LENT_BUFFERS + 8)
    clients = [store.client(receive_buffer_bytes=4096) for _ in photos[1:]]
    for client, (fid, _) in zip(clients, photos[1:], strict=True):
        client.send(b"GET /%s HTTP/1.1\r\nHost: store\r\n\r\n" % str(fid).encode())
    with store.client() as client:
        assert client.get(f"/{photos[0][0]}").body == photos[0][1]
    for client, (_, body) in zip(clients, photos[1:], strict=True):
        assert client.answer().body == body
        client.close()


def test_cold_photos_of_clients_who_leave(store: LocalStore) -> None:
    photos = cold_photos(store, 20)
    for fid, _ in photos[1:]:
        client = store.client()
        client.send(b"GET /%s HTTP/1.1\r\nHost: store\r\n\r\n" % str(fid).encode())
        client.reset()
    assert store.once("GET", f"/{photos[0][0]}").body == photos[0][1]


def test_photos_that_were_just_uploaded_are_not_cold_whatever_their_size(store: LocalStore) -> None:
    with store.client() as client:
        for size_bytes in (100, 50_000, 300_000, 1_000_000, 2_000_000) * 2:
            fid, body = new_fid(), random.Random(size_bytes).randbytes(size_bytes)
            assert client.put(f"/{fid}", body).status == 201
            for _ in range(2):
                assert client.get(f"/{fid}").body == body
    assert store.counter(Counter.COLD_READS) == 0


async def test_lane_without_asynchronous_reads_leaves_them_to_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(call_soon: object) -> DirectReads:
        raise OSError(38, "no such call")

    monkeypatch.setattr(lanes, "DirectReads", refuse)
    lane = Lane(tmp_path, durable=False, deliver=lambda outcomes: None)
    with caplog.at_level(logging.WARNING):
        assert lane.direct() is None
        assert lane.direct() is None
    assert caplog.text.count("read by threads") == 1
    lane.close()


async def test_lane_reads_on_its_loop(tmp_path: Path) -> None:
    path = tmp_path / "1.vol"
    path.write_bytes(PHOTO)
    file = VolumeFile(path)
    file.sync()
    lane = Lane(tmp_path, durable=False, deliver=lambda outcomes: None)
    direct = lane.direct()
    if direct is None or file.direct_fd() < 0:
        pytest.skip("no O_DIRECT, or no asynchronous reads")
    found: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    direct.read(file.direct_fd(), 1000, 100_000, lambda view, problem: found.set_result(bytes(view or b"")))
    assert await asyncio.wait_for(found, 30) == PHOTO[1000:101_000]
    lane.close()
    file.close()


def test_recent_reads_are_remembered_for_a_window_of_bytes() -> None:
    recent = RecentReads(1000)
    assert not recent.is_repeated(1, 8, 100)
    assert not recent.is_repeated(2, 8, 100)
    assert recent.is_repeated(1, 8, 100)
    for offset in range(100, 110):
        assert not recent.is_repeated(1, offset, 80)
    assert recent.is_repeated(2, 8, 100)  # within the last window
    for offset in range(200, 230):
        assert not recent.is_repeated(1, offset, 80)
    assert not recent.is_repeated(1, 8, 100)


def test_recent_reads_are_bounded_by_number() -> None:
    recent = RecentReads(2**60)
    for offset in range(3 * MAX_PHOTOS):
        assert not recent.is_repeated(1, offset, 1)
    assert recent.is_repeated(1, 3 * MAX_PHOTOS - 1, 1)
    assert not recent.is_repeated(1, 0, 1)


def test_prefetched_file_comes_into_the_page_cache(tmp_path: Path) -> None:
    path = tmp_path / "1.idx"
    path.write_bytes(PHOTO)
    drop_cache(path)
    prefetch(path, 2**20)
    with path.open("rb") as file:
        assert file.read() == PHOTO
    assert resident(path, 0, len(PHOTO))
