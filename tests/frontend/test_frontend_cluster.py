"""The photo service as ``haystack up`` starts it: the documented calls by curl, who gets the bytes at Cache and Store,
and the database made anew.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from haystack.fid import Fid
from haystack.security import AUTH_HEADER, load_secret, sign
from haystack.signed_urls import UrlSigner
from haystack.views import is_view

HAYSTACK = (sys.executable, "-P", "-m", "tools.cli")
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("HAYSTACK_")}
DOCUMENT = Path(__file__).parents[2] / "docs" / "photo-api.md"


class Up:
    """One `haystack up` on free ports, with one Store, a Cache and the photo service."""

    def __init__(self, data: Path) -> None:
        self.data = data
        arguments = ("--directory-port", "0", "--store-port", "0", "--workers", "1", "--cache-memory", "128MiB")
        self.log = data.parent / "up.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*HAYSTACK, "up", "--json", "--data", str(data), *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=ENVIRON,
            )
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        if not lines:
            pytest.fail(self.log.read_text())
        self.told: dict[str, Any] = json.loads("".join(lines))
        self.api = f"{self.told['frontend']}/api/v1"

    def call(self, method: str, path: str, token: str | None = None, document: Any = None) -> tuple[int, Any]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        body = None
        if document is not None:
            headers["Content-Type"], body = "application/json", json.dumps(document).encode()
        return fetch(urllib.request.Request(self.api + path, body, headers, method=method))

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)


def fetch(request: urllib.request.Request | str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            status, raw = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, raw = error.code, error.read()
    try:
        return status, json.loads(raw) if raw else None
    except ValueError:
        return status, raw


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    one = Up(tmp_path_factory.mktemp("site") / "data")
    yield one
    one.stop()


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "beach.jpg"
    image = Image.linear_gradient("L").resize((1200, 900)).convert("RGB")
    image.save(path, "JPEG", quality=90)
    return path


@pytest.fixture(scope="module")
def documented(up: Up, picture: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Run all examples of the document; the values of their variables."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    blocks = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names = ("ALICE", "BOB", "PHOTO", "FRIENDS")
    script = "set -euo pipefail\n" + "\n".join(blocks) + "".join(f"\necho >&3 {name}=${name}" for name in names)
    folder = tmp_path_factory.mktemp("shell")
    environ = {**ENVIRON, "SITE": up.told["frontend"], "PHOTO_FILE": str(picture)}
    done = subprocess.run(
        ["bash", "-x", "-c", f"exec 3> variables\n{script}"],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with Image.open(folder / "small.webp") as small:
        assert (small.format, small.size) == ("WEBP", (320, 240))
    with Image.open(folder / "original.jpg") as original:
        assert (original.format, original.size) == ("JPEG", (1200, 900))
    return dict(line.split("=", 1) for line in (folder / "variables").read_text().splitlines())


def test_the_documented_calls_work_as_they_stand(up: Up, documented: dict[str, str]) -> None:
    assert up.call("GET", f"/photos/{documented['PHOTO']}", documented["ALICE"])[0] == 404


def wait_for_photo(up: Up, photo: str, token: str) -> Any:
    deadline = time.monotonic() + 15
    while True:
        status, answer = up.call("GET", f"/photos/{photo}", token)
        if status == 200 or time.monotonic() > deadline:
            assert status == 200, answer
            return answer
        time.sleep(0.05)  # the intake publishes it beside


def test_cache_and_store_give_hidden_photos_to_nobody_else(up: Up, documented: dict[str, str]) -> None:
    photo = wait_for_photo(up, documented["FRIENDS"], documented["ALICE"])
    assert photo["visibility"] == "followers"
    assert up.call("GET", f"/photos/{photo['id']}")[0] == 404
    assert up.call("GET", f"/photos/{photo['id']}", documented["BOB"])[0] == 404
    store = up.told["stores"][0]["url"]
    for picture in photo["pictures"]:
        assert picture["url"].startswith(up.told["cache"])
        path, _, query = picture["url"].partition("?")
        at_store = path.replace(up.told["cache"], store)
        other = next(one["url"] for one in photo["pictures"] if one["url"].partition("?")[0] != path)
        for base in (path, at_store):
            assert fetch(base)[0] == 404
            assert fetch(f"{base}?{other.partition('?')[2]}")[0] == 404
            assert fetch(f"{base}?{query}x")[0] == 404
            status, raw = fetch(f"{base}?{query}")
            assert status == 200
            with Image.open(io.BytesIO(raw)) as image:
                assert image.width == min(1200, picture["width"])
        # Nor once the Cache has it.
        assert fetch(path)[0] == 404
    record = photo["pictures"][0]["url"].rpartition("_")[0] + "_99"
    assert fetch(record)[0] == 404 and fetch(record.replace(up.told["cache"], store))[0] == 404


def test_a_signature_ends(up: Up, documented: dict[str, str]) -> None:
    """Who was a follower keeps the URLs that he was given, but not for long."""
    photo = wait_for_photo(up, documented["FRIENDS"], documented["ALICE"])
    signer = UrlSigner(load_secret(up.data / "secret"))
    for picture in photo["pictures"][:3]:
        path, _, query = picture["url"].partition("?")
        until = int(query.partition("&")[0].removeprefix("e="))
        assert time.time() + 3600 - 60 < until <= time.time() + 2 * 3600
        fid = Fid.parse(path.rpartition("/")[2])
        for base in (path, path.replace(up.told["cache"], up.told["stores"][0]["url"])):
            assert fetch(f"{base}?{signer.query(fid, int(time.time()) + 60)}")[0] == 200
            assert fetch(f"{base}?{signer.query(fid, int(time.time()) - 1)}")[0] == 404


def test_an_upload_is_its_tickets_alone(up: Up, documented: dict[str, str], picture: Path) -> None:
    """Another one's ticket neither sees, nor goes on with, nor ends an upload; the photo is its ticket's owner's."""
    data = picture.read_bytes()
    offers = {}
    for name in ("ALICE", "BOB"):
        status, offers[name] = up.call("POST", "/uploads", documented[name], {"size": len(data), "name": "a.jpg"})
        assert status == 201

    def tus(method: str, url: str, ticket: str, body: bytes | None = None, **more: str) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {ticket}", "Tus-Resumable": "1.0.0"}
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        request = urllib.request.Request(url, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, response.headers.get("Location", "")
        except urllib.error.HTTPError as error:
            error.close()
            return error.code, ""

    alice, bob = (offers[name]["ticket"] for name in ("ALICE", "BOB"))
    base = offers["ALICE"]["tusUrl"]
    status, where = tus("POST", base, alice, Upload_Length=str(len(data)))
    assert status == 201
    url, kind = base.removesuffix("/files") + where, "application/offset+octet-stream"
    for token in (bob, documented["ALICE"], "x"):
        for method in ("HEAD", "PATCH", "DELETE"):
            body = data if method == "PATCH" else None
            refused, _ = tus(method, url, token, body, Upload_Offset="0", Content_Type=kind)
            assert refused in (403, 404), (method, refused)
    assert tus("PATCH", url, alice, data, Upload_Offset="0", Content_Type=kind)[0] == 204
    assert wait_for_photo(up, offers["ALICE"]["photo"], documented["ALICE"])["owner"] == "alice"
    assert tus("DELETE", url, alice)[0] == 404 and up.call("GET", f"/photos/{offers['BOB']['photo']}")[0] == 404
    assert up.call("DELETE", f"/photos/{offers['ALICE']['photo']}", documented["BOB"])[0] == 403
    assert up.call("DELETE", f"/photos/{offers['ALICE']['photo']}", documented["ALICE"])[0] == 204


def test_urls_of_before_die_with_another_visibility(up: Up, documented: dict[str, str]) -> None:
    alice = documented["ALICE"]
    photo = wait_for_photo(up, documented["FRIENDS"], alice)
    old = photo["pictures"][0]["url"]
    assert fetch(old)[0] == 200
    status, changed = up.call("PATCH", f"/photos/{photo['id']}", alice, {"visibility": "public", "title": "For all"})
    assert status == 200 and changed["id"] == photo["id"]
    new = changed["pictures"][0]["url"]
    assert "?" not in new and fetch(new)[0] == 200
    deadline = time.monotonic() + 15
    while fetch(old)[0] != 404:
        assert time.monotonic() < deadline, "the old URL still works"
        time.sleep(0.1)  # the needles are removed beside, and the Cache is told


def test_what_the_cache_shows_is_told_to_who_counts_views(up: Up, documented: dict[str, str]) -> None:
    photo = wait_for_photo(up, documented["FRIENDS"], documented["ALICE"])
    secret = load_secret(up.data / "secret")

    def hits() -> dict[str, int]:
        url = f"{up.told['directory']}/internal/hits"
        header = sign(secret, "POST", "/internal/hits", b"{}", now=time.time())
        status, answer = fetch(urllib.request.Request(url, b"{}", {AUTH_HEADER: header}, method="POST"))
        assert status == 200
        return dict(answer["hits"])

    named = {one["url"]: Fid.parse(one["url"].rpartition("/")[2].partition("?")[0]) for one in photo["pictures"]}
    url = next(url for url, fid in named.items() if is_view(fid.alternate))
    key = f"{named[url].key:x}"
    fetch(url)
    time.sleep(1)  # what was read before is told, or is not; nothing of it is waited for
    hits()
    for _ in range(20):
        assert fetch(url)[0] == 200
    counted, deadline = 0, time.monotonic() + 15
    while counted < 20 and time.monotonic() < deadline:
        counted += hits().get(key, 0)
        time.sleep(0.1)
    assert 20 <= counted <= 22


def test_the_database_is_made_anew_from_the_store(up: Up, documented: dict[str, str], tmp_path: Path) -> None:
    photo = wait_for_photo(up, documented["FRIENDS"], documented["ALICE"])
    database = f"sqlite:///{tmp_path}/new.db"

    def haystack(*arguments: str) -> Any:
        done = subprocess.run(
            [*HAYSTACK, "frontend", *arguments, "--data", str(up.data), "--database", database, "--json"],
            capture_output=True,
            text=True,
            env=ENVIRON,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    told = haystack("rebuild")
    assert told["photos"] == 2 and told["people"] == 2 and told["unreadable"] == []
    assert haystack("rebuild")["known"] == 2
    assert len(haystack("password", "alice")["password"]) >= 12
    with sqlite3.connect(tmp_path / "new.db") as connection:
        rows = connection.execute(
            "SELECT photos.id, username, name, title, visibility, photos.created_ms, mime, width, photo_count"
            " FROM photos JOIN users ON users.id = owner_id ORDER BY photos.id"
        ).fetchall()
        tags = connection.execute("SELECT tag FROM photo_tags WHERE photo_id = ?", (int(photo["id"], 16),)).fetchall()
    connection.close()
    assert [row[1] for row in rows] == ["alice", "bob"]
    photo_id, username, name, title, visibility, created_ms, mime, width, count = rows[0]
    assert sorted(row[0] for row in tags) == photo["tags"] == ["friends", "sea"]
    assert (f"{photo_id:x}", username, name, title) == (photo["id"], "alice", "Alice", photo["title"])
    assert (visibility, mime, width, count) == (0, "image/jpeg", 1200, 1)
    assert str(created_ms)[-3:] in photo["created"]
