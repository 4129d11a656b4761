"""The Directory as a process: its line at the start, signals, its lock, and ``kill -9`` in the midst of work."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from directory_fakes import FakeStore, directory_process, until

from directory.server import locked_folder
from directory.settings import DirectorySettings
from haystack.errors import ConfigError, FolderError
from haystack.fid import Fid


async def get(base: str, path: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(base + path) as answer:
        return answer.status, await answer.json()


async def writable(base: str) -> int:
    count: int = (await get(base, "/cluster/status"))[1]["Counts"]["volumesWritable"]
    return count


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_where_it_listens_and_stops_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    data = tmp_path / "new" / "folder"
    with directory_process(data) as directory:
        port = int(directory.base.rpartition(":")[2])
        assert directory.first_line == f"directory: listening on http://127.0.0.1:{port}, data in {data}"
        assert (await get(directory.base, "/healthz"))[0] == 200
        assert directory.end(number) == ""
        assert directory.process.returncode == 0


async def test_a_stop_lets_requests_finish(tmp_path: Path, store: FakeStore) -> None:
    store.delay = asyncio.Event()
    with directory_process(tmp_path) as directory:
        await store.register(directory.base)
        await store.asked.wait()
        waiting = asyncio.create_task(get(directory.base, "/dir/assign"))

        async def arrived() -> bool:
            async with aiohttp.ClientSession() as session, session.get(directory.base + "/metrics") as answer:
                return 'call="/metrics"' in await answer.text()

        await until(arrived, "the Directory answers")
        directory.process.send_signal(signal.SIGTERM)
        store.delay.set()
        status, answer = await waiting
        assert status == 200, answer
        assert await asyncio.to_thread(directory.finish) == ""
        assert directory.process.returncode == 0


def test_a_second_directory_is_refused_the_folder(tmp_path: Path) -> None:
    with directory_process(tmp_path) as first, directory_process(tmp_path) as second:
        errors = second.finish()
        assert second.process.returncode != 0
        assert f"{tmp_path}: in use by another Directory (process {first.process.pid})" in errors
        first.end(signal.SIGKILL)
        with directory_process(tmp_path) as third:
            assert third.base.startswith("http://127.0.0.1:")


def test_unusable_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match="file"), locked_folder(tmp_path / "file"):
        pass
    (tmp_path / "folder.json").touch()
    with pytest.raises(FolderError, match="data folder of a Store"), locked_folder(tmp_path):
        pass


async def test_an_address_in_use_is_refused(start: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="cannot listen on"):
        await start(port=taken.getsockname()[1])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"port": 65536}, "directory.port"),
        ({"peers_index": 1}, "directory.peers_index"),
        ({"peers_count": 0}, "directory.peers_index"),
        ({"writable_volumes": 0}, "directory.writable_volumes"),
        ({"max_volume_bytes": 0}, "directory.max_volume_bytes"),
        ({"heartbeat_seconds": 5.0}, "directory.dead_after_seconds"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(tmp_path: Path, change: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        DirectorySettings(data=tmp_path, **change)


def test_the_secret_is_not_shown(tmp_path: Path) -> None:
    assert "xyzzy" not in repr(DirectorySettings(data=tmp_path, secret=b"xyzzy" * 8))


async def test_kill_9_amid_assigns_repeats_no_id(tmp_path: Path, store: FakeStore) -> None:
    seen: list[str] = []

    async def assign_until_killed(base: str) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(base + "/dir/assign") as answer:
                        document = await answer.json()
                except aiohttp.ClientError:
                    return
                assert answer.status == 200, document
                seen.append(document["fid"])

    for round_number in range(1, 4):
        with directory_process(tmp_path, peers_index=1, peers_count=3) as directory:
            await store.register(directory.base)
            # From the second round on the Directory must know the volumes that were made before.
            await until(lambda base=directory.base: writable(base), "a volume is writable")
            clients = [asyncio.create_task(assign_until_killed(directory.base)) for _ in range(8)]
            wanted = round_number * 400

            async def enough(wanted: int = wanted) -> bool:
                return len(seen) >= wanted

            await until(enough, f"{wanted} assigns")
            await asyncio.to_thread(directory.end, signal.SIGKILL)
            await asyncio.gather(*clients)
    keys = [Fid.parse(fid).key for fid in seen]
    assert len(set(keys)) == len(keys) >= 1200
    assert all(key % 3 == 1 for key in keys)


async def test_kill_9_amid_growth_repeats_no_volume_id(tmp_path: Path, store: FakeStore) -> None:
    store.delay = asyncio.Event()
    for _ in range(3):
        store.asked.clear()
        with directory_process(tmp_path) as directory:
            await store.register(directory.base)
            await store.asked.wait()
            await asyncio.to_thread(directory.end, signal.SIGKILL)
    store.delay.set()
    store.delay = None
    with directory_process(tmp_path) as directory:
        await store.register(directory.base)
        await until(lambda: writable(directory.base), "a volume is writable")
    ids = [asked["volume"] for asked in store.made]
    assert len(set(ids)) == len(ids) > 7


async def test_kill_9_keeps_what_was_confirmed(tmp_path: Path, store: FakeStore) -> None:
    store.volumes[3] = store.volume(3)
    confirmed_to = 0
    for round_number in range(3):
        with directory_process(tmp_path, writable_volumes=1) as directory:
            if round_number:
                # Before the Store has said a word the Directory knows where its volume is.
                assert (await get(directory.base, "/dir/lookup?volumeId=3"))[0] == 200
                # An assign that comes too early waits for it, and makes no new volume.
                early = asyncio.create_task(get(directory.base, "/dir/assign"))
                await asyncio.sleep(0)
                await store.register(directory.base)
                status, answer = await early
                assert status == 200 and answer["fid"].startswith("3,"), answer
            await store.register(directory.base)
            assert (await store.confirm(directory.base, 3, 10**9, 10**9 + 1, []))[1] == {"confirmedTo": confirmed_to}
            for _ in range(20):
                needle = [f"{confirmed_to // 100 + 1:x}", 0, "ab", 100, "1f", 1, 0]
                status, answer = await store.confirm(directory.base, 3, confirmed_to, confirmed_to + 100, [needle])
                assert status == 200
                confirmed_to = answer["confirmedTo"]
            await asyncio.to_thread(directory.end, signal.SIGKILL)
    assert confirmed_to == 6000
    assert store.made == []
    with directory_process(tmp_path, writable_volumes=1) as directory:
        for photo in range(1, 61):
            assert (await get(directory.base, f"/photos/{photo:x}"))[0] == 200
        _, document = await get(directory.base, "/dir/status")
        assert document["Counts"]["photos"] == 60
        json.dumps(document)
