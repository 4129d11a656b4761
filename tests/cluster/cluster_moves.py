"""Moves of volumes in a real cluster: ordered by the command, stopped at named moments, and looked at afterwards."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster_http import HttpClient
from cluster_load import Load, Rates
from cluster_nodes import Cluster, ClusterOptions, Node, places, running_cluster
from cluster_record import Recorder
from cluster_verify import (
    directory_document,
    full_strength,
    promised_copies,
    settled,
    sha256_of,
    verify_files,
    verify_photos,
)

PAUSED_DIRECTORY = (sys.executable, str(Path(__file__).with_name("paused_directory.py")))
MOMENTS = ("ordered", "copying", "copied", "waited for", "counted", "switched", "to be deleted", "deleted", "over")
"""In this order: before the first byte; in the midst of them; all are there and compared; the primary waits for the
copy, the Directory does not count it; it counts, the source too; the source does not; its file is to go; it is gone;
the move is to be written down as done."""

MOMENT_SECONDS = 30.0
OVER_SECONDS = 60.0
FILL_BYTES = 3_000_000
"""More than a second's worth of what a move may copy, so that it can be met in the midst of it."""

POLL_SECONDS = 0.05


def move_options(replication: str, stores: int = 3, **more: Any) -> ClusterOptions:
    """Return a cluster in which moves do not take long, and Stores that are away are not waited for."""
    flags = ("--move-linger-seconds", "0.2s", "--move-bytes-per-second", "2MiB")
    return ClusterOptions(
        places(*["dc1/A"] * stores),
        replication=replication,
        writable_volumes=1,
        heartbeat_seconds=0.2,
        dead_after_seconds=1.0,
        directory_flags=flags,
        **more,
    )


def under_load(options: ClusterOptions) -> ClusterOptions:
    """Return the same, with Stores that may be late: tests run beside others."""
    return replace(options, heartbeat_seconds=0.5, dead_after_seconds=5.0)


def haystack(cluster: Cluster, *arguments: str) -> tuple[int, Any]:
    """Run the command; returns its exit code and its JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.cli", *arguments, "--json"],
        env={**cluster.environ, "HAYSTACK_DIRECTORY": f"http://{cluster.directory.address}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


@dataclass
class Moved:
    """One volume with photos, and where its copies are."""

    cluster: Cluster
    volume: int
    recorder: Recorder
    pauses: Path

    async def record(self) -> dict[str, Any]:
        async with HttpClient() as http:
            status = await directory_document(http, self.cluster)
        found: dict[str, Any] = next(one for one in status["Volumes"] if one["volume"] == self.volume)
        return found

    async def node(self, store_id: str) -> Node:
        async with HttpClient() as http:
            status = await directory_document(http, self.cluster)
        url = next(store["url"] for store in status["Stores"] if store["storeId"] == store_id)
        return next(store for store in self.cluster.stores if store.address == url)

    async def places(self) -> tuple[str, str]:
        """Return a Store to move from (the primary), and one that has no copy."""
        async with HttpClient() as http:
            status = await directory_document(http, self.cluster)
        known = next(one for one in status["Volumes"] if one["volume"] == self.volume)
        free = sorted(store["storeId"] for store in status["Stores"] if store["storeId"] not in known["members"])
        return str(known["primary"]), str(free[0])

    def files(self) -> dict[str, Path]:
        """Return the volume's files that are complete, by the node that has them."""
        found = {store.name: self.cluster.data_of(store) / f"{self.volume}.vol" for store in self.cluster.stores}
        return {name: path for name, path in found.items() if path.exists()}

    async def order(self, kind: str, *options: str) -> int:
        """Order a move without waiting for it; returns its number."""
        arguments = ("volume", kind, str(self.volume), *options, "--no-wait", "--apply")
        code, answer = await asyncio.to_thread(haystack, self.cluster, *arguments)
        assert code == 0, answer
        return int(answer["move"]["id"])

    def stop_at(self, moment: str) -> None:
        for name in ("reached", "go"):
            (self.pauses / name).unlink(missing_ok=True)
        (self.pauses / "at").write_text(moment)

    async def reached(self) -> None:
        deadline = time.monotonic() + MOMENT_SECONDS
        while not (self.pauses / "reached").exists():
            assert time.monotonic() < deadline, f"{(self.pauses / 'at').read_text()!r} was never reached"
            await asyncio.sleep(POLL_SECONDS)

    def go_on(self) -> None:
        (self.pauses / "go").write_text("")
        (self.pauses / "at").unlink(missing_ok=True)

    async def over(self, number: int, state: str = "done") -> dict[str, Any]:
        """Wait until a move is over; it must be as expected."""
        deadline = time.monotonic() + OVER_SECONDS
        async with HttpClient() as http:
            while True:
                document = await directory_document(http, self.cluster, "/cluster/moves")
                move: dict[str, Any] = next(one for one in document["moves"] if one["id"] == number)
                if move["finishedMs"]:
                    assert move["state"] == state, move
                    return move
                assert time.monotonic() < deadline, move
                await asyncio.sleep(POLL_SECONDS)

    async def enough_copies(self) -> None:
        """At this very moment as many complete copies count as were promised, with all that was acknowledged."""
        known = await self.record()
        files = self.files()
        names = [(await self.node(store_id)).name for store_id in known["inSync"]]
        assert len(names) >= promised_copies(known["replication"]), known
        assert set(names) <= files.keys(), f"{names} count, files are at {sorted(files)}"
        assert len({sha256_of(files[name]) for name in names}) == 1, "copies that count differ"

    async def right_copies(self, expected: set[str]) -> None:
        """Wait until exactly the expected Stores have the volume, all the same, and every photo is there."""
        deadline = time.monotonic() + OVER_SECONDS
        names = {(await self.node(store_id)).name for store_id in expected}
        while True:
            known, files = await self.record(), self.files()
            if set(known["members"]) == set(known["inSync"]) == expected and files.keys() == names:
                break
            assert time.monotonic() < deadline, f"{known}, files at {sorted(files)}, expected {sorted(names)}"
            await asyncio.sleep(POLL_SECONDS)
        assert len({sha256_of(path) for path in files.values()}) == 1, "copies differ"
        left = [path.name for store in self.cluster.stores for path in self.cluster.data_of(store).rglob("*.vol.copy")]
        assert not left, left
        assert await verify_photos(self.cluster, self.recorder) >= len(self.recorder.photos)


@contextmanager
def pausing_cluster(folder: Path, options: ClusterOptions) -> Iterator[Cluster]:
    """Start a cluster whose Directory stops where ``folder``/pauses says; at the end no process is left."""
    pauses = folder / "pauses"
    pauses.mkdir(parents=True)
    pausing = replace(options, environ={**options.environ, "MOVE_PAUSES": str(pauses)})
    with running_cluster(folder, pausing, directory=PAUSED_DIRECTORY) as cluster:
        yield cluster


async def kill_at_each(moved: Moved, victim: str, moments: Sequence[str]) -> None:
    """Move the volume once for each moment, kill the victim just then, and look at what comes of it.

    Parameters
    ----------
    victim: ``directory``, ``source`` or ``target``.
    """
    for moment in moments:
        source, target = await moved.places()
        before = set((await moved.record())["inSync"])
        moved.stop_at(moment)
        number = await moved.order("move", "--from", source, "--to", target)
        await moved.reached()
        await moved.enough_copies()
        killed = {"source": source, "target": target}.get(victim, "")
        node = await moved.node(killed) if killed else moved.cluster.directory
        await asyncio.to_thread(node.kill)
        moved.go_on()
        await asyncio.to_thread(node.start)
        await moved.over(number)
        await moved.right_copies(before - {source} | {target})


async def filled(cluster: Cluster) -> Moved:
    """Return a volume of a new cluster that has photos, some of them deleted, and takes no more."""
    await full_strength(cluster, within_seconds=60)
    recorder = Recorder()
    load = Load(cluster.directory.address, recorder, Rates(), seed=11)
    volume = 0
    while sum(_of(recorder, volume, 0)) < FILL_BYTES:
        await load.upload()
        assert not recorder.counts["uploads refused or without answer"], recorder.attempts[-1]
        volume = volume or next(iter(recorder.photos.values())).volume
    for _ in range(5):
        await load.delete_one()
    await load.stop()
    moved = Moved(cluster, volume, recorder, cluster.folder / "pauses")
    code, _ = await asyncio.to_thread(haystack, cluster, "volume", "mark", str(volume), "readonly", "--apply")
    assert code == 0
    return moved


def _of(recorder: Recorder, volume: int, least: int) -> list[int]:
    return [one.size_bytes for one in recorder.photos.values() if one.volume == volume] or [least]


async def move_under_load(cluster: Cluster, *, moves: int) -> Recorder:
    """Move the fullest volume again and again under uploads, deletes and reads; nothing may fail or be lost."""
    await full_strength(cluster, within_seconds=60)
    recorder = Recorder()
    load = Load(cluster.directory.address, recorder, Rates(uploads=20, reads=150, deletes=3), seed=3)
    for _ in range(50):
        await load.upload()
    load.start()
    for _ in range(moves):
        volume, source = await _busiest(cluster, recorder)
        arguments = ("volume", "move", str(volume), "--from", source, "--apply")
        code, answer = await asyncio.to_thread(haystack, cluster, *arguments)
        assert code == 0 and answer["move"]["state"] == "done", answer
    await load.stop()
    counts = recorder.counts
    assert not recorder.failed and not recorder.wrong, (recorder.failed, recorder.wrong)
    assert counts["reads"] > 300 and counts["uploads acknowledged"] > 50 and counts["deletes acknowledged"], counts
    await full_strength(cluster, within_seconds=30)
    await settled(cluster, recorder, within_seconds=30)
    assert await verify_photos(cluster, recorder) >= len(recorder.photos)
    await verify_files(cluster)
    return recorder


async def _busiest(cluster: Cluster, recorder: Recorder) -> tuple[int, str]:
    """Return the volume with most photos, and its primary."""
    volumes = [photo.volume for photo in recorder.photos.values()]
    async with HttpClient() as http:
        status = await directory_document(http, cluster)
    known = max(status["Volumes"], key=lambda one: volumes.count(one["volume"]))
    return known["volume"], known["primary"]
