"""The pure parts of the measurements: figures, parsers, data."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import threading
from pathlib import Path

import pytest

from benchmarks import client, common, disk, photos, procfs, wrk
from benchmarks.cache_servers import Backend, nginx_cache
from benchmarks.common import CannotMeasure, Line, Report, Series, Target
from benchmarks.processes import Program, free_port, pinned, running
from benchmarks.servers import Server, wait_for
from haystack.fid import Fid
from haystack.volume import Volume

WRK_RESULT = {
    "asked": 101,
    "requests": 100,
    "microseconds": 2_000_000,
    "bytes": 4096,
    "p50": 500,
    "p99": 2500,
    "max": 9000,
    "status": 0,
    "connect": 0,
    "read": 0,
    "write": 0,
    "timeout": 0,
}


def wrk_output(**changes: int) -> str:
    return f"Running 2s test\n{wrk.MARK}{json.dumps(WRK_RESULT | changes)}\n"


@pytest.mark.parametrize(
    ("target", "figure", "verdict"),
    [
        (Target(at_least=1.1, aim=1.4), 1.0, "MISSED"),
        (Target(at_least=1.1, aim=1.4), 1.1, "met"),
        (Target(at_least=1.1, aim=1.4), 1.4, "aim met"),
        (Target(at_most=10.0), 10.1, "MISSED"),
        (Target(at_most=10.0), 10.0, "met"),
        (Target(at_most=10.0, aim=5.0), 4.0, "aim met"),
    ],
)
def test_a_target_judges_a_figure(target: Target, figure: float, verdict: str) -> None:
    assert target.judge(figure) == verdict


def test_a_line_compares_medians() -> None:
    line = Line("x", "1/s", Series((30.0, 10.0, 20.0)), Series((10.0, 100.0, 5.0)), "peer", Target(at_least=2.0))
    assert (line.ratio, line.verdict) == (2.0, "met")
    assert (line.ours.low, line.ours.high) == (10.0, 30.0)


def test_a_target_of_our_own_figure_needs_no_peer() -> None:
    line = Line("x", "ms", Series((11.0,)), target=Target(at_most=10.0, of_ratio=False))
    assert (line.ratio, line.figure, line.verdict) == (None, 11.0, "MISSED")


def test_a_peer_that_measured_nothing_gives_no_ratio() -> None:
    line = Line("x", "1/s", Series((1.0,)), Series((0.0,)), "peer", Target(at_least=2.0))
    assert (line.ratio, line.verdict) == (None, "")


def test_a_report_as_text_and_as_json() -> None:
    report = Report("Title", {"rounds": 3})
    report.add("4 KB", "requests/s", [80_000.0, 81_000.0], [60_000.0], peer_name="nginx", target=Target(at_least=1.1))
    report.note("twice")
    report.note("twice")
    text = report.text()
    assert "80,500 (80,000–81,000)" in text
    assert "≥ 1.1×" in text
    assert text.count("* twice") == 1
    document = json.loads(json.dumps(report.document()))
    assert document["lines"][0]["verdict"] == "met"
    assert document["lines"][0]["ours"] == {
        "median": 80_500.0,
        "min": 80_000.0,
        "max": 81_000.0,
        "values": [80_000.0, 81_000.0],
    }
    assert document["machine"]["cores"] >= 1


def test_rounds_alternate_and_change_the_order() -> None:
    assert list(common.alternating(2, ["a", "b"])) == [(0, "a"), (0, "b"), (1, "b"), (1, "a")]


def test_the_best_peer_by_the_median() -> None:
    values = {"a": [1.0, 9.0, 2.0], "b": [3.0, 3.0, 3.0]}
    assert common.best(values) == ("b", [3.0, 3.0, 3.0])
    assert common.best(values, lowest=True)[0] == "a"


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (81_900.4, "81,900"), (12.34, "12.3"), (1.234, "1.23"), (0.0451, "0.0451")]
)
def test_numbers_have_the_digits_that_matter(value: float, text: str) -> None:
    assert common.number(value) == text


@pytest.mark.parametrize(("size_bytes", "name"), [(512, "512 B"), (4096, "4 KB"), (204_800, "200 KB"), (2**20, "1 MB")])
def test_names_of_sizes(size_bytes: int, name: str) -> None:
    assert common.size_name(size_bytes) == name


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    with pytest.raises(CannotMeasure, match="nginx, wrk not found: apt-get install nginx-light wrk"):
        common.require_tools("nginx", "wrk")


def test_more_cores_than_there_are() -> None:
    with pytest.raises(CannotMeasure, match="processor cores are needed"):
        common.require_cores(100_000)


def test_reading_what_wrk_found() -> None:
    result = wrk.parse(wrk_output(), 1.0)
    assert (result.per_second, result.p50_ms, result.p99_ms, result.max_ms) == (50.0, 0.5, 2.5, 9.0)
    assert (result.asked, result.busy) == (101, 0.5)


@pytest.mark.parametrize("kind", ["status", "connect", "read", "write", "timeout"])
def test_wrong_answers_make_a_run_worthless(kind: str) -> None:
    with pytest.raises(CannotMeasure, match=f"3 {kind}"):
        wrk.parse(wrk_output(**{kind: 3}), 1.0)


def test_a_run_without_any_answer_is_worthless() -> None:
    with pytest.raises(CannotMeasure, match="no answer at all"):
        wrk.parse(wrk_output(requests=0), 1.0)
    with pytest.raises(CannotMeasure, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1\n", 1.0)


def test_reading_what_fio_found() -> None:
    output = "note: something\n" + json.dumps({"jobs": [{"error": 0, "read": {"iops": 8275.5}}]})
    assert disk.parse_fio(output) == 8275.5
    with pytest.raises(CannotMeasure, match="Input/output error"):
        disk.parse_fio(json.dumps({"jobs": [{"error": 5, "read": {"iops": 0}}]}))
    with pytest.raises(CannotMeasure, match="fio gave no result"):
        disk.parse_fio("fio: no such file")


def test_fio_reads_past_the_page_cache_and_writes_nothing(tmp_path: Path) -> None:
    command = disk.fio_command([tmp_path / "1.vol", tmp_path / "a:b"], 204_800, 16, 2.5, 1)
    assert {"--readonly", "--direct=1", "--rw=randread", "--iodepth=16", "--bs=204800", "--runtime=2.5"} <= set(command)
    assert rf"--filename={tmp_path}/1.vol:{tmp_path}/a\:b" in command


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_disks_own_rates(tmp_path: Path, overwrite: bool) -> None:
    assert disk.synced_writes(tmp_path, 512, 0.001, overwrite=overwrite) > 0
    assert disk.sequential_write(tmp_path, 4096, 10_000) > 0
    assert list(tmp_path.iterdir()) == []


def test_counters_of_a_disk() -> None:
    later = procfs.parse_disk_stat("110 5 2408 9 20 6 88 9 0 9 9 0 0 0 0 7 9\n")
    earlier = procfs.parse_disk_stat("10 5 8 9 15 6 8 9 0 9 9 0 0 0 0 4 9\n")
    assert later - earlier == procfs.DiskStat(100, 2400 * 512, 5, 80 * 512, 3)
    assert procfs.parse_disk_stat("1 2 3 4 5 6 7 8 9 10 11").flushes == 0


def test_the_disk_behind_a_folder(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    partition = tmp_path / "devices" / "sda" / "sda1"
    partition.mkdir(parents=True)
    entry = tmp_path / "sys" / "dev" / "block" / f"{os.major(device)}:{os.minor(device)}"
    entry.parent.mkdir(parents=True)
    with pytest.raises(CannotMeasure, match="no disk of its own"):
        procfs.disk_of(tmp_path, tmp_path / "sys")
    entry.symlink_to(partition)
    assert procfs.disk_of(tmp_path, tmp_path / "sys") == partition
    (partition / "partition").write_text("1\n")
    assert procfs.disk_of(tmp_path, tmp_path / "sys") == partition.parent


def test_memory_and_time_of_a_process() -> None:
    assert procfs.parse_memory("55-56 ---p 0 [rollup]\nRss:  10 kB\nAnonymous:   4 kB\nTHPeligible:  1\n") == {
        "Rss": 10_240,
        "Anonymous": 4096,
    }
    stat = "7 (a ) b) S " + " ".join(["0"] * 10) + " 150 50 0 0"
    assert procfs.parse_cpu_seconds(stat) == 200 / procfs.TICKS_PER_SECOND
    assert procfs.memory(os.getpid())["Anonymous"] > 0
    assert procfs.cpu_seconds([os.getpid()]) > 0


def test_room_on_the_disk(tmp_path: Path) -> None:
    procfs.require_room(tmp_path, 1)
    with pytest.raises(CannotMeasure, match="use --folder"):
        procfs.require_room(tmp_path, 2**60)


@pytest.mark.parametrize(("percent", "value"), [(50, 2.0), (99, 4.0), (100, 4.0), (25, 1.0), (0, 1.0)])
def test_percentiles(percent: float, value: float) -> None:
    assert client.percentile([4.0, 2.0, 1.0, 3.0], percent) == value


def test_photos_are_the_same_every_time_and_all_different() -> None:
    group = photos.photo_set(5, 20, 4096, 3)
    maker, again = photos.PhotoMaker(), photos.PhotoMaker()
    assert {photo.fid.volume for photo in group} == {1, 2, 3}
    assert len({photo.fid.cookie for photo in group}) == 20
    assert [maker.body(photo) for photo in group] == [again.body(photo) for photo in group]
    assert len({maker.body(photo) for photo in group}) == 20
    assert all(len(maker.body(photo)) == 4096 for photo in group)
    assert Fid.parse(group[0].path[1:]) == group[0].fid


def test_photos_in_volumes_and_in_files(tmp_path: Path) -> None:
    maker = photos.PhotoMaker()
    group = [*photos.photo_set(1, 300, 100, 2), *photos.photo_set(1000, 3, 2**20, 2)]
    photos.fill_store(tmp_path / "store", group, maker, volumes=2)
    (tmp_path / "files").mkdir()
    photos.write_files(tmp_path / "files", group, maker)
    for number in (1, 2):
        with Volume.open(tmp_path / "store" / f"{number}.vol") as volume:
            for photo in (photo for photo in group if photo.fid.volume == number):
                data = volume.get(photo.fid.key, photo.fid.cookie).data
                assert data == maker.body(photo) == (tmp_path / "files" / str(photo.fid)).read_bytes()


def test_a_program_is_watched_and_stopped(tmp_path: Path) -> None:
    code = "import subprocess, sys, time; subprocess.Popen(['sleep', '60']); print('ready 7'); time.sleep(60)"
    with running(Program("it", [sys.executable, "-c", code], sorted(os.sched_getaffinity(0)), tmp_path)) as program:
        assert program.wait_for_line(lambda line: line.removeprefix("ready ") if "ready" in line else None) == "7"
        children = procfs.children(program.pid)
        assert len(children) == 1
    assert not Path(f"/proc/{program.pid}").exists()
    assert not Path(f"/proc/{children[0]}").exists()


@pytest.mark.skipif(shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="needs nginx")
def test_of_nginx_the_workers_are_measured_and_nothing_that_ends_by_itself(tmp_path: Path) -> None:
    """With a cache it also has a process that loads it, which ends after a minute."""
    nowhere = Backend("", Server("no Store", free_port(), (), (), 0.0))
    cores = sorted(os.sched_getaffinity(0))
    with nginx_cache(tmp_path / "run", nowhere, workers=2, cores=cores, open_files=10, nopush=False) as server:
        names = [procfs.command_line(pid) for pid in server.workers]
        assert names == ["nginx: worker process"] * 2
        wait_for(lambda: len(procfs.children(server.pids[0])) == 4, "manager and loader of the cache run, too")


def test_a_program_that_ends_says_why(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "print('no such folder')"]
    with (
        running(Program("the Store", argv, sorted(os.sched_getaffinity(0)), tmp_path)) as program,
        pytest.raises(CannotMeasure, match=r"(?s)the Store ended.*no such folder"),
    ):
        program.wait_for_line(lambda line: None)


def test_a_command_line_for_some_cores() -> None:
    assert pinned(["wrk", "-c", "32"], [0, 1]) == ["taskset", "-c", "0,1", "wrk", "-c", "32"]
    assert 0 < free_port() < 65_536


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 5\r\n\r\nhello", 5),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhello", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", None),
    ],
)
def test_the_client_accepts_whole_answers_alone(answer: bytes, outcome: int | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                asked = b""
                while not asked.endswith(b"\r\n\r\n"):
                    asked += peer.recv(65_536)
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with client.Client(server.getsockname()[1]) as one:
            if outcome is None:
                with pytest.raises(CannotMeasure):
                    one.get_size("/1,2")
            else:
                assert one.get_size("/1,2") == outcome
        thread.join()
