"""The trash over HTTP: deleted photos come back through every worker, those deleted for good do not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_data_harness import Client, LocalStore, new_fid, running

from haystack.store.control_cells import VolumeState

RETENTION_SECONDS = 1000
BODY = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStore]:
    folder: Path = tmp_path_factory.mktemp("trash")
    with running(folder, workers=2, trash_retention_seconds=RETENTION_SECONDS) as started:
        yield started


@pytest.fixture
def client(store: LocalStore) -> Iterator[Client]:
    with store.client() as opened:
        yield opened


def test_a_deleted_photo_comes_back_through_all_workers(store: LocalStore, client: Client) -> None:
    fid = new_fid()
    stored = client.put(f"/{fid}", BODY, ("Content-Type", "image/jpeg")).json()
    with store.client(1) as other:
        for path in (f"/{fid}", f"/{stored['locator']}"):
            before = [other.get(path) for _ in range(3)]  # so that it is cached there
            assert client.delete(path).status == 202
            assert [one.get(path).status for one in (client, other)] == [404, 404]
            answer = other.request("POST", f"{path}?undelete=true", b"")
            assert (answer.status, answer.json()) == (200, {"size": len(BODY)})
            for one in (client, other):
                after = one.get(path)
                assert (after.status, after.body) == (200, BODY)
                assert after.headers["etag"] == before[0].headers["etag"]
                assert after.headers["cache-control"] == before[0].headers["cache-control"]


def test_it_is_brought_back_without_a_body_too(client: Client) -> None:
    fid = new_fid()
    client.put(f"/{fid}", BODY)
    client.delete(f"/{fid}")
    assert client.request("POST", f"/{fid}?undelete").status == 200
    assert client.get(f"/{fid}").body == BODY  # on the same connection


@pytest.mark.parametrize("now", ["now=true", "now=1", "now"])
def test_what_was_deleted_for_good_stays_away(client: Client, now: str) -> None:
    fid = new_fid()
    client.put(f"/{fid}", BODY)
    assert client.delete(f"/{fid}?{now}").json() == {"size": len(BODY)}
    refused = client.request("POST", f"/{fid}?undelete=true")
    assert refused.status == 404 and refused.json()["size"] == 0
    assert "deleted for good" in refused.error


def test_deleting_for_good_empties_the_trash(client: Client) -> None:
    fid = new_fid()
    client.put(f"/{fid}", BODY)
    assert client.delete(f"/{fid}?now=false").status == 202
    assert client.delete(f"/{fid}").status == 404
    assert client.delete(f"/{fid}?now=true").status == 202
    assert client.delete(f"/{fid}?now=true").status == 404
    assert client.request("POST", f"/{fid}?undelete=true").status == 404


def test_what_is_not_in_the_trash_cannot_be_brought_back(client: Client) -> None:
    fid = new_fid()
    assert client.request("POST", f"/{fid}?undelete=true").status == 404
    client.put(f"/{fid}", BODY)
    assert "not deleted" in client.request("POST", f"/{fid}?undelete=true").error
    client.delete(f"/{fid}")
    stranger = new_fid(key=fid.key)
    assert client.request("POST", f"/{stranger}?undelete=true").status == 404
    assert client.get(f"/{fid}").status == 404


def test_the_trash_keeps_photos_for_the_retention_that_is_set(store: LocalStore, client: Client) -> None:
    now_ms = time.time_ns() // 1_000_000
    for age_seconds, status in ((RETENTION_SECONDS - 100, 200), (RETENTION_SECONDS + 1, 404)):
        fid = new_fid()
        client.put(f"/{fid}", BODY)
        store.volumes[1].delete(fid.key, fid.cookie, time_ms=now_ms - age_seconds * 1000)
        answer = client.request("POST", f"/{fid}?undelete=true")
        assert answer.status == status, answer
    assert "the trash keeps photos for 1000 s" in answer.error


def test_what_says_neither_yes_nor_no_is_refused(client: Client) -> None:
    fid = new_fid()
    client.put(f"/{fid}", BODY)
    assert client.delete(f"/{fid}?now=perhaps").status == 400
    assert client.get(f"/{fid}").status == 200
    with_body = client.request("POST", f"/{fid}?undelete=perhaps")
    assert with_body.status == 400


def test_no_undelete_is_an_upload(client: Client) -> None:
    fid = new_fid()
    assert client.request("POST", f"/{fid}?undelete=false", BODY).status == 201
    assert client.get(f"/{fid}").body == BODY


def test_a_full_volume_gives_its_trash_back(store: LocalStore, client: Client) -> None:
    fid = new_fid()
    client.put(f"/{fid}", BODY)
    client.delete(f"/{fid}")
    store.set_state(VolumeState.READONLY)
    try:
        assert client.request("POST", f"/{fid}?undelete=true").status == 200
    finally:
        store.set_state(VolumeState.WRITABLE)
    assert client.get(f"/{fid}").body == BODY


def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    back, gone = new_fid(), new_fid()
    store = LocalStore(tmp_path)
    try:
        with store.client() as client:
            for fid in (back, gone):
                client.put(f"/{fid}", BODY)
                client.delete(f"/{fid}")
            client.request("POST", f"/{back}?undelete=true")
        store.stop()
        (tmp_path / "1.idx").unlink()
        store = LocalStore(tmp_path)
        with store.client() as client:
            assert [client.get(f"/{fid}").status for fid in (back, gone)] == [200, 404]
            assert client.request("POST", f"/{gone}?undelete=true").status == 200
            assert client.get(f"/{gone}").body == BODY
    finally:
        store.stop()
