"""The pool, the importer's decisions, and the figures of a load, without a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystack.client import FileSource, Unreachable
from haystack.errors import TooLarge
from tools.importer import Importer
from tools.load import Payloads, Phase, choose_reads, summarize
from tools.manifest import ManifestError
from tools.pool import MAX_CLUSTER_FAILURES_IN_A_ROW, run_pool
from tools.report import MAX_FAILURES_KEPT, Report
from tools.walk import Found

JPEG = b"\xff\xd8\xff\xe0 a photo"


class Bar:
    def __init__(self) -> None:
        self.done = 0

    def advance(self, amount: int = 1) -> None:
        self.done += amount

    def at(self, done: int, total: int | None = None) -> None:
        self.done = done


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def test_the_pool_works_on_everything_some_at_a_time() -> None:
    running = most = 0
    done: list[int] = []

    async def work(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        done.append(number)

    await run_pool(numbers(50), work, 4)
    assert sorted(done) == list(range(50))
    assert most == 4


async def test_an_error_ends_the_pool() -> None:
    async def work(number: int) -> None:
        if number == 7:
            raise ManifestError("disk full")

    with pytest.raises(ManifestError, match="disk full"):
        await run_pool(numbers(10_000_000), work, 4)

    async def broken() -> AsyncIterator[int]:
        yield 1
        raise TooLarge("listing failed")

    async def nothing(number: int) -> None:
        """Work that is none."""

    with pytest.raises(TooLarge, match="listing failed"):
        await run_pool(broken(), nothing, 4)


def make(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


async def test_what_is_imported(tmp_path: Path) -> None:
    make(tmp_path, {"a.jpg": JPEG, "sub/b": JPEG, "note.jpg": b"text", "m.jsonl": JPEG, "c": JPEG, "d": JPEG, "e": b""})
    status = (tmp_path / "c").stat()
    done = {"c": (status.st_size, status.st_mtime_ns), "d": (status.st_size, 1)}
    stored: list[str] = []

    async def upload(found: Found, source: FileSource) -> None:
        stored.append(found.path)
        assert source.head == JPEG

    bar = Bar()
    importer = Importer(tmp_path, done, upload, 2, False, bar, leave_aside=tmp_path / "m.jsonl")
    report = await importer.run()
    assert sorted(stored) == ["a.jpg", "d", "sub/b"]
    assert (report.files, report.known, report.no_images, report.failed) == (3, 1, 2, 0)
    assert report.size_bytes == 3 * len(JPEG)
    assert bar.done == 4 * len(JPEG) + 4
    everything = await Importer(tmp_path, {}, None, 2, True, bar).run()
    assert everything.files == 7


async def test_failures_are_reported_by_name(tmp_path: Path) -> None:
    make(tmp_path, {"big.jpg": JPEG, "ok.jpg": JPEG})

    async def upload(found: Found, source: FileSource) -> None:
        if found.path == "big.jpg":
            raise TooLarge("at most 64 MiB")

    report = await Importer(tmp_path, {}, upload, 2, False, Bar()).run()
    assert [(one.path, one.reason) for one in report.failures] == [("big.jpg", "at most 64 MiB")]
    assert (report.files, report.exit_code) == (1, 1)


async def test_an_import_without_a_cluster_ends_early(tmp_path: Path) -> None:
    make(tmp_path, {f"{number:03}.jpg": JPEG for number in range(200)})
    tried = 0

    async def upload(found: Found, source: FileSource) -> None:
        nonlocal tried
        tried += 1
        raise Unreachable("connection refused")

    report = await Importer(tmp_path, {}, upload, 4, False, Bar()).run()
    assert tried < 200
    assert "connection refused" in report.aborted and str(MAX_CLUSTER_FAILURES_IN_A_ROW) in report.aborted
    assert report.exit_code == 1


async def test_an_import_that_cannot_be_written_down_ends(tmp_path: Path) -> None:
    make(tmp_path, {"a.jpg": JPEG})

    async def upload(found: Found, source: FileSource) -> None:
        raise ManifestError("disk full")

    with pytest.raises(ManifestError):
        await Importer(tmp_path, {}, upload, 2, False, Bar()).run()


def test_the_list_of_failures_is_bounded() -> None:
    report = Report()
    for number in range(MAX_FAILURES_KEPT + 5):
        report.fail(str(number), "x")
    assert (report.failed, len(report.failures)) == (MAX_FAILURES_KEPT + 5, MAX_FAILURES_KEPT)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=300))
def test_percentiles(latencies: list[float]) -> None:
    found = summarize(latencies)
    ordered = sorted(latencies)
    assert found["p50"] <= found["p90"] <= found["p99"] <= found["max"] == ordered[-1]
    for percent in (50, 90, 99):
        # At least so many percent are not larger, and fewer would be so if it were the next smaller one.
        value = found[f"p{percent}"]
        assert sum(one <= value for one in ordered) * 100 >= percent * len(ordered)
        assert sum(one < value for one in ordered) * 100 < percent * len(ordered)


def test_figures_of_nothing() -> None:
    assert summarize([]) == {}
    assert Phase("read").document()["perSecond"] is None


def test_payloads_come_back() -> None:
    one, again, other = Payloads(1000, 1), Payloads(1000, 1), Payloads(1000, 2)
    assert all(len(one.make(number)) == 1000 for number in (0, 1, 10**7))
    assert one.make(12345) == again.make(12345)
    assert len({one.make(number) for number in range(500)}) == 500
    assert one.make(1) != other.make(1)


def test_reads_take_every_photo_in_turn() -> None:
    chosen = choose_reads([5, 6, 7], 8, seed=3)
    assert len(chosen) == 8
    assert sorted(chosen[:3]) == sorted(chosen[3:6]) == [5, 6, 7]
    assert chosen == choose_reads([5, 6, 7], 8, seed=3)
    assert choose_reads([], 8, seed=3) == []
