"""A replica as a real process, and a primary that a test plays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import aiohttp
from replication_harness import SECRET, Cluster, cluster, fid, request
from supervisor_harness import new_volume, until

from haystack.store.replication.membership import Member, Membership
from haystack.store.replication.peers import PeerConnection, PeerFailed, Peers
from haystack.store.replication.wire import Answer, batch_target
from haystack.volume import Delete, NewNeedle, Put, Volume
from haystack.volume.operations import Operation

SECONDS = 10.0
PRIMARY = Member("00000000-0000-4000-8000-00000000000a", "127.0.0.1:1", "127.0.0.1:2")


@dataclass
class Played:
    """A primary's volume in this process, and connections to the one replica."""

    some: Cluster
    volume: Volume
    membership: Membership
    peers: Peers

    def append(self, *operations: Operation) -> tuple[int, bytes]:
        """Append here; returns where, and what."""
        (written,) = self.volume.append(operations).written
        return written.offset, b"".join(bytes(piece) for piece in written.pieces)

    async def send(self, start: int, data: bytes, epoch: int = 5, committed: int = 0, volume: int = 1) -> Answer:
        target = batch_target(volume, epoch, start, committed, 0)
        url = self.some.members[0].url
        return await asyncio.to_thread(self.peers.call, url, target, [data], time.monotonic() + SECONDS)


@asynccontextmanager
async def played(folder: Path) -> AsyncIterator[Played]:
    async with cluster(folder, 1) as some:
        me = some.members[0]
        membership = Membership(some.uuid, 5, PRIMARY.store_id, 2, (PRIMARY, me))
        some.directory.memberships[1] = membership
        more = {"uuid": some.uuid, "replication": "001", "membership": membership.document()}
        await some.admin(some.stores[0], "POST", "/admin/volumes", new_volume(1, **more), expect=201)
        (folder / "here").mkdir()
        peers = Peers(SECRET.encode())
        path = folder / "here" / "1.vol"
        try:
            uuid = UUID(some.uuid).bytes
            with Volume.create(path, 1, uuid=uuid, created_ms=1_700_000_000_000, replication=1) as volume:
                yield Played(some, volume, membership, peers)
        finally:
            peers.close()


def new(key: int, data: bytes = b"photo") -> Put:
    return Put((NewNeedle(key, key * 7919, (data,), 5),))


async def test_batches_land_in_any_order(tmp_path: Path) -> None:
    async with played(tmp_path) as one:
        (store,) = one.some.stores
        first, second, third = one.append(new(1)), one.append(new(2, bytes(3 * 2**20))), one.append(Delete(1, 7919, 9))
        # Two that overtook each other are put right without the primary's help.
        answers = await asyncio.gather(one.send(*second), one.send(*third), one.send(*first))
        assert [answer.status for answer in answers] == [200, 200, 200]
        assert (await one.send(*first)).tail == one.volume.tail()
        assert (await one.send(one.volume.tail(), b"")).tail == one.volume.tail()
        assert one.some.file(store) == one.volume.file.pread(one.volume.tail(), 0)
        assert await request(store, "GET", fid(2)) == (200, bytes(3 * 2**20))
        assert (await request(store, "GET", fid(1)))[0] == 404


async def test_what_is_not_to_be_taken_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with played(tmp_path) as one:
        (store,) = one.some.stores
        first, second = one.append(new(1)), one.append(new(2))
        gap = await one.send(*second)
        assert (gap.status, gap.reason, gap.tail) == (409, "gap", 64)
        older = await one.send(*first, epoch=4)
        assert (older.status, older.reason, older.document["epoch"]) == (409, "epoch", 5)
        began = time.monotonic()
        newer = await one.send(*first, epoch=6)
        assert (newer.status, newer.reason) == (409, "behind")
        assert 0.8 < time.monotonic() - began < 5
        assert (await one.send(*first, volume=2)).status == 404
        damaged = await one.send(first[0], first[1][:-9] + b"x" + first[1][-8:])
        assert damaged.status == 400, damaged
        assert len(one.some.file(store)) == 64
        assert (await one.send(*first)).status == 200
        other = bytes(first[1]).replace(b"photo", b"foto!")
        assert (await one.send(first[0], other)).status == 400
        with Volume.create(tmp_path / "other.vol", 1, uuid=one.volume.superblock.uuid) as twin:
            (written,) = twin.append([new(9)]).written
            diverged = await one.send(written.offset, b"".join(bytes(piece) for piece in written.pieces))
        assert (diverged.status, diverged.reason) == (409, "diverged")


async def test_a_batch_waits_for_its_epoch_to_be_told(tmp_path: Path) -> None:
    async with played(tmp_path) as one:
        first = one.append(new(1))
        sending = asyncio.create_task(one.send(*first, epoch=6))
        await asyncio.sleep(0)
        await one.some.push(replace(one.membership, epoch=6))
        assert (await sending).status == 200
        assert (await one.send(*first, epoch=5)).reason == "epoch"


async def test_a_copy_that_does_not_count_takes_nothing(tmp_path: Path) -> None:
    async with played(tmp_path) as one:
        (store,) = one.some.stores
        await one.some.push(replace(one.membership, epoch=6, in_sync=(PRIMARY,)))
        document = await one.some.document(store)
        assert (document["stale"], document["state"], document["reason"]) == (True, "readonly", "stale")
        assert (await one.send(*one.append(new(1)), epoch=6)).reason == "epoch"
        assert (await request(store, "PUT", fid(1), b"x", {"X-Haystack-Passed-On": "1"}))[0] == 503


async def test_the_committed_tail_is_noted(tmp_path: Path) -> None:
    async with played(tmp_path) as one:
        first, second = one.append(new(1)), one.append(new(2))
        assert (await one.send(*first)).status == 200
        assert (await one.send(*second, committed=first[0] + len(first[1]))).status == 200
        await one.some.push(replace(one.membership, epoch=6, primary=one.some.members[0].store_id, copies=1))
        # It leads now, and its other copy is not there: of what may not be everywhere the Directory hears nothing.
        await until(lambda: one.some.directory.listed(fid(1)[1:]))
        assert not one.some.directory.listed(fid(2)[1:])


async def test_who_has_not_the_secret_sends_nothing(tmp_path: Path) -> None:
    async with played(tmp_path) as one:
        (store,) = one.some.stores
        start, data = one.append(new(1))
        url = f"http://127.0.0.1:{store.port}{batch_target(1, 5, start, 0, 0)}"
        for headers in ({}, {"X-Haystack-Frame": f"{'0' * 32}:1:{'0' * 64}"}):
            async with aiohttp.request("POST", url, data=data, headers=headers) as answer:
                assert answer.status == 401, await answer.text()
        stranger = Peers(b"another secret, as long as the first")
        try:
            await asyncio.to_thread(stranger.call, one.some.members[0].url, "/", [b""], time.monotonic() + SECONDS)
        except PeerFailed as error:
            assert "refuses a session" in str(error)
        else:
            raise AssertionError("a session without the secret")
        assert len(one.some.file(store)) == 64


async def test_a_recorded_batch_is_refused(tmp_path: Path) -> None:
    async with played(tmp_path) as one:
        (store,) = one.some.stores
        start, data = one.append(new(1))
        target = batch_target(1, 5, start, 0, 0)

        def send() -> tuple[Answer, str]:
            connection = PeerConnection(one.some.members[0].url, SECRET.encode(), time.monotonic() + SECONDS)
            try:
                assert connection._session is not None
                recorded = replace(connection._session).sign("POST", target, [data])
                connection.begin(target, [data])
                return connection.wait(time.monotonic() + SECONDS), recorded
            finally:
                connection.close()

        answered, recorded = await asyncio.to_thread(send)
        assert answered.status == 200
        url = f"http://127.0.0.1:{store.port}{target}"
        async with aiohttp.request("POST", url, data=data, headers={"X-Haystack-Frame": recorded}) as answer:
            assert answer.status == 401
            assert "replayed" in await answer.text()


async def test_a_connection_that_died_is_replaced(tmp_path: Path) -> None:
    async with played(tmp_path) as one:
        (store,) = one.some.stores
        assert (await one.send(64, b"")).status == 200
        store.settings["port"], store.settings["admin_port"] = store.port, store.admin_port
        await store.stop()
        await store.start()
        assert (await one.send(*one.append(new(1)))).status == 200
