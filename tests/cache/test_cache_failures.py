"""What becomes of reads when a Store, the Directory, a worker or the keeper is frozen, killed, or talks nonsense."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from pathlib import Path

from cache_harness import FakeDirectory, OddStore, cache_node, freeze, needle_at, one_store, silent, thaw, until
from store_data_harness import Client, new_fid, parse_metrics, running

BODY = random.Random(5).randbytes(5000)
LARGE = random.Random(6).randbytes(2_000_000)


def test_a_silent_store_costs_a_second_and_is_then_tried_last(tmp_path: Path) -> None:
    with FakeDirectory() as directory, running(tmp_path / "s") as store, OddStore(silent) as odd:
        directory.serve(store, first=[odd.address])
        with cache_node(tmp_path / "c", directory) as node, store.client() as uploader, node.client() as client:
            node.vouched()
            fids = [new_fid() for _ in range(5)]
            for fid in fids:
                uploader.put(f"/{fid}", BODY)
            began = time.monotonic()
            assert client.get(f"/{fids[0]}").body == BODY
            assert 0.9 < time.monotonic() - began < 2.5
            began = time.monotonic()
            for fid in fids[1:]:
                assert client.get(f"/{fid}").body == BODY
            assert time.monotonic() - began < 1
            assert odd.connections == 1


def test_an_answer_that_breaks_off_is_gone_on_with_elsewhere(tmp_path: Path) -> None:
    with FakeDirectory() as directory, running(tmp_path / "s") as store:
        shares = {new_fid(): 0.0, new_fid(): 0.3, new_fid(): 0.9}
        answers = {}
        with store.client() as uploader:
            for fid in shares:
                uploader.put(f"/{fid}", LARGE)
                answers[f"/{fid}"] = needle_at(store, f"/{fid}"), shares[fid]

        def behave(connection: socket.socket) -> None:
            (head, needle), share = answers[connection.recv(4096).split()[1].decode()]
            connection.sendall(head + needle[: int(len(needle) * share)])
            connection.shutdown(socket.SHUT_RDWR)

        directory.serve(store)
        with cache_node(tmp_path / "c", directory) as node:
            node.vouched()
            for number, fid in enumerate(shares, 1):
                with OddStore(behave) as odd, node.client() as client:
                    directory.serve(store, first=[odd.address])
                    directory.change(1, None, None, "locations")
                    until(lambda number=number: node.status()["feed"]["sequence"] == number)
                    assert client.get(f"/{fid}").body == LARGE
                    assert client.get(f"/{fid}").headers["x-cache"] == "hit"
                    assert odd.connections == 1


def test_a_wrong_byte_never_makes_a_complete_answer(tmp_path: Path) -> None:
    """With the only Store lying, the client sees an error or a cut connection; with another one, the photo."""
    places = {new_fid(): 60, new_fid(): 1000, new_fid(): -100, new_fid(): -4}
    with FakeDirectory() as directory, running(tmp_path / "s") as store:
        answers = {}
        with store.client() as uploader:
            for fid, place in places.items():
                uploader.put(f"/{fid}", LARGE, ("Content-Type", "image/x"))
                head, needle = needle_at(store, f"/{fid}")
                wrong = bytearray(needle)
                wrong[place] ^= 4
                answers[f"/{fid}"] = head + wrong

        def lie(connection: socket.socket) -> None:
            while request := connection.recv(4096):
                connection.sendall(answers[request.split()[1].decode()])

        with OddStore(lie) as odd:
            directory.serve(store)
            directory.places[1] = (directory.places[1][0], [odd.address])
            with cache_node(tmp_path / "c", directory) as node:
                node.vouched()
                for fid in places:
                    with node.client() as client:
                        try:
                            answer = client.get(f"/{fid}")
                        except ConnectionError:
                            continue
                        assert answer.status == 503, answer.status
                assert node.counter("entries") == 0
                directory.serve(store)
                directory.change(1, None, None, "locations")
                until(lambda: node.status()["feed"]["sequence"] == 1)
                for fid in places:
                    with node.client() as client:
                        assert client.get(f"/{fid}").body == LARGE


def test_without_the_directory_stores_are_asked_and_deletes_count(tmp_path: Path) -> None:
    with one_store(tmp_path) as behind, behind.node.client() as client:
        fid, other = new_fid(), new_fid()
        for one in (fid, other):
            behind.put(one, BODY)
            assert client.get(f"/{one}").body == BODY
        behind.directory.silent = True
        until(lambda: not behind.node.status()["vouched"], "nothing is vouched for")
        assert client.get(f"/{fid}").headers["x-cache"] == "hit"
        behind.delete(fid)  # nobody tells the Cache
        acknowledged = time.monotonic()
        until(lambda: client.get(f"/{fid}").status == 404, "the delete shows")
        assert time.monotonic() - acknowledged < 1.2
        assert client.get(f"/{other}").body == BODY
        assert behind.node.counter("revalidations") > 0


def test_stale_when_nobody_can_be_asked_but_never_what_was_deleted(tmp_path: Path) -> None:
    with one_store(tmp_path) as behind, behind.node.client() as client:
        fid, gone = new_fid(), new_fid()
        for one in (fid, gone):
            behind.put(one, BODY)
            assert client.get(f"/{one}").body == BODY
        behind.delete(gone)
        behind.directory.change(1, gone.key)
        until(lambda: client.get(f"/{gone}").status == 404, "the delete was heard of")
        behind.directory.silent = True
        pid = behind.store.processes[0].pid
        freeze(pid)
        try:
            until(lambda: client.get(f"/{fid}").headers["x-cache"] == "stale", "nobody answers")
            answer = client.get(f"/{fid}")
            assert answer.body == BODY and answer.headers["warning"].startswith("110 ")
            assert answer.headers["cache-control"] == "no-cache"  # who keeps it for a year keeps what may be deleted
            same = client.get(f"/{fid}", If_None_Match=answer.headers["etag"])
            assert (same.status, same.headers["cache-control"]) == (304, "no-cache")
            refused = client.get(f"/{gone}")
            assert (refused.status, refused.headers["cache-control"]) == (503, "no-store")
        finally:
            thaw(pid)
        behind.directory.silent = False
        until(lambda: client.get(f"/{fid}").headers.get("x-cache") == "hit", "all is well again")


def test_without_serve_stale_the_answer_is_503(tmp_path: Path) -> None:
    with one_store(tmp_path, serve_stale="off") as behind, behind.node.client() as client:
        fid = new_fid()
        behind.put(fid, BODY)
        assert client.get(f"/{fid}").body == BODY
        behind.directory.silent = True
        behind.store.kill(0)
        until(lambda: client.get(f"/{fid}").status == 503, "nobody vouches")


def test_what_the_feed_may_have_missed_is_asked_for_again(tmp_path: Path) -> None:
    with one_store(tmp_path) as behind, behind.node.client() as client:
        fid, gone, doubtful = new_fid(), new_fid(), new_fid()
        for one in (fid, gone, doubtful):
            behind.put(one, BODY)
            assert client.get(f"/{one}").body == BODY
        behind.delete(gone)
        behind.directory.incarnation = "two"  # a new Directory, which does not know of the delete
        until(lambda: behind.node.status()["feed"]["incarnation"] == "two")
        behind.node.vouched()
        until(lambda: client.get(f"/{gone}").status == 404, "what was here before is asked for again")
        assert client.get(f"/{fid}").headers["x-cache"] == "hit"
        behind.directory.doubtful = [1]
        until(lambda: behind.node.status()["feed"]["doubtfulVolumes"] == 1)
        behind.delete(doubtful)
        until(lambda: client.get(f"/{doubtful}").status == 404, "a doubtful volume's photo is asked for")


def test_killed_and_frozen_workers_and_a_killed_keeper(tmp_path: Path) -> None:
    with one_store(tmp_path, workers=2, timing={"worker_patience_seconds": 1.0}) as behind:
        node = behind.node
        fid = new_fid()
        behind.put(fid, BODY)
        assert node.get(f"/{fid}").body == BODY
        first, second = node.workers()
        os.kill(first, signal.SIGKILL)
        until(lambda: len(node.workers()) == 2 and first not in node.workers(), "the killed one is replaced")
        freeze(second)
        until(lambda: second not in node.workers(), "the frozen one is killed")
        until(lambda: len(node.workers()) == 2, "and replaced")
        until(lambda: metric(node.port, "haystack_cache_workers") == 2, "and both listen")
        assert all(node.get(f"/{fid}").body == BODY for _ in range(8))
        assert node.status()["workerRestarts"] == 2
        pids = node.workers()
        node.process.kill()
        node.process.wait()
        until(lambda: not any(map(is_running, pids)), "all ends with the keeper")


def is_running(pid: int) -> bool:
    """Whether it has not ended; whoever inherits it may take its time to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def metric(port: int, name: str) -> float | None:
    try:
        with Client(port) as client:
            return parse_metrics(client.get("/metrics").body.decode())[name]
    except ConnectionError:
        return None


def test_a_frozen_keeper_fails_requests_fast(tmp_path: Path) -> None:
    with one_store(tmp_path) as behind, behind.node.client() as client:
        fid, other = new_fid(), new_fid()
        for one in (fid, other):
            behind.put(one, BODY)
        assert client.get(f"/{fid}").body == BODY
        freeze(behind.node.process.pid)
        try:
            began = time.monotonic()
            assert client.get(f"/{other}").status == 503
            until(lambda: client.get(f"/{fid}").status == 503, "what is here is not vouched for any more")
            assert time.monotonic() - began < 3
            assert client.get("/readyz").status == 503
        finally:
            thaw(behind.node.process.pid)
        until(lambda: client.get(f"/{other}").status == 200, "it goes on")


def test_a_new_place_of_a_volume_is_heard_of(tmp_path: Path) -> None:
    with (
        one_store(tmp_path / "a") as behind,
        running(tmp_path / "b", volumes=(2,)) as other,
        behind.node.client() as client,
    ):
        fid = new_fid(volume=2)
        assert client.get(f"/{fid}").status == 404
        with other.client() as uploader:
            uploader.put(f"/{fid}", BODY)
        behind.directory.serve(other, volume=2)
        until(lambda: client.get(f"/{fid}").status == 200, "negative answers end")
