"""Trash and times to live, from the command and the client through a real Store to a real Directory."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from transfer_cluster import RealCluster

from haystack.client import SyncHaystackClient
from haystack.errors import InvalidRequest, NeedleNotFound
from haystack.fid import Fid

DATA = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
WAIT_SECONDS = 30.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    cluster = RealCluster(tmp_path_factory.mktemp("cluster"))
    with contextlib.ExitStack() as stack:
        stack.callback(cluster.stop)
        yield cluster


@pytest.fixture
def client(cluster: RealCluster) -> Iterator[SyncHaystackClient]:
    with SyncHaystackClient(cluster.directory.ready.url) as opened:
        yield opened


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    path.write_bytes(DATA)
    return path


def put(cluster: RealCluster, *arguments: str | Path) -> str:
    return str(cluster.json("put", *arguments)["stored"][0]["fid"])


def known(cluster: RealCluster, fid: str) -> Any:
    """What the Directory says of a photo; None when it does not know it."""
    url = f"{cluster.directory.ready.url}/photos/{Fid.parse(fid).key:x}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        assert error.code == 404
        return None


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_a_photo_that_was_deleted_by_mistake_comes_back(cluster: RealCluster, photo: Path) -> None:
    fid = put(cluster, photo)
    until(lambda: known(cluster, fid) is not None, "the Directory knows it")
    before = known(cluster, fid)
    cluster.run("rm", fid, "--apply")
    cluster.run("get", fid, code=1)
    until(lambda: known(cluster, fid) is None, "the Directory knows that it is gone")
    assert b"brought back" in cluster.run("undelete", fid).stdout
    assert cluster.run("get", fid).stdout == DATA
    until(lambda: known(cluster, fid) is not None, "the Directory knows it again")
    assert known(cluster, fid) == before
    again = cluster.json("undelete", fid, code=1)["photos"][0]
    assert again["undeleted"] is False and "not deleted" in again["error"]


def test_a_photo_id_cannot_be_undeleted(cluster: RealCluster) -> None:
    assert b"name it by its fid" in cluster.run("undelete", "1f", code=1).stderr


def test_what_must_go_goes_for_good(cluster: RealCluster, photo: Path) -> None:
    fids = [put(cluster, photo) for _ in range(2)]
    cluster.run("rm", fids[1], "--apply")
    plan = cluster.run("rm", "--now", *fids)
    assert b"to delete, if it is in the trash" in plan.stdout and b"--apply" in plan.stderr
    cluster.run("undelete", fids[1])
    cluster.run("rm", fids[1], "--apply")
    done = cluster.json("rm", "--now", *fids, "--apply")["photos"]
    assert [(one["deleted"], one["size"]) for one in done] == [(True, len(DATA))] * 2
    errors = [one["error"] for one in cluster.json("undelete", *fids, code=1)["photos"]]
    assert all("deleted for good" in error for error in errors)
    assert "is not here" in cluster.json("rm", "--now", fids[0], "--apply", code=1)["photos"][0]["error"]


def test_the_client_without_asyncio_does_it_too(client: SyncHaystackClient) -> None:
    stored = client.upload(DATA, name="a.png")
    assert client.delete(stored.fid) == len(DATA)
    assert client.undelete(stored.url) == len(DATA)
    assert client.stat(stored.fid).etag == stored.etag
    assert client.delete(stored.locator, now=True) == len(DATA)
    with pytest.raises(NeedleNotFound, match="for good"):
        client.undelete(stored.fid)


def test_a_photo_with_an_end_says_so_everywhere(cluster: RealCluster, photo: Path) -> None:
    fid = put(cluster, "--ttl", "4h", photo)
    expires = datetime.fromisoformat(cluster.json("stat", fid)["expires"])
    left_seconds = (expires - datetime.now(UTC)).total_seconds()
    assert 4 * 3600 - 60 < left_seconds <= 4 * 3600 + 1
    assert b"expires  " in cluster.run("stat", fid).stdout
    until(lambda: known(cluster, fid) is not None, "the Directory knows it")
    assert known(cluster, fid)["renditions"][0]["expires"] == expires.timestamp()
    lasting = put(cluster, photo)
    assert cluster.json("stat", lasting)["expires"] is None
    assert b"expires" not in cluster.run("stat", lasting).stdout


def test_an_expired_photo_is_gone_for_all(cluster: RealCluster, photo: Path, client: SyncHaystackClient) -> None:
    fids = [put(cluster, "--ttl", "2", photo), client.upload(DATA, ttl="2").fid]
    assert client.stat(fids[1]).expires is not None
    until(lambda: all(known(cluster, fid) is None and not _is_there(client, fid) for fid in fids), "they are gone")
    for fid in fids:
        cluster.run("rm", fid, "--apply", code=1)
        cluster.run("undelete", fid, code=1)


def _is_there(client: SyncHaystackClient, fid: str) -> bool:
    try:
        return client.read(fid) == DATA
    except NeedleNotFound:
        return False


def test_imported_photos_may_have_an_end(cluster: RealCluster, photo: Path) -> None:
    cluster.run("import", photo.parent, "--ttl", "5d", "--manifest", photo.parent.parent / "list")
    line = (photo.parent.parent / "list").read_text().splitlines()[1]
    assert cluster.json("stat", json.loads(line)["fid"])["expires"] is not None


@pytest.mark.parametrize("ttl", ["soon", "200y"])
def test_a_ttl_that_cannot_be_is_wrong_usage(cluster: RealCluster, photo: Path, ttl: str) -> None:
    assert b"ttl" in cluster.run("put", photo, "--ttl", ttl, code=2).stderr


def test_the_client_refuses_a_ttl_that_cannot_be(client: SyncHaystackClient) -> None:
    for ttl in ("soon", "100y"):
        with pytest.raises(InvalidRequest, match="ttl"):
            client.upload(DATA, ttl=ttl)


def test_a_ttl_that_was_given_to_the_assign_alone_counts(cluster: RealCluster) -> None:
    with urllib.request.urlopen(f"{cluster.directory.ready.url}/dir/assign?ttl=5m&count=2&photos=2", timeout=10) as got:
        assigned = json.load(got)
    for suffix, query, at_most in (
        ("", "", 301),
        ("_1", "", 301),
        ("_2", "?ttl=2d", 2 * 86_400 + 1),
        ("_3", "?ttl=0", 0),
    ):
        for fid in assigned["fids"]:
            url = f"http://{assigned['publicUrl']}/{fid}{suffix}"
            with urllib.request.urlopen(urllib.request.Request(url + query, DATA, method="PUT"), timeout=10) as answer:
                assert answer.status == 201
            with urllib.request.urlopen(url, timeout=10) as answer:
                cached = answer.headers["Cache-Control"].removeprefix("public, max-age=")
                assert answer.read() == DATA
            assert cached == "31536000, immutable" if not at_most else at_most - 61 <= int(cached) <= at_most
    until(lambda: len((known(cluster, assigned["fid"]) or {"renditions": ()})["renditions"]) == 4, "all are known")
    renditions = {one["alternate"]: one.get("expires") for one in known(cluster, assigned["fid"])["renditions"]}
    assert renditions[0] and renditions[1] and renditions[2] > renditions[0] and not renditions[3]


def test_a_seaweedfs_client_hands_the_ttl_of_its_assign_on(cluster: RealCluster) -> None:
    with urllib.request.urlopen(f"{cluster.directory.ready.url}/dir/assign?ttl=5m", timeout=10) as answer:
        assigned = json.load(answer)
    url = f"http://{assigned['publicUrl']}/{assigned['fid']}"
    upload = urllib.request.Request(f"{url}?ttl={assigned['ttl']}", DATA, method="POST")
    with urllib.request.urlopen(upload, timeout=10) as answer:
        assert answer.status == 201
    with urllib.request.urlopen(url, timeout=10) as answer:
        max_age = answer.headers["Cache-Control"].removeprefix("public, max-age=")
        assert answer.read() == DATA and 240 < int(max_age) <= 301
