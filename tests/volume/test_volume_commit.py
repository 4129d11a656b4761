"""Group commit: one sync for all that wait, nothing lost, nobody harmed by another."""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from volume_faults import FailingFile, abandon, failing

from haystack.errors import DiskError, HaystackError, NeedleNotFound, OutOfSpace, VolumeUnavailable
from haystack.volume import Delete, Deleted, NewNeedle, Put, Volume, check_volume
from haystack.volume import commit as commit_module
from haystack.volume.commit import Appendable, Committer, Done
from haystack.volume.operations import Appended, Outcome


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    Volume.create(tmp_path / "7.vol", 7).close()
    volume = Volume.open(tmp_path / "7.vol", file_type=FailingFile)
    yield volume
    volume.close() if volume.failed is None else abandon(volume)


def _put(key: int, data: bytes = b"photo") -> Put:
    return Put((NewNeedle(key, key, (data,), 1),))


class Gate:
    """Holds the first sync until everything else is queued."""

    def __init__(self, volume: Volume) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()
        failing(volume).before_sync = self._wait

    def _wait(self) -> None:
        self.entered.set()
        assert self.leave.wait(60)


def _results(count: int, answers: queue.Queue[tuple[int, Outcome]]) -> dict[int, Outcome]:
    return dict(answers.get(timeout=60) for _ in range(count))


def test_commit_all_that_wait_share_one_sync(volume: Volume) -> None:
    committer, gate = Committer(threads=2), Gate(volume)
    answers: queue.Queue[tuple[int, Outcome]] = queue.Queue()
    rounds: list[Appended] = []
    before = failing(volume).syncs

    def submit(key: int) -> None:
        committer.submit(volume, _put(key), lambda outcome: answers.put((key, outcome)), rounds.append)

    submit(1)
    assert gate.entered.wait(60)
    threads = [threading.Thread(target=submit, args=(key,)) for key in range(2, 302)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.empty()  # nothing is acknowledged before its sync
    gate.leave.set()
    results = _results(301, answers)
    assert all(isinstance(outcome, list) for outcome in results.values())
    assert failing(volume).syncs - before == 2 and len(rounds) == 2
    assert [len(appended.outcomes) for appended in rounds] == [1, 300]
    assert all(volume.get(key, key).data == b"photo" for key in range(1, 302))
    committer.close()


def test_commit_failed_sync_fails_all_that_waited_and_everything_later(volume: Volume) -> None:
    committer, gate = Committer(), Gate(volume)
    answers: queue.Queue[tuple[int, Outcome]] = queue.Queue()
    failing(volume).sync_errno = errno.EIO
    for key in range(1, 6):
        committer.submit(volume, _put(key), lambda outcome, key=key: answers.put((key, outcome)))  # type: ignore[misc]
    assert gate.entered.wait(60)
    committer.submit(volume, _put(6), lambda outcome: answers.put((6, outcome)))
    gate.leave.set()
    results = _results(6, answers)
    assert isinstance(results[1], DiskError)
    assert all(isinstance(outcome, (DiskError, VolumeUnavailable)) for outcome in results.values())
    assert volume.failed is not None
    committer.close()


def test_commit_sync_error_does_not_hide_an_operations_own(volume: Volume) -> None:
    committer = Committer()
    answers: queue.Queue[tuple[int, Outcome]] = queue.Queue()
    gate = Gate(volume)
    committer.submit(volume, _put(1), lambda _: failing(volume).__setattr__("sync_errno", errno.EIO))
    assert gate.entered.wait(60)
    committer.submit(volume, Delete(9, 9, 1), lambda outcome: answers.put((9, outcome)))
    committer.submit(volume, _put(2), lambda outcome: answers.put((2, outcome)))
    gate.leave.set()
    results = _results(2, answers)
    assert isinstance(results[9], NeedleNotFound) and isinstance(results[2], DiskError)
    committer.close()


def test_commit_one_large_upload_on_a_full_disk_does_not_fail_the_small_ones(volume: Volume) -> None:
    committer, gate = Committer(), Gate(volume)
    answers: queue.Queue[tuple[int, Outcome]] = queue.Queue()
    rounds: list[Appended] = []
    committer.submit(volume, _put(1), lambda outcome: answers.put((1, outcome)), rounds.append)
    assert gate.entered.wait(60)
    failing(volume).room_bytes = volume.tail() + 2000
    before = failing(volume).syncs
    for key, size in ((2, 10), (3, 100_000), (4, 10), (5, 10)):
        committer.submit(
            volume,
            _put(key, bytes(size)),
            lambda outcome, key=key: answers.put((key, outcome)),  # type: ignore[misc]
        )
    gate.leave.set()
    results = _results(5, answers)
    assert isinstance(results[3], OutOfSpace)
    assert all(isinstance(results[key], list) for key in (1, 2, 4, 5))
    assert failing(volume).syncs == before + 1 and len(rounds) == 2  # still one sync for the round
    committer.close()
    assert check_volume(Path(volume.file.path), full=True, index=volume.index).ok


def test_commit_nothing_is_lost_on_close(volume: Volume) -> None:
    committer, gate = Committer(threads=1), Gate(volume)
    answers: queue.Queue[tuple[int, Outcome]] = queue.Queue()
    for key in range(1, 50):
        committer.submit(volume, _put(key), lambda outcome, key=key: answers.put((key, outcome)))  # type: ignore[misc]
    assert gate.entered.wait(60)
    closer = threading.Thread(target=committer.close)
    closer.start()
    gate.leave.set()
    closer.join(60)
    assert not closer.is_alive()
    assert len(_results(49, answers)) == 49
    with pytest.raises(VolumeUnavailable, match="being stopped"):
        committer.submit(volume, _put(99), lambda outcome: answers.put((99, outcome)))
    assert answers.empty()


def test_commit_receiver_that_fails_stops_nobody(volume: Volume, caplog: pytest.LogCaptureFixture) -> None:
    committer = Committer(threads=1)
    answers: queue.Queue[tuple[int, Outcome]] = queue.Queue()

    def fail(_: Outcome) -> None:
        raise RuntimeError("loop is closed")

    committer.submit(volume, _put(1), fail)
    committer.submit(volume, _put(2), lambda outcome: answers.put((2, outcome)))
    committer.submit(volume, _put(3), lambda outcome: answers.put((3, outcome)))
    committer.close()
    committer = Committer(threads=1)
    committer.submit(volume, _put(4), lambda outcome: answers.put((4, outcome)))
    committer.close()
    assert 4 in _results(answers.qsize(), answers)
    assert "could not be delivered" in caplog.text


def test_commit_bug_in_a_callback_answers_the_clients(volume: Volume, caplog: pytest.LogCaptureFixture) -> None:
    committer = Committer()
    answers: queue.Queue[tuple[int, Outcome]] = queue.Queue()

    def fail(_: Appended) -> None:
        raise KeyError("bug")

    committer.submit(volume, _put(1), lambda outcome: answers.put((1, outcome)), fail)
    assert isinstance(_results(1, answers)[1], VolumeUnavailable)
    committer.close()
    assert "append to" in caplog.text


def test_commit_what_comes_together_is_synced_together(tmp_path: Path) -> None:
    volumes = [Volume.create(tmp_path / f"{number}.vol", number) for number in range(1, 4)]
    waves: list[list[Appendable]] = []
    answers: queue.Queue[tuple[int, Outcome]] = queue.Queue()

    def sync_all(pairs: Sequence[tuple[Appendable, Appended]]) -> list[Exception | None]:
        waves.append(sorted((volume for volume, _ in pairs), key=volumes.index))
        if len(waves) == 2:
            raise KeyError("bug")
        return [OutOfSpace("no room") if volume is volumes[1] else None for volume, _ in pairs]

    committer = Committer(threads=2, sync_all=sync_all)
    for turn in (0, 10):
        committer.submit_all(
            [
                (volume, _put(key), lambda outcome, key=key: answers.put((key, outcome)))  # type: ignore[misc]
                for key, volume in enumerate(volumes + volumes, turn)
            ]
        )
        results = _results(6, answers)
        if turn:
            assert all(isinstance(outcome, VolumeUnavailable) for outcome in results.values())
        else:
            assert {key for key, outcome in results.items() if isinstance(outcome, OutOfSpace)} == {1, 4}
            assert all(isinstance(results[key], list) for key in (0, 2, 3, 5))
    assert waves == [volumes, volumes]
    committer.close()
    with pytest.raises(VolumeUnavailable, match="being stopped"):
        committer.submit_all([(volumes[0], _put(99), lambda _: None)])
    for volume in volumes:
        volume.close()


def test_commit_a_sync_of_all_is_given_what_was_written(tmp_path: Path) -> None:
    """What keeps further copies needs the very bytes, of each volume that has some."""
    volumes = [Volume.create(tmp_path / f"{number}.vol", number) for number in (1, 2)]
    given: list[tuple[Appendable, int, bytes]] = []
    answers: queue.Queue[tuple[int, Outcome]] = queue.Queue()

    def sync_all(pairs: Sequence[tuple[Appendable, Appended]]) -> list[Exception | None]:
        for volume, appended in pairs:
            for offset, pieces in appended.written:
                given.append((volume, offset, b"".join(bytes(piece) for piece in pieces)))
        return [None] * len(pairs)

    committer = Committer(threads=1, sync_all=sync_all)
    operations = (_put(1), _put(2, b"x" * 70_000), Delete(9, 9, 1))
    committer.submit_all(
        [
            (volume, operation, lambda outcome, key=key: answers.put((key, outcome)))  # type: ignore[misc]
            for volume in volumes
            for key, operation in enumerate(operations)
        ]
    )
    for _ in range(6):
        answers.get(timeout=60)
    committer.close()
    assert {str(volume) for volume, _, _ in given} == {str(volume) for volume in volumes}
    assert len(given) == 2
    for volume, offset, content in given:
        assert offset == 64
        assert content == Path(str(volume)).read_bytes()[64:]
    for volume in volumes:
        volume.close()


class Syncs:
    """Notes how many operations each sync covered; each takes ``seconds`` by the clock that the committer reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.sizes: list[int] = []
        self._now = 0.0
        self._seconds = seconds
        monkeypatch.setattr(commit_module.time, "monotonic", lambda: self._now)

    def __call__(self, pairs: Sequence[tuple[Appendable, Appended]]) -> list[Exception | None]:
        self.sizes.append(sum(len(appended.outcomes) for _, appended in pairs))
        self._now += self._seconds
        return [None] * len(pairs)


def _again(committer: Committer, volume: Volume, answers: queue.Queue[int], keys: range) -> None:
    """Submit, and once more from each answer, as a client would."""

    def answered(key: int) -> Done:
        def done(outcome: Outcome) -> None:
            if key < 1000:
                committer.submit(volume, _put(1000 + key), answered(1000 + key))
            answers.put(key)

        return done

    committer.submit_all([(volume, _put(key), answered(key)) for key in keys])


def test_commit_clients_that_were_answered_together_are_waited_for(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = Syncs(monkeypatch, seconds=60.0)
    answers: queue.Queue[int] = queue.Queue()
    threads: list[threading.Thread] = []

    def deliver(outcomes: list[tuple[Done, Outcome]]) -> None:
        def hand_out() -> None:
            for done, outcome in outcomes:
                done(outcome)

        threads.append(threading.Thread(target=hand_out))  # as an event loop does: while the committer goes on
        threads[-1].start()

    committer = Committer(threads=2, sync_all=syncs, deliver=deliver, gather_seconds=60.0)
    _again(committer, volume, answers, range(1, 21))
    for _ in range(40):
        answers.get(timeout=30)
    committer.close()  # does not wait for those who will never come
    for thread in threads:
        thread.join()
    assert syncs.sizes == [20, 20]


def test_commit_large_uploads_are_written_while_those_before_are_synced(volume: Volume) -> None:
    answers: queue.Queue[tuple[int, Outcome]] = queue.Queue()
    first_syncs, second_syncs = threading.Event(), threading.Event()
    data = bytes(commit_module.OVERLAP_BYTES)

    def sync_all(pairs: Sequence[tuple[Appendable, Appended]]) -> list[Exception | None]:
        if not first_syncs.is_set():
            first_syncs.set()
            assert second_syncs.wait(60)
        else:
            second_syncs.set()
        return [None] * len(pairs)

    committer = Committer(threads=2, sync_all=sync_all)
    committer.submit(volume, _put(1, data), lambda outcome: answers.put((1, outcome)))
    assert first_syncs.wait(60)
    for key in (2, 3):
        committer.submit(volume, _put(key, data), lambda outcome, key=key: answers.put((key, outcome)))  # type: ignore[misc]
    results = _results(3, answers)
    assert all(isinstance(outcome, list) for outcome in results.values())
    committer.close()
    assert all(volume.get(key, key).data == data for key in (1, 2, 3))


def test_commit_overlapping_waves_of_several_volumes_end(tmp_path: Path) -> None:
    """Each wave locks the volumes that it syncs; in the order of another it could wait for it for ever."""
    volumes = [Volume.create(tmp_path / f"{number}.vol", number) for number in (1, 2)]
    answers: queue.Queue[tuple[int, Outcome]] = queue.Queue()
    data = bytes(commit_module.OVERLAP_BYTES)
    orders: list[list[int]] = []

    def sync_all(pairs: Sequence[tuple[Appendable, Appended]]) -> list[Exception | None]:
        orders.append([id(volume) for volume, _ in pairs])
        return [None] * len(pairs)

    committer = Committer(threads=2, sync_all=sync_all)
    for key in range(1, 9):
        committer.submit_all(
            [
                (volume, _put(key, data), lambda outcome, key=key: answers.put((key, outcome)))  # type: ignore[misc]
                for volume in (volumes if key % 2 else volumes[::-1])
            ]
        )
    for _ in range(16):
        assert isinstance(answers.get(timeout=60)[1], list)
    committer.close()
    assert all(order == sorted(order) for order in orders)
    for volume in volumes:
        assert volume.get(8, 8).data == data
        volume.close()


def test_commit_few_clients_and_fast_disks_are_not_waited_for(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: queue.Queue[int] = queue.Queue()
    for keys, seconds in ((range(1, 4), 60.0), (range(4, 24), 0.0)):
        committer = Committer(threads=1, sync_all=Syncs(monkeypatch, seconds), gather_seconds=60.0)
        _again(committer, volume, answers, keys)
        for _ in range(2 * len(keys)):
            answers.get(timeout=30)
        committer.close()


def test_commit_more_busy_volumes_than_threads_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer submits the next upload, so that no queue is ever empty; yet no volume waits for ever."""
    monkeypatch.setattr(commit_module, "ROUND_OPERATIONS", 2)
    volumes = [Volume.create(tmp_path / f"{number}.vol", number) for number in range(1, 6)]
    committer = Committer(threads=1, durable=False)
    counts = [0] * len(volumes)
    fair, stop = threading.Event(), threading.Event()
    lock = threading.Lock()

    def submit(number: int) -> None:
        with lock:
            counts[number] += 1
            key = counts[number]
            if min(counts) > 20:
                fair.set()
        if not stop.is_set():
            committer.submit(volumes[number], _put(key), lambda _: submit(number))

    for number in range(len(volumes)):
        for _ in range(3):
            submit(number)
    assert fair.wait(60)
    stop.set()
    committer.close()
    for volume in volumes:
        volume.close()


def test_commit_rounds_are_bounded(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_module, "ROUND_OPERATIONS", 4)
    monkeypatch.setattr(commit_module, "ROUND_BYTES", 1000)
    committer, gate = Committer(), Gate(volume)
    rounds: list[Appended] = []
    answers: queue.Queue[tuple[int, Outcome]] = queue.Queue()
    committer.submit(volume, _put(1), lambda outcome: answers.put((1, outcome)), rounds.append)
    assert gate.entered.wait(60)
    for key in range(2, 10):
        data = bytes(600 if key < 6 else 1)
        committer.submit(volume, _put(key, data), lambda outcome, key=key: answers.put((key, outcome)))  # type: ignore[misc]
    gate.leave.set()
    _results(9, answers)
    committer.close()
    assert [len(appended.outcomes) for appended in rounds] == [1, 2, 2, 4]


def test_commit_order_is_kept_and_deletes_answer(volume: Volume) -> None:
    delivered: list[Outcome] = []

    def deliver(pairs: list[tuple[Done, Outcome]]) -> None:
        delivered.extend(outcome for _, outcome in pairs)

    committer = Committer(deliver=deliver)
    for operation in (_put(1), Delete(1, 1, 1), Delete(1, 1, 1), _put(1, b"again")):
        committer.submit(volume, operation, lambda _: None)
    committer.close()
    assert [type(outcome) for outcome in delivered] == [list, Deleted, NeedleNotFound, list]
    assert volume.get(1, 1).data == b"again"


def test_commit_threads_that_put_while_others_close(tmp_path: Path) -> None:
    """Writes to a volume that is being closed end in an error, or are stored; nothing crashes and nothing is lost."""
    path = tmp_path / "7.vol"
    Volume.create(path, 7).close()
    promised: list[int] = []
    for turn in range(5):
        volume = Volume.open(path)
        started = threading.Barrier(5)

        def work(number: int, volume: Volume = volume, turn: int = turn, started: threading.Barrier = started) -> None:
            started.wait()
            for count in range(100):
                key = 1 + turn * 1000 + number * 100 + count
                try:
                    volume.put(key, key, b"photo")
                except HaystackError:
                    return
                promised.append(key)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        started.wait()
        while len(promised) < 20 * (turn + 1):
            threading.Event().wait(0.001)
        volume.close()
        for thread in threads:
            thread.join()
    path.with_suffix(".idx").unlink()
    with Volume.open(path) as volume:
        assert all(volume.get(key, key).data == b"photo" for key in promised)
    assert check_volume(path, full=True).ok
