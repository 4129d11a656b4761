"""The data path when disks, files, processes and clients fail: never a wrong byte, nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from store_data_harness import FORM_TYPE, MIB, Client, LocalStore, drop_cache, form, head, new_fid, running

from haystack.fid import Fid, Locator
from haystack.store.control_cells import Counter, Reason, VolumeCell, VolumeState
from haystack.volume import NeedleMeta, Volume

PHOTO = bytes(range(256)) * 16


def hot(client: Client, fid: Fid, body: bytes) -> None:
    """Read until the answer is cached."""
    for _ in range(3):
        answer = client.get(f"/{fid}")
        assert (answer.status, answer.body) == (200, body)


# -- two workers


def test_deletes_and_overwrites_reach_every_worker_at_once(tmp_path: Path) -> None:
    with running(tmp_path, workers=2) as store, store.client(0) as one, store.client(1) as two:
        for number in range(20):
            fid, other = new_fid(), new_fid()
            writer, reader = (one, two) if number % 2 else (two, one)
            assert writer.put(f"/{fid}", b"first").status == 201
            assert writer.put(f"/{other}", b"other").status == 201
            for client in (one, two):
                hot(client, fid, b"first")
                hot(client, other, b"other")
            assert writer.put(f"/{fid}", b"second").status == 201
            assert reader.get(f"/{fid}").body == b"second"
            hot(one, fid, b"second")
            hot(two, fid, b"second")
            assert writer.delete(f"/{fid}").status == 202
            assert reader.get(f"/{fid}").status == 404
            assert writer.get(f"/{fid}").status == 404
            assert reader.delete(f"/{fid}").status == 404
            hot(reader, other, b"other")
        assert store.counter(Counter.CACHED_ENTRIES) > 0


def test_a_worker_killed_during_uploads_loses_nothing_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[tuple[Fid, bytes]] = []
    lock = threading.Lock()
    with running(tmp_path, workers=2) as store:
        enough = threading.Event()

        def upload(worker: int, seed: int) -> None:
            source = random.Random(seed)
            with contextlib.suppress(ConnectionError), store.client(worker) as client:
                while True:
                    fid, body = new_fid(), source.randbytes(source.choice((10, 5000, 300_000)))
                    if client.put(f"/{fid}", body).status != 201:
                        return
                    with lock:
                        acknowledged.append((fid, body))
                        if len(acknowledged) >= 60:
                            enough.set()
                    if worker == 1 and done.is_set():
                        return

        done = threading.Event()
        threads = [threading.Thread(target=upload, args=(number % 2, number)) for number in range(6)]
        for thread in threads:
            thread.start()
        assert enough.wait(30)
        store.kill(0)
        with store.client(1) as client:  # the other one goes on: nobody holds the append lock for ever
            fid = new_fid()
            assert client.put(f"/{fid}", b"after the kill").status == 201
        done.set()
        for thread in threads:
            thread.join()
        store.restart(0)
        for worker in (0, 1):
            with store.client(worker) as client:
                assert client.get(f"/{fid}").body == b"after the kill"
                for one, body in acknowledged:
                    assert client.get(f"/{one}").body == body
        second = store.reopen()
        try:
            with second.client() as client:
                for one, body in acknowledged:
                    assert client.get(f"/{one}").body == body
        finally:
            second.stop()
        # ``running`` stops a Store that is stopped already.
        store.control = second.control = _Closed()


class _Closed:
    def close(self) -> None:
        """Nothing is left to be closed."""


# -- stopping


def test_sigterm_lets_requests_in_flight_finish(tmp_path: Path) -> None:
    big, small, upload_fid = new_fid(), new_fid(), new_fid()
    body = random.Random(1).randbytes(12 * MIB)
    with running(tmp_path, stop_timeout_seconds=20) as store:
        with store.client() as client:
            assert client.put(f"/{big}", body).status == 201
            assert client.put(f"/{small}", PHOTO).status == 201
        download = store.client(receive_buffer_bytes=4096)
        upload = store.client()
        idle = store.client()
        hot(idle, small, PHOTO)
        upload.send(head("PUT", f"/{upload_fid}", body) + body[: MIB // 2])
        download.send(head("GET", f"/{big}"))
        first = download.sock.recv(1000)
        store.terminate()
        assert idle.at_end()
        with pytest.raises(ConnectionRefusedError):
            _until_refused(store)
        upload.send(body[MIB // 2 :])
        answer = upload.answer()
        assert answer.status == 201 and answer.headers["connection"] == "close"
        download.buffer = first
        answer = download.answer()
        assert answer.status == 200 and answer.body == body
        assert store.processes[0].wait(10) == 0
        for one in (download, upload, idle):
            one.close()
        store.restart(0)
        with store.client() as client:
            assert client.get(f"/{upload_fid}").body == body


def _until_refused(store: LocalStore) -> None:
    while True:
        with socket.create_connection(("127.0.0.1", store.ports[0]), timeout=5) as sock, contextlib.suppress(OSError):
            sock.recv(1)


# -- damage


@pytest.mark.parametrize("cached", [False, True])
def test_each_byte_of_a_needle_flipped(tmp_path: Path, cached: bool) -> None:
    body = b"the photo of which each byte counts"
    with running(tmp_path) as store, store.client() as client:
        before, fid, after = new_fid(), new_fid(), new_fid()
        client.put(f"/{before}", PHOTO)
        locator = Locator.parse(
            client.put(f"/{fid}", body, ("Content-Type", "image/x"), ("X-Haystack-Meta-A", "b")).json()["locator"]
        )
        end = store.tail()
        client.put(f"/{after}", PHOTO)
        hot(client, fid, body)
        whole = {**client.get(f"/{fid}").headers, "date": ""}
        refused = 0
        with store.path().open("r+b", buffering=0) as file:
            for offset in range(locator.offset, end):
                byte = os.pread(file.fileno(), 1, offset)
                os.pwrite(file.fileno(), bytes([byte[0] ^ (1 << offset % 8)]), offset)
                paths = (f"/{fid}",) if cached else (f"/{fid}.jpg", f"/{locator}", f"/{fid}")
                for path in paths:
                    answer = client.get(path)
                    if answer.status == 200:  # the footer's magic tells nothing of the photo
                        assert answer.body == body and {**answer.headers, "date": ""} == whole
                    else:
                        assert answer.status == 500 and answer.error
                        refused += 1
                assert client.request("HEAD", f"/{fid}").status == 500
                assert client.get(f"/{fid}", Range="bytes=0-3").status == 500
                os.pwrite(file.fileno(), byte, offset)
                if cached:
                    hot(client, fid, body)
        assert refused >= (end - locator.offset - 16) * (1 if cached else 3)
        hot(client, fid, body)
        hot(client, before, PHOTO)
        hot(client, after, PHOTO)
        assert store.counter(Counter.DAMAGED_READS) >= refused
        assert store.state() is VolumeState.WRITABLE
        log = store.log()
        assert "a read failed" in log and "Traceback" not in log


@pytest.mark.parametrize("size", [100, 100_000, 3 * MIB, 9 * MIB])
def test_a_damaged_photo_of_any_size_read_from_disk(tmp_path: Path, size: int) -> None:
    body = random.Random(size).randbytes(size)
    with running(tmp_path) as store, store.client() as client:
        fid, good = new_fid(), new_fid()
        locator = Locator.parse(client.put(f"/{fid}", body).json()["locator"])
        client.put(f"/{good}", body)
        for place in (0, size // 2, size - 1):
            offset = locator.offset + 56 + place
            with store.path().open("r+b", buffering=0) as file:
                byte = os.pread(file.fileno(), 1, offset)
                os.pwrite(file.fileno(), bytes([byte[0] ^ 1]), offset)
                drop_cache(store.path())
                answer = client.get(f"/{fid}")
                assert answer.status == 500 and "checksum" in answer.error
                assert client.get(f"/{good}").body == body
                os.pwrite(file.fileno(), byte, offset)
        hot(client, fid, body)


def test_cold_reads_are_right_and_counted(tmp_path: Path) -> None:
    bodies = {new_fid(): random.Random(size).randbytes(size) for size in (0, 1, 4096, 70_000, MIB, 3 * MIB, 9 * MIB)}
    with running(tmp_path) as store, store.client() as client:
        for fid, body in bodies.items():
            assert client.put(f"/{fid}", body).status == 201
        before = store.counter(Counter.COLD_READS)
        for fid, body in bodies.items():
            drop_cache(store.path())
            answer = client.get(f"/{fid}")
            assert (answer.status, answer.body) == (200, body)
            drop_cache(store.path())
            middle = len(body) // 2
            answer = client.get(f"/{fid}", Range=f"bytes={middle}-")
            assert (answer.status, answer.body) == (206, body[middle:]) if body else answer.status == 416
            drop_cache(store.path())
            assert client.request("HEAD", f"/{fid}").headers["content-length"] == str(len(body))
            drop_cache(store.path())
            assert client.get(f"/{fid}", If_None_Match="*").status == 304
        if _can_drop(store.path()):
            assert store.counter(Counter.COLD_READS) - before == 4 * len(bodies)


def _can_drop(path: Path) -> bool:
    with path.open("rb") as file:
        drop_cache(path)
        try:
            return os.preadv(file.fileno(), [bytearray(64)], 0, os.RWF_NOWAIT) < 0
        except BlockingIOError:
            return True


def test_a_file_cut_under_a_running_store(tmp_path: Path) -> None:
    bodies = {new_fid(): random.Random(number).randbytes(size) for number, size in enumerate((3000, 100_000, 3 * MIB))}
    with running(tmp_path) as store, store.client() as client:
        kept = new_fid()
        client.put(f"/{kept}", PHOTO)
        start = store.tail()
        for fid, body in bodies.items():
            client.put(f"/{fid}", body)
        pid = store.processes[0].pid
        os.truncate(store.path(), start + 100)
        for fid in bodies:
            for path in (f"/{fid}", f"/{fid}.jpg", f"/{fid}"):
                answer = client.get(path)
                assert answer.status == 500 and answer.error
        hot(client, kept, PHOTO)
        answer = client.put(f"/{new_fid()}", PHOTO)
        assert answer.status == 500 and "Restart" in answer.error
        assert store.state() is VolumeState.FAILED
        assert store.once("PUT", f"/{new_fid()}", PHOTO).status == 503
        assert client.delete(f"/{kept}").status == 503
        hot(client, kept, PHOTO)
        assert store.processes[0].poll() is None and store.processes[0].pid == pid


@pytest.mark.parametrize("size", [MIB, 12 * MIB])
def test_a_file_cut_while_it_is_sent(tmp_path: Path, size: int) -> None:
    """The client gets a short body or a reset, never wrong bytes; the worker goes on."""
    body = random.Random(size).randbytes(size)
    with running(tmp_path) as store:
        fid, kept = new_fid(), new_fid()
        assert store.once("PUT", f"/{kept}", PHOTO).status == 201
        assert store.once("PUT", f"/{fid}", body).status == 201
        slow = store.client(receive_buffer_bytes=4096)
        slow.send(head("GET", f"/{fid}.jpg", None, [("Connection", "close")]))
        received = slow.sock.recv(1000)
        os.truncate(store.path(), 5000)
        with contextlib.suppress(ConnectionResetError):
            while piece := slow.sock.recv(MIB):
                received += piece
        slow.close()
        sent = received.partition(b"\r\n\r\n")[2]
        assert body.startswith(sent) and (len(sent) < size or size == MIB)  # that much the sockets may hold already
        assert store.once("GET", f"/{kept}").body == PHOTO
        assert store.processes[0].poll() is None


def test_an_index_that_is_gone_wrong(tmp_path: Path) -> None:
    """LMDB's pages overwritten under the worker: errors, no wrong photo, rebuilt at the next opening."""
    bodies = {new_fid(key=key + 1): b"photo %d" % key for key in range(2000)}
    with running(tmp_path, durability="os") as store:
        with store.client() as client:
            client.send(b"".join(head("PUT", f"/{fid}", body) + body for fid, body in bodies.items()))
            for _ in bodies:
                assert client.answer().status == 201
        index = store.folder / "1.idx"
        with index.open("r+b", buffering=0) as file:
            for page in range(2, index.stat().st_size // 4096):
                os.pwrite(file.fileno(), b"\xff" * 16, page * 4096)
        wrong = 0
        with store.client() as client:
            for fid, body in list(bodies.items())[::100]:
                answer = client.get(f"/{fid}")
                assert answer.status in (200, 404, 500, 503)
                wrong += answer.status >= 500
                assert answer.status != 200 or answer.body == body
        assert wrong
        assert store.state() is VolumeState.FAILED
        assert "rebuild" in (store.folder / "1.dirty").read_text()
        assert store.once("PUT", f"/{new_fid()}", b"x").status == 503
        store.volumes[1].failed = "the test damaged its index"
    with running(tmp_path) as store, store.client() as client:
        for fid, body in list(bodies.items())[::50]:
            assert client.get(f"/{fid}").body == body


# -- states


def test_states_of_a_volume(tmp_path: Path) -> None:
    with running(tmp_path, volumes=(1, 2)) as store, store.client() as client:
        fid, other = new_fid(), new_fid(2)
        client.put(f"/{fid}", PHOTO)
        for state, reason, put in (
            (VolumeState.READONLY, Reason.VOLUME_FULL, 409),
            (VolumeState.READONLY, Reason.DISK_FULL, 507),
            (VolumeState.READONLY, Reason.MARKED, 409),
            (VolumeState.WRITABLE, Reason.NONE, 201),
            (VolumeState.FAILED, Reason.NONE, 503),
            (VolumeState.WRITABLE, Reason.NONE, 503),  # a failure stays
        ):
            doomed = new_fid()
            store.set_state(VolumeState.WRITABLE)
            if put != 503:
                assert client.put(f"/{doomed}", PHOTO).status == 201
            store.set_state(state, reason)
            assert store.once("PUT", f"/{new_fid()}", PHOTO).status == put
            assert store.once("POST", "/1/multi", b"\x90").status == (400 if put == 201 else put)
            assert client.get(f"/{fid}").status == 200
            assert client.delete(f"/{doomed}").status == (503 if put == 503 else 202)
        store.set_state(VolumeState.RECOVERING, volume=2)
        answer = client.get(f"/{other}")
        assert answer.status == 503 and answer.headers["retry-after"] == "1"
        assert store.once("PUT", f"/{other}", PHOTO).status == 503
        store.set_state(VolumeState.WRITABLE, volume=2)
        assert client.put(f"/{other}", PHOTO).status == 201
        assert client.get(f"/{other}").status == 200


def test_a_volume_that_is_full(tmp_path: Path) -> None:
    with running(tmp_path, max_volume_bytes=MIB) as store:
        stored = []
        while (answer := store.once("PUT", f"/{(fid := new_fid())}", bytes(100_000))).status == 201:
            stored.append(fid)
        assert answer.status == 409 and "/dir/assign" in answer.error
        assert len(stored) == 10
        with store.client() as other:  # a large one is refused before its body is sent
            other.send(head("PUT", f"/{fid}", bytes(MIB), [("Expect", "100-continue")]))
            assert other.answer().status == 409
        with store.client() as other:  # without a declared length, after it
            other.send(head("PUT", f"/{fid}", b"", [("Transfer-Encoding", "chunked")]))
            other.send(b"186a0\r\n" + bytes(100_000) + b"\r\n0\r\n\r\n")
            assert other.answer().status == 409
        with store.client() as client:
            assert client.put(f"/{new_fid()}", bytes(40_000)).status == 201
            for one in stored:
                assert client.get(f"/{one}").status == 200
            assert client.delete(f"/{stored[0]}").status == 202
        assert store.tail() <= MIB + 100


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "8m") as disk:
        filler = disk / "filler"
        with running(disk, upload_memory_bytes=256 * 1024) as store:
            stored: dict[Fid, bytes] = {}
            source = random.Random(3)
            while True:
                fid, body = new_fid(), source.randbytes(source.choice((500, 50_000, 200_000)))
                answer = store.once("PUT", f"/{fid}", body)
                if answer.status != 201:
                    break
                stored[fid] = body
            assert answer.status == 507 and "nothing was stored" in answer.error
            tail = store.tail()
            filler.write_bytes(b"")
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
            for _ in range(3):
                assert store.once("PUT", f"/{new_fid()}", bytes(200_000)).status == 507
            assert store.once("PUT", f"/{new_fid()}", bytes(MIB)).status == 507  # spills
            assert store.tail() == tail
            assert store.state() is VolumeState.WRITABLE
            for one, body in stored.items():
                assert store.once("GET", f"/{one}").body == body
            filler.unlink()
            assert store.once("PUT", f"/{fid}", b"room again").status == 201
            stored[fid] = b"room again"
            gone = next(iter(stored))
            assert store.once("DELETE", f"/{gone}").status == 202
            del stored[gone]
            assert store.counter(Counter.UPLOAD_MEMORY_BYTES) == 0
        with running(disk) as store, store.client() as client:
            for one, body in stored.items():
                assert client.get(f"/{one}").body == body
            assert client.get(f"/{gone}").status == 404


# -- fsync

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
int fdatasync(int fd) {
    static int (*real)(int);
    const char *flag = getenv("FAIL_FSYNC_WHEN");
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    if (flag && access(flag, F_OK) == 0) { unlink(flag); errno = EIO; return -1; }
    return real(fd);
}
"""


@pytest.fixture
def failing_fsync(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """Environment of a process whose next fdatasync fails once the file exists."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source, shim, flag = tmp_path / "shim.c", tmp_path / "shim.so", tmp_path / "fail"
    source.write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(shim), "FAIL_FSYNC_WHEN": str(flag)}, flag


def test_an_fsync_that_fails(tmp_path: Path, failing_fsync: tuple[dict[str, str], Path]) -> None:
    environment, flag = failing_fsync
    with running(tmp_path / "data", workers=2, environment=environment) as store:
        good = new_fid()
        with store.client(0) as one, store.client(1) as two:
            assert one.put(f"/{good}", PHOTO).status == 201
            hot(two, good, PHOTO)
            flag.touch()
            answer = one.put(f"/{new_fid()}", PHOTO)
            assert answer.status == 500 and "durable" in answer.error
            assert not flag.exists()
            assert store.state() is VolumeState.FAILED
            for worker in (0, 1):
                assert store.once("PUT", f"/{new_fid()}", PHOTO, worker=worker).status == 503
            for client in (one, two):
                assert client.delete(f"/{good}").status == 503
                hot(client, good, PHOTO)
            assert two.get(f"/{replace(good, key=good.key + 1)}").status == 404
        assert store.control.volume_sum(store.slots[1], VolumeCell.ERRORS) >= 1
        assert "set aside" in store.log(0)
        store.volumes[1].failed = "fsync"


def test_uploads_that_share_a_failed_fsync_all_fail(tmp_path: Path, failing_fsync: tuple[dict[str, str], Path]) -> None:
    environment, flag = failing_fsync
    with running(tmp_path / "data", environment=environment) as store:
        clients = [store.client() for _ in range(20)]
        flag.touch()
        for client in clients:
            client.send(head("PUT", f"/{new_fid()}", PHOTO) + PHOTO)
        assert {client.answer().status for client in clients} <= {500, 503}
        for client in clients:
            client.close()
        store.volumes[1].failed = "fsync"


# -- clients that go away


@pytest.mark.parametrize("sent_bytes", [0, 1, 100_000, MIB, 2 * MIB - 1])
@pytest.mark.parametrize("kind", ["raw", "form", "chunked", "multi"])
def test_aborted_uploads_leave_nothing(tmp_path: Path, kind: str, sent_bytes: int) -> None:
    body = bytes(2 * MIB)
    path = "/1/multi" if kind == "multi" else f"/{new_fid()}"
    headers: list[tuple[str, str]] = []
    if kind == "form":
        headers, body = [FORM_TYPE], form(body)
    elif kind == "chunked":
        headers, body = [("Transfer-Encoding", "chunked")], b"200000\r\n" + body
    with running(tmp_path, upload_memory_bytes=300_000) as store:
        tail = store.tail()
        gone = [store.client() for _ in range(3)]
        for number, client in enumerate(gone):
            client.send(head("PUT", path, body, [*headers, ("Expect", "100-continue")]))
            assert client.answer().status == 100
            client.send(body[:sent_bytes])
            if number == 0:
                client.reset()
            elif number == 1:
                client.close()
            else:
                client.sock.shutdown(socket.SHUT_WR)
                assert client.at_end()
                client.close()
        with store.client() as client:
            while client.get("/healthz").status == 200:
                if store.counter(Counter.ABORTED_UPLOADS) == 3 and not _spills(store):
                    break
        assert store.counter(Counter.UPLOAD_MEMORY_BYTES) == 0
        assert store.tail() == tail == store.path().stat().st_size
        assert list((store.folder / "tmp").iterdir()) == []


def _spills(store: LocalStore) -> list[str]:
    """Spill files that the worker has open."""
    folder = Path(f"/proc/{store.processes[0].pid}/fd")
    names = []
    for fd in folder.iterdir():
        with contextlib.suppress(OSError):
            names.append(str(fd.readlink()))
    return [name for name in names if name.startswith(f"{store.folder}/tmp/")]


# -- metadata of somebody else's making

HOSTILE = [
    NeedleMeta("a\r\nSet-Cookie: x", "text/html\r\nX: y", (("a b", "x"), ("", "y"), ("ok\r\n", "z"), ("k", "v\r\n\0"))),
    NeedleMeta("\x00" * 10, "\x7f", (("ключ", "значение"), ("x" * 300, "long"))),
    NeedleMeta("☃" * 1000, "é/ü", (("p", "☃"),)),
    NeedleMeta("", " \t ", (("k", "  spaces  "), ("K", "again"))),
    NeedleMeta('"\\', ":;", tuple((f"n{number}", "v") for number in range(500))),
]


@pytest.mark.parametrize("meta", HOSTILE)
def test_no_metadata_makes_a_photo_unreadable(tmp_path: Path, meta: NeedleMeta) -> None:
    fid = Fid(1, 7, 8)
    with Volume.create(tmp_path / "1.vol", 1) as volume:
        volume.put(fid.key, fid.cookie, PHOTO, meta=meta)
        volume.put(8, 8, PHOTO, time_ms=2**64 - 1)
    with running(tmp_path) as store, store.client() as client:
        for path in (f"/{fid}", f"/{fid}", f"/{fid}", f"/{fid}.jpg", f"/{replace(fid, key=8)}"):
            answer = client.get(path)
            assert (answer.status, answer.body) == (200, PHOTO)
            assert "set-cookie" not in answer.headers and "x" not in answer.headers
            assert client.request("HEAD", path).status == 200
            assert client.get(path, If_Modified_Since=answer.headers["last-modified"]).status == 304
