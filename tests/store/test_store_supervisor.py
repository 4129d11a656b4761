"""The supervisor as a process, with real workers where they matter."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import aiohttp
from supervisor_harness import (
    HERE,
    FakeDirectory,
    StoreProcess,
    children_of,
    command_line,
    fid,
    free_port,
    is_running,
    kill_process,
    until,
)

STANDIN = str(HERE / "standin_worker.py")


async def test_a_store_starts_serves_and_stops(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path / "data", workers=2) as store:
        await store.make_volume(3)
        assert await store.put(fid(3, 1), b"photo") == 201
        assert await store.get(fid(3, 1)) == b"photo"
        lines = [command_line(pid) for pid in store.workers()]
        assert len(lines) == 2
        for line in lines:
            assert b"haystack.store.worker" in line
            assert str(tmp_path / "data").encode() in line
            assert str(store.port).encode() in line
        document = await store.until_volume(3, liveCount=1)
        assert document["state"] == "writable"
        assert await store.stop() == 0
        assert "Traceback" not in store.log
    names = {path.name for path in (tmp_path / "data").iterdir()}
    assert "3.dirty" not in names
    async with StoreProcess(tmp_path / "data") as store:
        assert await store.get(fid(3, 1)) == b"photo"
        assert (await store.volume(3))["liveCount"] == 1


async def test_a_killed_worker_is_started_again(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path, workers=2) as store:
        await store.make_volume(3)
        assert await store.put(fid(3, 1), b"photo") == 201
        before = store.workers()
        kill_process(before[0])
        await until(lambda: len(store.workers()) == 2 and before[0] not in store.workers())
        await until(lambda: "was killed by SIGKILL; starting it again" in store.log)
        assert (await store.admin("GET", "/admin/status"))["workerRestarts"] == 1
        for _ in range(20):
            assert await store.get(fid(3, 1)) == b"photo"
        assert await store.stop() == 0


async def test_killing_the_supervisor_leaves_no_orphan_and_loses_nothing(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path, workers=2) as store:
        await store.make_volume(3)
        for key in range(1, 20):
            assert await store.put(fid(3, key), b"photo %d" % key) == 201
        workers = store.workers()
        await store.kill()
    async with StoreProcess(tmp_path) as store:
        assert not any(is_running(pid) for pid in workers)
        for key in range(1, 20):
            assert await store.get(fid(3, key)) == b"photo %d" % key
        assert await store.put(fid(3, 20), b"next") == 201


async def test_killing_everything_at_once_loses_nothing(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path, workers=2) as store:
        await store.make_volume(3)
        assert await store.put(fid(3, 1), b"photo") == 201
        for pid in [store.process.pid, *store.workers()]:
            kill_process(pid)
        await store.end()
    async with StoreProcess(tmp_path) as store:
        assert await store.get(fid(3, 1)) == b"photo"


async def test_a_start_waits_for_the_workers_of_a_killed_store(tmp_path: Path) -> None:
    """They may still be writing; until the last has ended the folder stays locked."""
    async with StoreProcess(tmp_path, standin=STANDIN, mode="deaf") as store:
        [worker] = store.workers()
        await store.kill()
        async with StoreProcess(tmp_path, standin=STANDIN, ready=False) as second:
            await asyncio.sleep(0.5)  # long enough that it would have started if it did not wait
            assert second.process.returncode is None
            assert is_running(worker)
            assert not children_of(second.process.pid)
            kill_process(worker)
            await until(lambda: children_of(second.process.pid))
            await until(lambda: "0 volumes are in use" in second.log)
            assert await second.stop() == 0


async def test_a_folder_in_use_is_refused_at_once(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path, standin=STANDIN) as store:
        async with StoreProcess(tmp_path, standin=STANDIN, ready=False) as second:
            assert await second.end() == 1
            assert f"data folder {tmp_path}: in use by another Store (process {store.process.pid})" in second.log
        assert await store.stop() == 0


async def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path / "one", standin=STANDIN) as store:
        one, other = (
            {"port": store.port, "admin_port": free_port()},
            {"port": free_port(), "admin_port": store.admin_port},
        )
        async with StoreProcess(tmp_path / "two", standin=STANDIN, ready=False, **one) as second:
            assert await second.end() == 1
            assert f"127.0.0.1:{store.port} is in use" in second.log
        async with StoreProcess(tmp_path / "three", standin=STANDIN, ready=False, **other) as third:
            assert await third.end() == 1
            assert "store.admin_port: cannot listen" in third.log


async def test_the_port_can_be_taken_again_at_once(tmp_path: Path) -> None:
    port, admin_port = free_port(), free_port()
    for _ in range(2):
        async with StoreProcess(tmp_path, port=port, admin_port=admin_port) as store:
            assert store.port == port
            await store.get("3,0100000000000000ff")
            assert await store.stop() == 0


async def test_workers_that_cannot_start_end_the_store(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path, standin=STANDIN, mode="exit", workers=2, ready=False) as store:
        assert await store.end() == 1
        assert "WorkerFailed: worker" in store.log
        assert "did not start 3 times, at last ended with exit code 3" in store.log


async def test_a_worker_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path, standin=STANDIN, mode="deaf", stop_timeout_seconds=0.1) as store:
        workers = store.workers()
        assert await store.stop() == 0
        assert "did not finish within 0.4 s and is killed" in store.log
        assert not any(is_running(pid) for pid in workers)


async def test_ctrl_c_stops_the_store_cleanly(tmp_path: Path) -> None:
    """The terminal sends SIGINT to the workers too; they leave it to the supervisor."""
    async with StoreProcess(tmp_path, workers=2) as store:
        await store.make_volume(3)
        for pid in store.workers():
            os.kill(pid, signal.SIGINT)
        store.process.send_signal(signal.SIGINT)
        assert await store.end() == 0
        assert "starting it again" not in store.log


async def test_requests_in_flight_finish_at_a_stop(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path) as store:
        await store.make_volume(3)
        reader, writer = await asyncio.open_connection("127.0.0.1", store.port)
        writer.write(f"PUT /{fid(3, 1)} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello".encode())
        await writer.drain()
        # An answered request on another connection shows that the worker has read the half one as well.
        assert await store.get(fid(3, 9)) == 404
        store.process.terminate()
        await until(lambda: "stopping" in store.log)
        writer.write(b"world")
        assert (await reader.readline()).startswith(b"HTTP/1.1 201")
        writer.close()
        assert await store.end() == 0
    async with StoreProcess(tmp_path) as store:
        assert await store.get(fid(3, 1)) == b"helloworld"


async def test_volumes_are_checkpointed_when_idle(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path) as store:
        await store.make_volume(3)
        assert await store.put(fid(3, 1), b"photo") == 201
        assert (tmp_path / "3.dirty").exists()
        await until(lambda: not (tmp_path / "3.dirty").exists(), "checkpoint")
        assert await store.put(fid(3, 2), b"photo") == 201
        assert (tmp_path / "3.dirty").exists()


async def test_volumes_under_load_are_checkpointed_too(tmp_path: Path) -> None:
    timing = {"checkpoint_idle_seconds": 1000.0, "checkpoint_most_seconds": 0.3}
    async with StoreProcess(tmp_path, timing=timing) as store:
        await store.make_volume(3)
        assert await store.put(fid(3, 1), b"photo") == 201
        await until(lambda: not (tmp_path / "3.dirty").exists(), "checkpoint")


async def test_an_unknown_format_takes_one_volume_down(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path) as store:
        for volume in (3, 4):
            await store.make_volume(volume)
            assert await store.put(fid(volume, 1), b"photo") == 201
        assert await store.stop() == 0
    with (tmp_path / "4.vol").open("r+b") as file:
        file.seek(8)
        file.write(b"\x63\x00")
    (tmp_path / "5.vol").write_bytes(b"not a volume at all")
    async with StoreProcess(tmp_path) as store:
        assert await store.get(fid(3, 1)) == b"photo"
        document = await store.until_volume(4, state="failed")
        assert "format version 99 is unknown" in document["reason"]
        assert document["uuid"] is None
        assert (await store.volume(5))["state"] == "failed"
        assert "volume 4 is set aside" in store.log
        assert await store.put(fid(4, 2), b"photo") >= 500
    assert (tmp_path / "5.vol").read_bytes() == b"not a volume at all"


async def test_a_torn_tail_is_reported_and_the_volume_served(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path) as store:
        await store.make_volume(3)
        assert await store.put(fid(3, 1), b"photo") == 201
        assert await store.stop() == 0
    with (tmp_path / "3.vol").open("ab") as file:
        file.write(b"torn")
    async with StoreProcess(tmp_path) as store:
        assert await store.get(fid(3, 1)) == b"photo"
        assert "volume 3: torn tail of 4 bytes" in store.log
        assert await store.put(fid(3, 2), b"photo") == 201


async def test_one_store_on_all_addresses_names_one_that_others_reach(tmp_path: Path) -> None:
    async with FakeDirectory() as directory:
        settings = {"host": "0.0.0.0", "directories": [directory.url], "data_center": "dc1", "rack": "r7"}
        async with StoreProcess(tmp_path, standin=STANDIN, ready=False, **settings) as store:
            await until(lambda: directory.registrations)
            document = directory.registrations[0]
            assert document["url"].startswith("127.0.0.1:")
            assert document["publicUrl"] == document["url"]
            assert document["adminUrl"].startswith("127.0.0.1:")
            assert (document["dataCenter"], document["rack"]) == ("dc1", "r7")
            assert document["folders"][0]["state"] == "ok"
            assert await store.stop() == 0


async def test_health_and_metrics_of_the_admin_port(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path, secret="s" * 32) as store:
        base = f"http://127.0.0.1:{store.admin_port}"
        async with aiohttp.ClientSession() as session:
            for path in ("/healthz", "/readyz", "/metrics"):
                async with session.get(base + path) as answer:
                    assert answer.status == 200, path
            async with session.get(base + "/admin/status") as answer:
                assert answer.status == 401
                assert "must be signed" in (await answer.json())["error"]
        assert await store.stop() == 0


def test_the_reserved_port_is_held_while_a_worker_is_down() -> None:
    from haystack.addresses import reserve_address

    sockets, port = reserve_address("127.0.0.1", 0)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", port))
            raise AssertionError("bound a reserved port")
        except OSError:
            pass
    for one in sockets:
        one.close()
