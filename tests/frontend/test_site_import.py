"""``haystack import --as``: a folder becomes somebody's photos, on a whole ``haystack up``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pictures import exif, file_of, soft
from PIL import ExifTags
from real_cluster import ENVIRON, haystack_up

from tools.site_titles import title_of

HAYSTACK = (sys.executable, "-P", "-m", "tools.cli")
MANY = 12


@pytest.mark.parametrize(
    "path, title",
    [
        ("2023/on_the_beach.jpg", "on the beach"),
        ("Grandma's  80th.HEIC", "Grandma's 80th"),
        ("IMG_1234.JPG", ""),
        ("DSCN0042.jpg", ""),
        ("PXL 20240731-180512~2.jpg", ""),
        ("20240731_180512.jpg", ""),
        ("Route 66.jpg", "Route 66"),
        ("no extension", "no extension"),
        ("x" * 300 + ".png", "x" * 200),
    ],
)
def test_titles_of_file_names(path: str, title: str) -> None:
    assert title_of(path) == title


class Site:
    def __init__(self, url: str, data: Path) -> None:
        self.url = url
        self.data = data

    def call(self, method: str, path: str, document: Any = None, token: str = "") -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        body = None if document is None else json.dumps(document).encode()
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(f"{self.url}/api/v1{path}", body, headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    def person(self, name: str) -> str:
        """A new user's API token."""
        self.call("POST", "/users", {"username": name, "password": "correct horse battery"})
        login = {"name": "import", "login": name, "password": "correct horse battery"}
        return str(self.call("POST", "/tokens", login)["token"])

    def photos(self, name: str, token: str, count: int) -> list[dict[str, Any]]:
        """A user's photos, as soon as there are so many: intakes publish a moment after they have answered."""
        deadline = time.monotonic() + 20
        while True:
            found = self.call("GET", f"/users/{name}/photos?limit=100", token=token)["photos"]
            if len(found) >= count or time.monotonic() > deadline:
                return list(found)
            time.sleep(0.05)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with haystack_up(folder, "--workers", "1", "--no-cache") as told:
        yield Site(told["frontend"], folder / "data")


def run(folder: Path, site: Site, name: str, token: str, *more: str) -> tuple[int, Any, str]:
    done = subprocess.run(
        [*HAYSTACK, "import", str(folder), "--as", name, "--site", site.url, "--json", *more],
        env={**ENVIRON, "HAYSTACK_API_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=90,
        stdin=subprocess.DEVNULL,
    )
    assert token not in done.stdout + done.stderr or not token
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "holiday"
    (root / "2023").mkdir(parents=True)
    when_and_where = exif(place=True)
    when_and_where.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2023:07:31 18:05:00"
    (root / "2023" / "on_the_beach.jpg").write_bytes(file_of(soft(400, 300), exif=when_and_where))
    (root / "IMG_1234.png").write_bytes(file_of(soft(300, 400), "PNG"))
    (root / "cut.jpg").write_bytes(file_of(soft(500, 500))[:3000])
    (root / "notes.txt").write_text("no picture")
    return root


def test_a_folder_becomes_somebodys_photos(site: Site, folder: Path) -> None:
    token = site.person("alice")
    code, document, _ = run(folder, site, "alice", token, "--dry-run")
    assert (code, document["files"], document["noImages"]) == (0, 3, 1)
    assert site.call("GET", "/users/alice/photos", token=token)["photos"] == []

    code, document, told = run(folder, site, "alice", token, "--tags", "sea, summer", "--visibility", "followers")
    assert (code, document["files"], document["failed"], document["noImages"]) == (1, 2, 1, 1), told
    [failure] = document["failures"]
    assert failure["path"] == "cut.jpg" and "picture" in failure["error"]
    found = {photo["title"]: photo for photo in site.photos("alice", token, 2)}
    assert set(found) == {"on the beach", ""}
    beach = found["on the beach"]
    assert beach["taken"].startswith("2023-07-31T18:05") and abs(beach["place"]["latitude"] - 48.8582) < 0.001
    assert beach["tags"] == ["sea", "summer"] and beach["visibility"] == "followers"

    code, document, _ = run(folder, site, "alice", token, "--tags", "sea, summer", "--visibility", "followers")
    assert (code, document["files"], document["alreadyDone"], document["failed"]) == (1, 0, 2, 1)
    Path(document["manifest"]).unlink()  # lost: what was uploaded is known by its key
    (folder / "cut.jpg").unlink()
    code, document, _ = run(folder, site, "alice", token, "--tags", "sea, summer", "--visibility", "followers")
    assert (code, document["files"], document["alreadyDone"]) == (0, 2, 0)
    assert len(site.photos("alice", token, 2)) == 2


def test_places_can_be_dropped(site: Site, folder: Path) -> None:
    token = site.person("dora")
    (folder / "cut.jpg").unlink()
    assert run(folder, site, "dora", token, "--drop-place")[0] == 0
    assert [photo["place"] for photo in site.photos("dora", token, 2)] == [None, None]


def test_a_killed_import_goes_on_and_leaves_each_photo_once(site: Site, tmp_path: Path) -> None:
    token = site.person("carol")
    root = tmp_path / "many"
    root.mkdir()
    for number in range(MANY):
        (root / f"photo of day {number}.jpg").write_bytes(file_of(soft(320 + number, 240)))
    command = [*HAYSTACK, "import", str(root), "--as", "carol", "--site", site.url, "--json", "--jobs", "2"]
    process = subprocess.Popen(
        command, env={**ENVIRON, "HAYSTACK_API_TOKEN": token}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    manifest = tmp_path / "many.carol.haystack-manifest.jsonl"
    deadline = time.monotonic() + 60
    while not manifest.exists() or manifest.read_bytes().count(b"\n") < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    code, document, _ = run(root, site, "carol", token)
    assert code == 0 and document["alreadyDone"] >= 1 and document["alreadyDone"] + document["files"] == MANY
    found = site.photos("carol", token, MANY)
    assert sorted(photo["title"] for photo in found) == sorted(f"photo of day {number}" for number in range(MANY))


def test_wrong_tokens_and_options_are_told_in_one_line(site: Site, folder: Path) -> None:
    token = site.person("erin")
    for name, given, words in (("erin", "hst_wrong", "no API token"), ("alice", token, "is of erin, not of alice")):
        code, document, told = run(folder, site, name, given)
        assert code == 1 and document is None and words in told and len(told.splitlines()) == 1, told
    code, _, told = run(folder, site, "erin", "")
    assert code == 2 and "HAYSTACK_API_TOKEN" in told and len(told.splitlines()) == 1
    file = folder.parent / "token"
    file.write_text(token + "\n")
    (folder / "cut.jpg").unlink()
    assert run(folder, site, "erin", "", "--token-file", str(file))[0] == 0
    assert run(folder, site, "erin", token, "--replication", "001")[0] == 2


def test_the_site_of_a_folder_is_found(site: Site, folder: Path) -> None:
    token = site.person("fred")
    (folder / "cut.jpg").unlink()
    file = folder.parent / "token"
    file.write_text(token + "\n")
    command = [*HAYSTACK, "import", str(folder), "--as", "@fred", "--data", str(site.data), "--token-file", str(file)]
    done = subprocess.run(command, env=ENVIRON, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "Imported 2 files" in done.stdout, done.stderr
    assert len(site.photos("fred", token, 2)) == 2
