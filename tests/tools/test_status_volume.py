"""`status` and `volume …` against a Directory and a Store that answer as the design says."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from haystack.errors import AuthenticationError
from haystack.security import AUTH_HEADER, Verifier
from haystack.volume import Volume
from tools import cli
from tools.view import parse_cluster, problems_of

SECRET = b"s" * 64


def store_document(number: int, admin_url: str, state: str = "alive") -> dict[str, Any]:
    return {
        "storeId": f"id-{number}",
        "url": f"127.0.0.1:{8079 + number}",
        "publicUrl": f"127.0.0.1:{8079 + number}",
        "adminUrl": admin_url,
        "dataCenter": "dc1",
        "rack": "r1",
        "version": "0.1.0",
        "startedMs": 1,
        "workers": 1,
        "state": state,
        "lastSeenSecondsAgo": 0.5,
        "writesPerSecond": 1.5,
        "volumes": 2,
        "folders": [
            {"id": "f", "path": "/d", "totalBytes": 2**40, "freeBytes": 2**39, "state": "ok", "error": "", "volumes": 2}
        ],
        "misfits": {},
    }


def volume_document(number: int, store: int, state: str = "writable") -> dict[str, Any]:
    return {
        "volume": number,
        "uuid": f"uuid-{number}",
        "replication": "000",
        "epoch": 1,
        "primary": f"id-{store}",
        "inSync": [f"id-{store}"],
        "state": state,
        "reason": "",
        "createdMs": 1_700_000_000_000,
        "generation": 1,
        "folder": "f",
        "maxBytes": 32 * 2**30,
        "sizeBytes": 2**20,
        "liveBytes": 2**19,
        "liveCount": 1234,
        "deletedBytes": 0,
        "deletedCount": 0,
        "reads": 5,
        "writes": 6,
        "lastAppendMs": 1,
    }


class FakeCluster:
    """One server that is Directory and admin API of all Stores, in a thread of its own."""

    def __init__(self) -> None:
        self.url = ""
        self.status: dict[str, Any] = {}
        self.reports: dict[int, dict[str, Any]] = {}
        self.grow_answer: tuple[int, dict[str, Any]] = (200, {"count": 2, "volumes": [8, 9]})
        self.calls: list[str] = []
        self.verifier = Verifier(SECRET)
        self.open = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def start(self) -> None:
        self._thread.start()
        self.url = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(30)
        admin_url = self.url.removeprefix("http://")
        self.status = {
            "Version": "haystack 0.1.0",
            "Topology": {},
            "ClusterId": "cluster-1",
            "Counts": {"stores": 2, "storesAlive": 2, "volumes": 3, "volumesWritable": 3, "photos": 4321},
            "Stores": [store_document(1, admin_url), store_document(2, admin_url)],
            "Volumes": [volume_document(1, 1), volume_document(2, 2), volume_document(10, 2, "readonly")],
            "Problems": [],
        }

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _serve(self) -> str:
        app = web.Application()
        app.router.add_get("/dir/status", self._status)
        app.router.add_post("/vol/grow", self._grow)
        app.router.add_get("/admin/volumes/{id}", self._show)
        app.router.add_post("/admin/volumes/{id}/check", self._check)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def _status(self, request: web.Request) -> web.Response:
        self.calls.append(f"{request.method} {request.raw_path}")
        return web.json_response(self.status)

    async def _grow(self, request: web.Request) -> web.Response:
        self.calls.append(f"{request.method} {request.raw_path}")
        status, document = self.grow_answer
        return web.json_response(document, status=status)

    async def _show(self, request: web.Request) -> web.Response:
        return await self._signed(request, {"volume": int(request.match_info["id"]), "bytesRead": 77})

    async def _check(self, request: web.Request) -> web.Response:
        full = json.loads(await request.read())["full"]
        clean = {"ok": True, "full": full, "sizeBytes": 100, "needles": 3, "tombstones": 1, "problems": []}
        return await self._signed(request, self.reports.get(int(request.match_info["id"]), clean))

    async def _signed(self, request: web.Request, document: dict[str, Any]) -> web.Response:
        self.calls.append(f"{request.method} {request.raw_path}")
        try:
            if self.open:
                return web.json_response(document)
            self.verifier.verify(
                request.headers.get(AUTH_HEADER), request.method, request.raw_path, await request.read()
            )
        except AuthenticationError as error:
            return web.json_response({"error": str(error)}, status=401)
        return web.json_response(document)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeCluster]:
    server = FakeCluster()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def cluster(server: FakeCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeCluster]:
    for name in [name for name in os.environ if name.startswith("HAYSTACK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HAYSTACK_DIRECTORY", server.url)
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "secret").chmod(0o600)
    monkeypatch.setenv("HAYSTACK_SECRET_FILE", str(tmp_path / "secret"))
    before = copy.deepcopy(server.status)
    server.calls.clear()
    yield server
    server.status = before
    server.reports.clear()
    server.grow_answer = (200, {"count": 2, "volumes": [8, 9]})


Capture = pytest.CaptureFixture[str]


class TestStatus:
    def test_well(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["status"]) == 0
        out, err = capsys.readouterr()
        assert out.startswith(
            "The cluster is well: 2 of 2 Stores alive, 3 volumes (3 writable), 4,321 photos.\n\nSTORE "
        )
        assert re.search(r"127.0.0.1:8081\s+alive\s+dc1\s+r1\s+2\s+512 GiB\s+1.00 TiB\s+1.5\s+0.1.0\n", out)
        assert "Directory haystack 0.1.0, cluster cluster-1" in out
        assert err == ""

    def test_not_well(self, cluster: FakeCluster, capsys: Capture) -> None:
        cluster.status["Problems"] = ["Store 127.0.0.1:8081 (id-2) is silent"]
        assert cli.run(["status"]) == 1
        out, _ = capsys.readouterr()
        assert out.startswith("The cluster needs attention: ")
        assert "  - Store 127.0.0.1:8081 (id-2) is silent\n" in out

    def test_json(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["status", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["ok"] is True
        assert document["problems"] == []
        assert document["Counts"]["photos"] == 4321

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"Stores": []}, "no Store has registered"),
            ({"Counts": {"stores": 2, "storesAlive": 0, "volumesWritable": 0}}, "no Store is alive"),
            ({"Counts": {"stores": 2, "storesAlive": 2, "volumesWritable": 0}}, "no volume takes new photos"),
        ],
    )
    def test_what_stops_uploads_is_a_problem(self, cluster: FakeCluster, change: dict[str, Any], problem: str) -> None:
        assert problem in " ".join(problems_of(parse_cluster({**cluster.status, **change})))

    def test_a_directory_that_is_not_there(self, cluster: FakeCluster, capsys: Capture, free_port: int) -> None:
        assert cli.run(["status", "--directory", f"http://127.0.0.1:{free_port}"]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert f"http://127.0.0.1:{free_port}/dir/status: cannot connect: Connection refused" in err
        assert "Is the cluster running" in err

    def test_the_next_directory_is_asked(self, cluster: FakeCluster, free_port: int) -> None:
        assert cli.run(["status", "--directory", f"http://127.0.0.1:{free_port},{cluster.url}"]) == 0

    def test_another_server(self, cluster: FakeCluster, capsys: Capture) -> None:
        cluster.status = {"Version": "3.80", "Topology": {}}
        assert cli.run(["status"]) == 1
        assert "not understood (KeyError: 'ClusterId')" in capsys.readouterr().err


class TestVolumeList:
    def test_text(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["volume", "list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["VOLUME", "STATE", "STORE", "PHOTOS", "SIZE", "OF", "DELETED", "READS", "WRITES"]
        assert [line.split()[0] for line in lines[1:]] == ["1", "2", "10"]
        assert "127.0.0.1:8081" in lines[2]

    def test_json(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["volume", "list", "--json"]) == 0
        assert [one["volume"] for one in json.loads(capsys.readouterr().out)["volumes"]] == [1, 2, 10]


class TestVolumeShow:
    def test_text_and_json(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["volume", "show", "10"]) == 0
        out, _ = capsys.readouterr()
        assert out.startswith("Volume 10\n  state         readonly\n")
        assert "As Store 127.0.0.1:8081 says\n" in out
        assert "2023-11-14T22:13:20+00:00" in out
        assert cli.run(["volume", "show", "10", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["copies"]["127.0.0.1:8081"]["bytesRead"] == 77

    def test_without_the_secret_the_directory_is_heard(
        self, cluster: FakeCluster, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("HAYSTACK_SECRET_FILE")
        assert cli.run(["volume", "show", "1"]) == 0
        assert "this needs the cluster's secret" in capsys.readouterr().out

    def test_unknown_and_malformed(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["volume", "show", "99"]) == 1
        assert "volume 99 is not known" in capsys.readouterr().err
        assert cli.run(["volume", "show", "0"]) == 2
        assert cli.run(["volume", "show", "x"]) == 2


class TestVolumeGrow:
    def test_the_plan_changes_nothing(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["volume", "grow", "--count", "2"]) == 0
        out, err = capsys.readouterr()
        assert out == "Plan: 2 more writable volumes on 2 Stores: 3 now, 5 then.\n"
        assert "Nothing was changed; give --apply" in err
        assert cluster.calls == ["GET /dir/status"]

    def test_apply(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["volume", "grow", "--count", "2", "--apply"]) == 0
        assert "Made 2: 8, 9\n" in capsys.readouterr().out
        assert cluster.calls == ["GET /dir/status", "POST /vol/grow?count=2"]

    def test_json(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["volume", "grow", "--json"]) == 0
        plan = {"count": 1, "writableNow": 3, "writableThen": 4, "storesAlive": 2}
        assert json.loads(capsys.readouterr().out) == {"plan": plan, "applied": False}
        assert cli.run(["volume", "grow", "--count", "2", "--apply", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["applied"], document["volumes"]) == (True, [8, 9])

    def test_fewer_than_asked_for(self, cluster: FakeCluster, capsys: Capture) -> None:
        cluster.grow_answer = (200, {"count": 1, "volumes": [8], "reason": "3 were asked for: the disks are full"})
        assert cli.run(["volume", "grow", "--count", "3", "--apply"]) == 1
        assert "the disks are full" in capsys.readouterr().err

    def test_refused(self, cluster: FakeCluster, capsys: Capture) -> None:
        cluster.grow_answer = (503, {"error": "no volume could be made: no Store is alive"})
        assert cli.run(["volume", "grow", "--apply"]) == 1
        assert "no Store is alive" in capsys.readouterr().err

    @pytest.mark.parametrize("count", ["0", "101", "x", "-1"])
    def test_wrong_counts(self, cluster: FakeCluster, count: str) -> None:
        assert cli.run(["volume", "grow", "--count", count]) == 2


class TestVolumeCheckByStores:
    def test_all(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["volume", "check"]) == 0
        out, _ = capsys.readouterr()
        assert "volume 10 on 127.0.0.1:8081: ok, 3 needles, 1 deletes, 100 B" in out
        assert out.endswith("3 of 3 ok.\n")
        assert cluster.calls[1:] == [f"POST /admin/volumes/{number}/check" for number in (1, 2, 10)]

    def test_problems(self, cluster: FakeCluster, capsys: Capture) -> None:
        cluster.reports[2] = {
            "ok": False,
            "full": True,
            "sizeBytes": 9,
            "needles": 1,
            "tombstones": 0,
            "problemCount": 1200,
            "problems": ["damage at 4096"],
        }
        assert cli.run(["volume", "check", "2", "1", "--full"]) == 1
        out, _ = capsys.readouterr()
        assert "volume 2 on 127.0.0.1:8081: PROBLEMS" in out
        assert "  - damage at 4096\n  - and 1,199 more\n" in out
        assert out.endswith("1 of 2 ok.\n")
        assert cli.run(["volume", "check", "2", "--json"]) == 1
        document = json.loads(capsys.readouterr().out)
        assert document["ok"] is False
        assert document["checked"][0]["report"]["problems"] == ["damage at 4096"]

    def test_a_wrong_secret_is_told(
        self, cluster: FakeCluster, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("HAYSTACK_SECRET_FILE")
        monkeypatch.setenv("HAYSTACK_SECRET", "x" * 64)
        assert cli.run(["volume", "check", "1"]) == 1
        assert "could not be checked" in capsys.readouterr().out

    def test_no_secret_is_told(self, cluster: FakeCluster, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HAYSTACK_SECRET_FILE")
        assert cli.run(["volume", "check", "1"]) == 1
        assert "give --secret-file FILE" in capsys.readouterr().out

    def test_a_cluster_without_secret_needs_none(self, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HAYSTACK_SECRET_FILE")
        monkeypatch.setattr(cluster, "open", True)
        assert cli.run(["volume", "check", "1"]) == 0


class TestVolumeCheckOfFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "data" / "store1"
        folder.mkdir(parents=True)
        for number in (9, 10):
            with Volume.create(folder / f"{number}.vol", number) as volume:
                for key in range(3):
                    volume.put(key=key + 1, cookie=7, data=b"photo" * 100)
        return folder

    def test_folder_file_and_cluster_folder(self, folder: Path, capsys: Capture) -> None:
        assert cli.run(["volume", "check", "--full", str(folder)]) == 0
        out, _ = capsys.readouterr()
        assert [Path(line.partition(":")[0]).name for line in out.splitlines()[:2]] == ["9.vol", "10.vol"]
        assert out.endswith("2 of 2 ok.\n")
        assert cli.run(["volume", "check", str(folder / "9.vol")]) == 0
        assert capsys.readouterr().out.endswith("1 of 1 ok.\n")
        assert cli.run(["volume", "check", "--json", str(folder.parent)]) == 0
        document = json.loads(capsys.readouterr().out)
        assert [one["report"]["needles"] for one in document["checked"]] == [3, 3]

    def test_damage_is_found_and_nothing_is_changed(self, folder: Path, capsys: Capture) -> None:
        path = folder / "9.vol"
        content = bytearray(path.read_bytes())
        content[content.index(b"photo") + 3] ^= 1
        path.write_bytes(content)
        before = {one.name: one.read_bytes() for one in folder.iterdir() if one.suffix == ".vol"}
        assert cli.run(["volume", "check", "--full", str(folder)]) == 1
        out, _ = capsys.readouterr()
        assert "9.vol: PROBLEMS" in out
        assert "10.vol: ok" in out
        assert {one.name: one.read_bytes() for one in folder.iterdir() if one.suffix == ".vol"} == before

    def test_what_is_no_volume(self, tmp_path: Path, capsys: Capture) -> None:
        (tmp_path / "cat.jpg").write_bytes(b"jpeg" * 4000)
        assert cli.run(["volume", "check", str(tmp_path / "cat.jpg")]) == 1
        assert "not a Haystack volume" in capsys.readouterr().out
        assert cli.run(["volume", "check", str(tmp_path)]) == 2
        assert "no volume file (*.vol)" in capsys.readouterr().err
        assert cli.run(["volume", "check", str(tmp_path / "nowhere")]) == 2
        assert "no such file or folder" in capsys.readouterr().err


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
