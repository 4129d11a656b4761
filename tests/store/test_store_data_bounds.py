"""Slow, many and greedy clients: memory stays bounded, and others do not notice them."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from pathlib import Path

import msgpack
import pytest
from store_data_harness import MIB, Client, LocalStore, drop_cache, head, new_fid, private_bytes, running

from haystack.store.control_cells import Counter

PHOTO = bytes(range(256)) * 16


def slowest_get(client: Client, path: str, count: int = 50) -> float:
    """Seconds of the slowest of some reads."""
    slowest = 0.0
    for _ in range(count):
        started = time.perf_counter()
        assert client.get(path).status == 200
        slowest = max(slowest, time.perf_counter() - started)
    return slowest


@pytest.mark.parametrize("size", [MIB, 3 * MIB, 10 * MIB])
@pytest.mark.parametrize("cold", [False, True])
def test_many_clients_that_do_not_read(tmp_path: Path, size: int, cold: bool) -> None:
    """Photos in and behind the map, from the page cache and from disk, to 40 clients that take a few bytes each."""
    body = random.Random(size).randbytes(size)
    with running(tmp_path, max_volume_bytes=128 * MIB) as store:
        fids = [new_fid(), new_fid()]
        for fid in fids:
            assert store.once("PUT", f"/{fid}", body).status == 201
            assert store.once("GET", f"/{fid}").body == body
        small = new_fid()
        store.once("PUT", f"/{small}", PHOTO)
        if cold:
            drop_cache(store.path())
        pid = store.processes[0].pid
        before = private_bytes(pid)
        slow = [store.client(receive_buffer_bytes=4096) for _ in range(40)]
        for number, client in enumerate(slow):
            client.send(head("GET", f"/{fids[number % 2]}"))
        starts = [client.sock.recv(2000) for client in slow]
        assert all(start.startswith(b"HTTP/1.1 200 OK\r\n") for start in starts)
        with store.client() as client:
            assert slowest_get(client, f"/{small}") < 1
        grown = private_bytes(pid) - before
        assert grown < 40 * 300_000 + 48 * MIB, f"{grown} bytes for 40 clients"
        for client, start in zip(slow[:3], starts, strict=False):
            client.buffer = start
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)
            assert client.answer().body == body
        for client in slow:
            client.close()


def test_many_slow_uploads_are_bounded_and_all_arrive(tmp_path: Path) -> None:
    size, count = MIB, 24
    with running(tmp_path, upload_memory_bytes=MIB, upload_memory_total_bytes=4 * MIB) as store:
        pid = store.processes[0].pid
        uploads = [(store.client(), new_fid(), random.Random(number).randbytes(size)) for number in range(count)]
        before = private_bytes(pid)
        for client, fid, body in uploads:
            client.send(head("PUT", f"/{fid}", body))
        for start in range(0, size - 1000, 100_000):
            for client, _, body in uploads:
                client.send(body[start : min(start + 100_000, size - 1000)])
            assert store.counter(Counter.UPLOAD_MEMORY_BYTES) <= 4 * MIB
        small = new_fid()
        assert store.once("PUT", f"/{small}", PHOTO).status == 201  # in spite of the memory being used up
        grown = private_bytes(pid) - before
        assert grown < 4 * MIB + count * 400_000 + 8 * MIB
        for client, fid, body in uploads:
            client.send(body[-1000:])
            assert client.answer().status == 201
            assert client.get(f"/{fid}").body == body
            client.close()
        assert store.counter(Counter.UPLOAD_MEMORY_BYTES) == 0
        assert store.counter(Counter.SPILLED_UPLOADS) >= count - 4


@pytest.mark.parametrize("chunk_bytes", [1, 2, 40])
def test_tiny_chunks_take_no_more_memory_than_they_are_counted_with(tmp_path: Path, chunk_bytes: int) -> None:
    count = 600_000 // chunk_bytes
    with running(tmp_path, upload_memory_bytes=4 * MIB) as store, store.client() as client:
        pid = store.processes[0].pid
        client.put(f"/{new_fid()}", bytes(600_000))
        before = private_bytes(pid)
        fid = new_fid()
        client.send(head("PUT", f"/{fid}", b"", [("Transfer-Encoding", "chunked")]))
        chunk = b"%x\r\n%b\r\n" % (chunk_bytes, (b"ab" * 20)[:chunk_bytes])
        block = chunk * min(count, 10_000)
        for _ in range(count // min(count, 10_000)):
            client.send(block)
        with store.client() as other:
            while (
                store.counter(Counter.UPLOAD_MEMORY_BYTES)
                < count // min(count, 10_000) * min(count, 10_000) * chunk_bytes
            ):
                assert other.get("/healthz").status == 200
        assert private_bytes(pid) - before < 4 * MIB
        client.send(b"0\r\n\r\n")
        assert client.answer().status == 201
        assert store.counter(Counter.UPLOAD_MEMORY_BYTES) == 0


def test_large_multi_uploads_at_once(tmp_path: Path) -> None:
    """Their needles are in memory while they are written: a few at a time."""
    size, count = 8 * MIB, 12
    with running(tmp_path, upload_memory_total_bytes=8 * MIB, max_volume_bytes=256 * MIB, durability="os") as store:
        pid = store.processes[0].pid
        before = private_bytes(pid)
        clients = [store.client() for _ in range(count)]
        fids = [new_fid() for _ in range(count)]
        for client, fid in zip(clients, fids, strict=True):
            body = msgpack.packb([{"fid": str(fid), "data": bytes(size)}])
            client.send(head("POST", "/1/multi", body) + body)
        most = 0
        for client in clients:
            assert client.answer().status == 201
            most = max(most, private_bytes(pid) - before)
            client.close()
        assert most < 4 * 2 * size + 32 * MIB
        for fid in fids:
            assert len(store.once("GET", f"/{fid}").body) == size


def test_a_slow_upload_holds_nobody_up(tmp_path: Path) -> None:
    with running(tmp_path) as store, store.client() as slow, store.client() as client:
        body, fid, small = bytes(MIB), new_fid(), new_fid()
        slow.send(head("PUT", f"/{fid}", body) + body[:-1])
        for _ in range(20):
            assert client.put(f"/{small}", PHOTO).status == 201
            assert client.get(f"/{fid}").status == 404
        slow.send(body[-1:])
        assert slow.answer().status == 201


def test_clients_that_stall_are_closed(tmp_path: Path) -> None:
    with running(
        tmp_path,
        header_timeout_seconds=0.5,
        idle_timeout_seconds=0.5,
        stall_timeout_seconds=1,
        max_connections=20,
    ) as store:
        in_head, in_body, idle = store.client(), store.client(), store.client()
        in_head.send(b"GET /1,2")
        in_body.send(head("PUT", f"/{new_fid()}", PHOTO) + PHOTO[:100])
        assert in_head.answer().status == 408
        assert in_body.answer().status == 408
        assert idle.at_end()
        for client in (in_head, in_body, idle):
            client.close()
        crowd: list[Client] = []
        with contextlib.ExitStack() as stack:
            while len(crowd) < 25:
                crowd.append(stack.enter_context(store.client()))
            answers = [client for client in crowd if _refused(client)]
            assert len(answers) >= 5
        while not _served(store):
            pass  # it has not seen yet that the crowd is gone
        assert store.counter(Counter.UPLOAD_MEMORY_BYTES) == 0
        assert store.counter(Counter.CONNECTIONS_REFUSED) >= 5
        assert store.counter(Counter.TIMEOUTS) == 2


def _refused(client: Client) -> bool:
    try:
        return client.get("/healthz").status == 503
    except ConnectionError:
        return False


def _served(store: LocalStore) -> bool:
    with store.client() as client:
        try:
            return client.get("/healthz").status == 200
        except ConnectionError:
            return False


def test_nothing_is_left_of_requests(tmp_path: Path) -> None:
    """Thousands of requests of all kinds, then again as many: memory and descriptors are what they were."""
    with running(tmp_path, upload_memory_bytes=MIB, durability="os") as store:
        pid = store.processes[0].pid
        _all_kinds(store, 150)
        before, fds = private_bytes(pid), _descriptors(pid)
        _all_kinds(store, 300)
        assert private_bytes(pid) - before < 3 * MIB
        for _ in range(500):  # the worker may not have seen the last of them go
            if _descriptors(pid) <= fds:
                break
            assert store.once("GET", "/healthz").status == 200
        assert _descriptors(pid) <= fds


def _all_kinds(store: LocalStore, rounds: int) -> None:
    fid = new_fid()
    for _ in range(rounds):
        with store.client() as client:
            client.put(f"/{fid}", PHOTO)
            for path in (f"/{fid}", f"/{fid}", f"/{fid}.jpg", f"/{new_fid()}", "/nonsense"):
                client.get(path)
            client.get(f"/{fid}", Range="bytes=1-2")
            client.delete(f"/{fid}")
            client.put(f"/{fid}", PHOTO)
            client.send(head("PUT", f"/{fid}", bytes(2 * MIB)) + bytes(100_000))
    assert store.once("PUT", f"/{fid}", bytes(2 * MIB)).status == 201


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
