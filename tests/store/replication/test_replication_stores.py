"""Stores as real processes: what is acknowledged is on all copies, and who is deposed acknowledges nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgpack
from replication_harness import cluster, fid, frozen, request
from supervisor_harness import StoreProcess, until

PHOTO = bytes(range(256)) * 40


async def put(store: StoreProcess, key: int, data: bytes) -> None:
    """Store a photo, as often as it takes."""
    deadline = time.monotonic() + 20
    while (answer := await request(store, "PUT", fid(key), data))[0] != 201:
        assert answer[0] == 503 and time.monotonic() < deadline, (answer, store.log)
        await asyncio.sleep(0.05)


async def test_what_is_acknowledged_is_on_all_copies(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3, workers=2) as some:
        await some.make(replication="002")
        first = some.stores[0]
        await asyncio.gather(*(put(first, key, PHOTO + bytes([key])) for key in range(1, 40)))
        multi = msgpack.packb([{"fid": fid(50, alternate=one)[1:], "data": PHOTO} for one in range(3)])
        assert (await request(first, "POST", "/1/multi", multi))[0] == 201
        assert (await request(first, "PUT", fid(1), b"overwritten"))[0] == 201
        assert (await request(first, "DELETE", fid(2)))[0] == 202
        some.require_equal()
        for store in some.stores:
            assert await request(store, "GET", fid(1)) == (200, b"overwritten")
            assert (await request(store, "GET", fid(2)))[0] == 404
            assert await request(store, "GET", fid(50, alternate=2)) == (200, PHOTO)
        documents = [await some.document(store) for store in some.stores]
        assert [document["state"] for document in documents] == ["writable"] * 3
        assert {document["primary"] for document in documents} == {some.members[0].store_id}
        for store in some.stores:
            check = await some.admin(store, "POST", "/admin/volumes/1/check", {"full": True})
            assert check["ok"], check
        await until(lambda: some.directory.listed(*(fid(key)[1:] for key in (1, 3, 39))))
        assert {batch["storeId"] for batch in some.directory.batches} == {some.members[0].store_id}


async def test_a_copy_passes_uploads_and_deletes_on(tmp_path: Path) -> None:
    async with cluster(tmp_path) as some:
        await some.make()
        _, second = some.stores
        status, answer = await request(
            second, "PUT", fid(1), PHOTO, {"Content-Disposition": 'inline; filename="a.jpg"'}
        )
        assert (status, answer["name"]) == (201, "a.jpg")
        large = PHOTO * 500

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(large), 100_000):
                yield large[start : start + 100_000]

        assert (await request(second, "PUT", fid(2), pieces()))[0] == 201
        multi = msgpack.packb([{"fid": fid(3)[1:], "data": PHOTO}])
        assert (await request(second, "POST", "/1/multi", multi))[0] == 201
        assert await request(second, "GET", fid(2)) == (200, large)
        assert (await request(second, "DELETE", fid(1)))[0] == 202
        assert (await request(second, "DELETE", fid(1)))[0] == 404
        some.require_equal()
        status, answer = await request(second, "PUT", fid(9), PHOTO, {"X-Haystack-Passed-On": "1"})
        assert status == 503, answer


async def test_copies_bring_back_and_end_what_their_primary_does(tmp_path: Path) -> None:
    async with cluster(tmp_path) as some:
        await some.make()
        first, second = some.stores
        for key in (1, 2):
            await put(first, key, PHOTO)
        assert (await request(second, "PUT", f"{fid(3)}?ttl=1", PHOTO))[0] == 201
        assert (await request(second, "DELETE", fid(1)))[0] == 202
        assert (await request(second, "DELETE", f"{fid(2)}?now=true"))[0] == 202
        assert await request(second, "POST", f"{fid(1)}?undelete=true") == (200, {"size": len(PHOTO)})
        assert (await request(second, "POST", f"{fid(2)}?undelete=true"))[0] == 404
        some.require_equal()
        for store in some.stores:
            assert await request(store, "GET", fid(1)) == (200, PHOTO)
            assert (await request(store, "GET", fid(2)))[0] == 404
            check = await some.admin(store, "POST", "/admin/volumes/1/check", {"full": True})
            assert check["ok"], check
        for store in some.stores:
            while (answer := await request(store, "GET", fid(3)))[0] != 404:
                assert answer == (200, PHOTO)
                await asyncio.sleep(0.05)  # the end of its life is what is waited for
        await until(lambda: some.directory.listed(fid(1)[1:], fid(3)[1:]))


async def test_a_frozen_copy_is_given_up_in_time_and_deletes_go_on(tmp_path: Path) -> None:
    async with cluster(tmp_path) as some:
        await some.make()
        first, second = some.stores
        await put(first, 1, PHOTO)
        some.directory.decides = True
        with frozen(second):
            began = time.monotonic()
            upload, delete = await asyncio.gather(
                request(first, "PUT", fid(2), PHOTO), request(first, "DELETE", fid(1))
            )
            assert upload[0] == 503, upload
            assert "/dir/assign" in upload[1]["error"]
            assert delete[0] == 202, delete
            assert time.monotonic() - began < 4
            document = await some.until(first, epoch=2)
            assert (document["state"], document["reason"]) == ("readonly", "degraded")
            assert document["inSync"] == [some.members[0].store_id]
            began = time.monotonic()
            assert (await request(first, "PUT", fid(3), PHOTO))[0] == 503
            assert time.monotonic() - began < 1
        assert some.directory.reports[0]["suspects"] == [some.members[1].store_id]
        assert (await request(first, "GET", fid(1)))[0] == 404


async def test_nothing_is_acknowledged_while_the_directory_does_not_decide(tmp_path: Path) -> None:
    async with cluster(tmp_path) as some:
        await some.make()
        first, second = some.stores
        await put(first, 1, PHOTO)
        with frozen(second):
            began = time.monotonic()
            status, answer = await request(first, "DELETE", fid(1))
            assert status == 503, answer
            assert time.monotonic() - began < 8  # two time-outs, and what the Directory may take
        # It thaws, the Directory never heard: the pair goes on as if nothing had been.
        await put(first, 2, PHOTO)
        some.require_equal()


async def test_a_photo_is_not_said_to_be_gone_before_its_delete_is_on_all_copies(tmp_path: Path) -> None:
    """The primary may lose what it appended for the first delete; whoever asks again must not believe it is done."""
    async with cluster(tmp_path) as some:
        await some.make()
        first, second = some.stores
        await put(first, 1, PHOTO)
        with frozen(second):
            assert (await request(first, "DELETE", fid(1)))[0] == 503
            status, answer = await request(first, "DELETE", fid(1))
            assert status == 503 and "try again" in answer["error"], answer
        deadline = time.monotonic() + 20
        while (status := (await request(first, "DELETE", fid(1)))[0]) != 404:
            assert status == 503 and time.monotonic() < deadline
        some.require_equal()
        assert (await request(second, "GET", fid(1)))[0] == 404


async def test_an_old_primary_acknowledges_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path) as some:
        membership = await some.make()
        first, second = some.stores
        await put(first, 1, PHOTO)
        tail = len(some.file(first))
        some.directory.decides = True
        # The Directory cannot reach the first Store; the second takes over.
        deposed = replace(membership, epoch=2, primary=some.members[1].store_id, in_sync=some.members[1:])
        assert await some.push(deposed, second) == {"epoch": 2, "tail": tail}
        status, answer = await request(first, "DELETE", fid(1))
        assert status == 503 or (status, answer) == (202, None), answer
        document = await some.until(first, epoch=2)  # it has asked, and was told
        assert document["stale"] is True
        assert (await request(second, "GET", fid(1)))[0] == 200
        assert (await request(second, "DELETE", fid(1)))[0] == 202
        status, answer = await request(first, "PUT", fid(3), PHOTO, {"X-Haystack-Passed-On": "1"})
        assert status == 503, answer
        older = replace(membership, epoch=1)
        answer = await some.admin(second, "PUT", "/admin/volumes/1/membership", older.document(), expect=409)
        assert answer["epoch"] == 2


async def test_a_new_primary_brings_its_copies_to_its_end(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as some:
        membership = await some.make(replication="002")
        first, second, third = some.stores
        await put(first, 1, PHOTO)
        with frozen(third):
            assert (await request(first, "PUT", fid(2), PHOTO))[0] == 503
            assert len(some.file(second)) > len(some.file(third))
        await first.kill()
        taken = replace(membership, epoch=2, primary=some.members[1].store_id, in_sync=some.members[1:])
        await some.push(taken, third, second)
        await until(lambda: len(some.file(second)) == len(some.file(third)))
        some.require_equal(second, third)
        await until(lambda: some.directory.listed(fid(1)[1:], fid(2)[1:]))


async def test_a_worker_that_dies_before_it_could_send_leaves_nothing_behind(tmp_path: Path) -> None:
    async with cluster(tmp_path) as some:
        await some.make()
        first, second = some.stores
        await put(first, 1, PHOTO)
        (worker,) = first.workers()
        with frozen(second, supervisor=False):
            # Appended here, not taken there, when its worker dies.
            upload = asyncio.create_task(request(first, "PUT", fid(2), PHOTO))
            tail = len(some.file(first))
            await until(lambda: len(some.file(first)) > tail)
            os.kill(worker, signal.SIGKILL)
            assert isinstance((await asyncio.gather(upload, return_exceptions=True))[0], Exception)
        deadline = time.monotonic() + 15
        while True:
            try:
                if (await request(first, "PUT", fid(3), PHOTO))[0] == 201:
                    break
            except OSError:
                pass
            assert time.monotonic() < deadline, first.log
            await asyncio.sleep(0.05)
        some.require_equal()


async def test_a_primary_that_lost_its_end_does_not_go_on_over_a_copy_that_has_it(tmp_path: Path) -> None:
    async with cluster(tmp_path) as some:
        await some.make()
        first, second = some.stores
        first.settings["port"], first.settings["admin_port"] = first.port, first.admin_port
        await put(first, 1, PHOTO)
        tail = len(some.file(first))
        await put(first, 2, b"one")
        some.directory.reports.clear()
        await first.stop()
        path = Path(first.settings["data"][0]) / "1.vol"
        os.truncate(path, tail)  # as a disk does that forgets in a power cut what it said was durable
        path.with_suffix(".idx").unlink()
        await first.start()
        await until(lambda: some.directory.reports)
        assert some.directory.reports[0]["suspects"] == [some.members[1].store_id]
        assert "behind this one's end" in some.directory.reports[0]["reason"]
        status, answer = await request(first, "PUT", fid(3), b"two")  # of the same length
        assert status == 503, answer
        assert "diverged" in answer["error"]
        assert some.file(second)[tail:] != some.file(first)[tail:]
        assert (await request(second, "GET", fid(2)))[0] == 200


async def test_a_learner_is_waited_for(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as some:
        membership = await some.make(count=2)
        first, second, third = some.stores
        await put(first, 1, PHOTO)
        learner = some.members[2].document()
        ask = {"epoch": 1, "member": learner}
        answer = await some.admin(first, "POST", "/admin/volumes/1/admit", ask, expect=503)
        assert "does not come to the end" in answer["error"]  # it has no copy
        answer = await some.admin(first, "POST", "/admin/volumes/1/admit", ask | {"epoch": 9}, expect=409)
        assert answer["epoch"] == 1
        follow = {"uuid": some.uuid, "replication": "001", "createdMs": 1_700_000_000_000, "maxBytes": None}
        follow |= {"epoch": 1, "folder": None, "source": some.members[0].document(), "bytesPerSecond": 2**30}
        async with asyncio.timeout(20):
            while True:
                answer = await some.admin(third, "POST", "/admin/volumes/1/follow", follow, expect=202)
                if answer["state"] != "running":
                    break
                await asyncio.sleep(0.02)
        assert answer["state"] == "done", answer
        assert (await some.document(third))["stale"] is True
        await put(first, 2, PHOTO)
        admitted = await some.admin(first, "POST", "/admin/volumes/1/admit", ask)
        assert admitted == {"epoch": 1, "tail": len(some.file(first))}
        await put(first, 3, PHOTO)
        some.require_equal()
        some.directory.decides = True
        some.directory.reports.clear()
        with frozen(third):
            assert (await request(first, "PUT", fid(4), PHOTO))[0] == 503  # though the Directory does not count it yet
            await until(lambda: some.directory.reports)
        assert some.directory.reports[-1]["suspects"] == [learner["storeId"]]
        document = await some.until(first, epoch=2)  # which is without it: it has to follow and be admitted anew
        await some.push(some.directory.memberships[1], second)
        assert document["inSync"] == [member.store_id for member in membership.in_sync]
        await put(first, 5, PHOTO)


async def test_uploads_go_on_while_epochs_change(tmp_path: Path) -> None:
    async with cluster(tmp_path) as some:
        membership = await some.make()
        first, second = some.stores
        stored: list[int] = []
        done = asyncio.Event()

        async def upload(start: int) -> None:
            for key in range(start, start + 1000):
                if done.is_set():
                    return
                if (await request(first, "PUT", fid(key), PHOTO))[0] == 201:
                    stored.append(key)

        uploads = [asyncio.create_task(upload(start)) for start in (1000, 2000, 3000)]
        for epoch in range(2, 12):
            wanted = len(stored) + 3
            await some.push(replace(membership, epoch=epoch), *((second, first) if epoch % 2 else (first, second)))
            await until(lambda wanted=wanted: len(stored) > wanted)  # type: ignore[misc]  # it takes no argument then
        done.set()
        await asyncio.gather(*uploads)
        await until(lambda: some.file(first) == some.file(second))
        await until(lambda: some.directory.listed(*(fid(key)[1:] for key in stored)))


async def test_a_store_resumes_with_its_membership(tmp_path: Path) -> None:
    async with cluster(tmp_path) as some:
        await some.make()
        first, second = some.stores
        first.settings["port"], first.settings["admin_port"] = first.port, first.admin_port
        await put(first, 1, PHOTO)
        await first.stop()
        await first.start()
        document = await some.document(first)
        assert (document["epoch"], document["copies"], document["state"]) == (1, 2, "writable")
        await put(first, 2, PHOTO)
        assert (await request(second, "GET", fid(2)))[0] == 200
        some.require_equal()
