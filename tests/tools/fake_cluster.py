"""One server that is Directory and admin API of all Stores, for the commands that look after a cluster."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import xxhash
from aiohttp import web

from haystack.errors import AuthenticationError
from haystack.security import AUTH_HEADER, Verifier

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
        "mark": "none",
        "writesPerSecond": 1.5,
        "volumes": 2,
        "folders": [
            {"id": "f", "path": "/d", "totalBytes": 2**40, "freeBytes": 2**39, "state": "ok", "error": "", "volumes": 2}
        ],
        "misfits": {},
    }


def node_document(number: int, **changes: Any) -> dict[str, Any]:
    return {
        **store_document(number, f"127.0.0.1:{18079 + number}"),
        "markSinceMs": None,
        "primaries": 1,
        "stale": 0,
        "onlyCopies": [],
        "freeBytes": 2**39,
        "totalBytes": 2**40,
        "folders": [
            {
                "id": f"folder-{number}",
                "path": f"/mnt/disk{number}",
                "state": "ok",
                "error": "",
                "freeBytes": 2**39,
                "totalBytes": 2**40,
                "volumes": 2,
                "mark": "none",
            }
        ],
        "drain": None,
        **changes,
    }


def repair_document(**changes: Any) -> dict[str, Any]:
    return {
        "settled": True,
        "waitingFor": [],
        "delaySeconds": 600.0,
        "bytesPerSecond": 2**20,
        "maxCopies": 4,
        "maxCopiesPerStore": 2,
        "degraded": [],
        "steps": [],
        "running": [],
        "recent": [],
        "blocked": [],
        **changes,
    }


def volume_document(number: int, store: int, state: str = "writable") -> dict[str, Any]:
    return {
        "volume": number,
        "uuid": f"uuid-{number}",
        "replication": "000",
        "epoch": 1,
        "primary": f"id-{store}",
        "inSync": [f"id-{store}"],
        "members": [f"id-{store}"],
        "copies": 1,
        "degradedSinceMs": 0,
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
        self.nodes: list[dict[str, Any]] = []
        self.node_answers: list[list[dict[str, Any]]] = []
        """Answers to the next questions for the Stores; then ``nodes``."""
        self.repair: dict[str, Any] = {}
        self.repair_answers: list[dict[str, Any]] = []
        self.mark_answer: tuple[int, dict[str, Any]] = (200, {})
        self.marks: list[tuple[str, dict[str, Any]]] = []
        self.scrapes = 0
        self.backup = b"backup" * 100_000
        self.backup_checksum: str | None = None
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
        self.nodes = [node_document(1), node_document(2)]
        self.repair = repair_document()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _serve(self) -> str:
        app = web.Application()
        app.router.add_get("/dir/status", self._status)
        app.router.add_get("/cluster/status", self._status)
        app.router.add_post("/vol/grow", self._grow)
        app.router.add_get("/cluster/nodes", self._nodes)
        app.router.add_post("/cluster/nodes/{store}/mark", self._mark)
        app.router.add_get("/cluster/repair", self._repair)
        app.router.add_post("/cluster/repair", self._repair_now)
        app.router.add_get("/internal/backup", self._backup)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/admin/volumes/{id}", self._show)
        app.router.add_post("/admin/volumes/{id}/check", self._check)
        self.routes(app)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    def routes(self, app: web.Application) -> None:
        """Further calls, for tests that need them."""

    async def _status(self, request: web.Request) -> web.Response:
        self.calls.append(f"{request.method} {request.raw_path}")
        return web.json_response(self.status)

    async def _grow(self, request: web.Request) -> web.Response:
        self.calls.append(f"{request.method} {request.raw_path}")
        status, document = self.grow_answer
        return web.json_response(document, status=status)

    async def _nodes(self, request: web.Request) -> web.Response:
        self.calls.append(f"{request.method} {request.raw_path}")
        return web.json_response({"nodes": self.node_answers.pop(0) if self.node_answers else self.nodes})

    async def _mark(self, request: web.Request) -> web.Response:
        document = json.loads(await request.read())
        self.marks.append((request.match_info["store"], document))
        status, answer = self.mark_answer
        steps = {"steps": ["stop new photos", "copy 2 volumes elsewhere"], "lost": []}
        return await self._signed(request, {"applied": not document["dryRun"], **steps, **answer}, status)

    async def _repair(self, request: web.Request) -> web.Response:
        self.calls.append(f"{request.method} {request.raw_path}")
        return web.json_response(self.repair_answers.pop(0) if self.repair_answers else self.repair)

    async def _repair_now(self, request: web.Request) -> web.Response:
        self.marks.append(("repair", json.loads(await request.read())))
        return await self._signed(request, self.repair)

    async def _backup(self, request: web.Request) -> web.Response:
        refusal = await self._signed(request, {})
        if refusal.status != 200:
            return refusal
        checksum = self.backup_checksum
        headers = {"X-Haystack-Checksum": xxhash.xxh3_64_hexdigest(self.backup) if checksum is None else checksum}
        return web.Response(body=self.backup, headers=headers)

    async def _metrics(self, request: web.Request) -> web.Response:
        self.scrapes += 1
        reads = self.scrapes * 100
        labels = '{operation="read"'
        return web.Response(
            text=f'haystack_store_request_duration_seconds_bucket{labels},le="0.004"}} {reads}\n'
            f'haystack_store_request_duration_seconds_bucket{labels},le="+Inf"}} {reads}\n'
            f"haystack_store_request_duration_seconds_count{labels}}} {reads}\n"
            f'haystack_store_volume_reads_total{{volume="3"}} {reads}\n'
        )

    async def _show(self, request: web.Request) -> web.Response:
        return await self._signed(request, {"volume": int(request.match_info["id"]), "bytesRead": 77})

    async def _check(self, request: web.Request) -> web.Response:
        full = json.loads(await request.read())["full"]
        clean = {"ok": True, "full": full, "sizeBytes": 100, "needles": 3, "tombstones": 1, "problems": []}
        return await self._signed(request, self.reports.get(int(request.match_info["id"]), clean))

    async def _signed(self, request: web.Request, document: dict[str, Any], status: int = 200) -> web.Response:
        self.calls.append(f"{request.method} {request.raw_path}")
        try:
            if self.open:
                return web.json_response(document, status=status)
            self.verifier.verify(
                request.headers.get(AUTH_HEADER), request.method, request.raw_path, await request.read()
            )
        except AuthenticationError as error:
            return web.json_response({"error": str(error)}, status=401)
        return web.json_response(document, status=status)
