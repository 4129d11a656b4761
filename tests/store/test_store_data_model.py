"""Random puts, overwrites, multi-writes, deletes, undeletes and reads over two workers, beside a dictionary."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import msgpack
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule
from store_data_harness import Answer, Client, LocalStore, drop_cache

from haystack.fid import Fid
from haystack.store.control_cells import Counter

KEYS = st.integers(0, 5)
COOKIES = st.integers(0, 1)
ALTERNATES = st.integers(0, 1)
WORKERS = st.integers(0, 1)
DATA = st.binary(max_size=200) | st.integers(1, 400_000).map(lambda size: b"\xabn" * (size // 2))
FIDS = st.builds(Fid, st.integers(1, 2), KEYS, COOKIES, ALTERNATES)


def name_of(fid: Fid) -> tuple[int, int, int]:
    return fid.volume, fid.key, fid.alternate


class StoreModel(RuleBasedStateMachine):
    """``model``: (volume, key, alternate) → (cookie, data or None when deleted).

    ``trash``: what can be brought back of those that are deleted. ``ending``: names whose photo has a time to live.
    """

    locators = Bundle("locators")

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="haystack-model-"))
        options = {"durability": "os", "upload_memory_bytes": 100_000, "max_photo_bytes": 500_000}
        self.store = LocalStore(self.folder, workers=2, volumes=(1, 2), **options)
        self.clients: list[Client] = [self.store.client(worker) for worker in (0, 1)]
        self.model: dict[tuple[int, int, int], tuple[int, bytes | None]] = {}
        self.trash: dict[tuple[int, int, int], bytes] = {}
        self.ending: set[tuple[int, int, int]] = set()
        self.stored = self.deleted = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            for client in self.clients:
                client.close()
            self.store.stop()
            log = self.store.log(0) + self.store.log(1)
            shutil.rmtree(self.folder)
            assert "Traceback" not in log, log

    def allowed(self, fid: Fid) -> bool:
        known = self.model.get((fid.volume, fid.key, fid.alternate))
        return known is None or known[0] == fid.cookie

    def expected(self, fid: Fid) -> bytes | None:
        cookie, data = self.model.get((fid.volume, fid.key, fid.alternate), (None, None))
        return data if cookie == fid.cookie else None

    def note(self, fid: Fid, data: bytes | None) -> None:
        self.model[name_of(fid)] = (fid.cookie, data)

    def note_stored(self, fid: Fid, data: bytes, ttl: str) -> None:
        self.note(fid, data)
        self.trash.pop(name_of(fid), None)
        (self.ending.add if ttl else self.ending.discard)(name_of(fid))
        self.stored += 1

    @rule(target=locators, fid=FIDS, data=DATA, worker=WORKERS, ttl=st.sampled_from(["", "", "?ttl=3h"]))
    def put(self, fid: Fid, data: bytes, worker: int, ttl: str) -> object:
        answer = self.clients[worker].put(f"/{fid}{ttl}", data)
        if not self.allowed(fid):
            assert answer.status == 409
            return multiple()
        assert answer.status == 201
        self.note_stored(fid, data, ttl)
        return (fid, answer.json()["locator"])

    @rule(fids=st.lists(FIDS, min_size=1, max_size=4), data=DATA, worker=WORKERS)
    def multi(self, fids: list[Fid], data: bytes, worker: int) -> None:
        fids = [replace(fid, volume=fids[0].volume) for fid in fids]
        body = msgpack.packb([{"fid": str(fid), "data": data[number:]} for number, fid in enumerate(fids)])
        if len(body) > 500_000:
            return
        answer = self.clients[worker].request("POST", f"/{fids[0].volume}/multi", body)
        if len({(fid.key, fid.alternate) for fid in fids}) < len(fids):
            assert answer.status == 400
        elif not all(map(self.allowed, fids)):
            assert answer.status == 409
        else:
            assert answer.status == 201
            for number, fid in enumerate(fids):
                self.note_stored(fid, data[number:], "")

    @rule(fid=FIDS, worker=WORKERS, now=st.sampled_from(["", "", "?now=true"]))
    def delete(self, fid: Fid, worker: int, now: str) -> None:
        answer, data = self.clients[worker].delete(f"/{fid}{now}"), self.expected(fid)
        if data is None and now and self.allowed(fid):
            data = self.trash.get(name_of(fid))
        if data is None:
            assert answer.status == 404
            return
        assert answer.status == 202 and answer.json() == {"size": len(data)}
        self.note(fid, None)
        self.trash[name_of(fid)] = data
        if now:
            del self.trash[name_of(fid)]
        self.deleted += 1

    @precondition(lambda self: self.trash)
    @rule(data=st.data(), worker=WORKERS, cookie=st.sampled_from([None, None, 2]))
    def undelete(self, data: st.DataObject, worker: int, cookie: int | None) -> None:
        name = data.draw(st.sampled_from(sorted(self.trash)))
        fid = Fid(name[0], name[1], self.model[name][0] if cookie is None else cookie, name[2])
        answer = self.clients[worker].request("POST", f"/{fid}?undelete=true")
        if cookie is not None:
            assert answer.status == 404
            return
        assert answer.status == 200 and answer.json() == {"size": len(self.trash[name])}
        self.note(fid, self.trash.pop(name))

    @rule(fid=FIDS, worker=WORKERS)
    def undelete_what_is_not_there(self, fid: Fid, worker: int) -> None:
        if name_of(fid) not in self.trash:
            assert self.clients[worker].request("POST", f"/{fid}?undelete=true").status == 404

    @rule(fid=FIDS, worker=WORKERS, times=st.integers(1, 3), ending=st.sampled_from(["", "", ".jpg"]))
    def get(self, fid: Fid, worker: int, times: int, ending: str) -> None:
        for _ in range(times):
            self.require(fid, self.clients[worker].get(f"/{fid}{ending}"))

    @rule(one=locators, worker=WORKERS)
    def get_by_locator(self, one: tuple[Fid, str], worker: int) -> None:
        self.require(one[0], self.clients[worker].get(f"/{one[1]}"))

    @rule(fid=FIDS, worker=WORKERS, start=st.integers(0, 300), length=st.integers(1, 300))
    def get_range(self, fid: Fid, worker: int, start: int, length: int) -> None:
        data = self.expected(fid)
        answer = self.clients[worker].get(f"/{fid}", Range=f"bytes={start}-{start + length - 1}")
        if data is None:
            assert answer.status == 404
        elif start >= len(data):
            assert answer.status == 416
        else:
            assert (answer.status, answer.body) == (206, data[start : start + length])

    @rule()
    def forget_pages(self) -> None:
        for volume in (1, 2):
            drop_cache(self.store.path(volume))

    @rule(worker=WORKERS)
    def kill(self, worker: int) -> None:
        self.clients[worker].close()
        self.store.kill(worker)
        self.store.restart(worker)
        self.clients[worker] = self.store.client(worker)

    @precondition(lambda self: len(self.model) > 2)
    @rule()
    def read_everything(self) -> None:
        for (volume, key, alternate), (cookie, _) in self.model.items():
            fid = Fid(volume, key, cookie, alternate)
            for client in self.clients:
                self.require(fid, client.get(f"/{fid}"))

    @invariant()
    def what_is_held(self) -> None:
        if hasattr(self, "store"):
            live = sum(data is not None for _, data in self.model.values())
            assert sum(volume.state().live_count for volume in self.store.volumes.values()) == live
            assert self.store.counter(Counter.UPLOAD_MEMORY_BYTES) == 0

    def require(self, fid: Fid, answer: Answer) -> None:
        data = self.expected(fid)
        if data is None:
            assert answer.status == 404
        else:
            assert (answer.status, answer.body) == (200, data)
            assert ("immutable" in answer.headers["cache-control"]) == (name_of(fid) not in self.ending)


TestStoreModel = StoreModel.TestCase
TestStoreModel.settings = settings(
    max_examples=6, stateful_step_count=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
