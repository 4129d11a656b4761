"""Heat of volumes and photos from the control block: what is counted, what is told, and how little that is."""

from __future__ import annotations

import json
import random
from collections import Counter as Tallies
from collections.abc import Iterator
from math import log, sqrt
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_data_harness import LocalStore, new_fid, running

from haystack.heat import LOAD_BYTES, Averages
from haystack.store.control import ControlBlock
from haystack.store.control_cells import SAMPLE_CELLS, SAMPLES, Counter, VolumeCell, VolumeState
from haystack.store.heat import COLD_READS, MAX_HITS, HeatReport, StoreHeat
from haystack.store.hot_photos import Hits, HotPhotos
from haystack.store.sampling import MANY, MAX_GAP, ReadSampler, SampleReader
from haystack.views import LOOKED_AT

LARGE = min(LOOKED_AT)
"""Alternate key of a rendition whose reads are views."""

BEAT_SECONDS = 0.5


@pytest.fixture
def control() -> Iterator[ControlBlock]:
    block = ControlBlock.create(2)
    try:
        yield block
    finally:
        block.close()


class Bench:
    """A Store without processes: the test counts reads as workers do, and is the Directory, too."""

    def __init__(self, control: ControlBlock, volumes: int) -> None:
        self.control = control
        self.slots: dict[int, int] = {}
        for volume in range(1, volumes + 1):
            self.add(volume)
        self.now = 1000.0
        self.heat = StoreHeat(control, self.now)
        self.reporter = self.heat.reporter()

    def add(self, volume: int) -> None:
        self.slots[volume] = self.control.add_volume(volume, 0, VolumeState.WRITABLE, max_bytes=2**30)

    def remove(self, volume: int) -> None:
        self.control.remove_volume(self.slots.pop(volume))

    def read(self, volume: int, count: int, size_bytes: int = 0, seconds: float = 0.0, worker: int = 0) -> None:
        base = self.control.volume_base(worker, self.slots[volume])
        self.control.cells[base + VolumeCell.READS] += count
        self.control.cells[base + VolumeCell.BYTES_READ] += count * size_bytes
        self.control.cells[base + VolumeCell.READ_MICROSECONDS] += int(count * seconds * 1e6)

    def beat(self, seconds: float = BEAT_SECONDS, *, arrives: bool = True) -> HeatReport:
        self.now += seconds
        self.heat.tick(self.now)
        report = self.reporter.next(self.now)
        if arrives:
            self.reporter.told(report, self.now)
        return report


def test_a_read_volume_is_told_of_with_the_next_heartbeat(control: ControlBlock) -> None:
    bench = Bench(control, 3)
    assert bench.beat().volumes == {}
    bench.read(2, 30, size_bytes=LOAD_BYTES, seconds=0.001, worker=0)
    bench.read(2, 20, size_bytes=LOAD_BYTES, seconds=0.001, worker=1)
    [(volume, one)] = bench.beat().volumes.items()
    assert (volume, one.reads, one.known_seconds) == (2, 50, 1.0)
    expected = Averages(0.0)
    expected.count(0.5, 0, 0, 0.0)
    expected.count(1.0, 50, 50 * LOAD_BYTES, 0.05)
    # That nothing was read before is known, too: the volume was there.
    assert one.row[0] == pytest.approx(50.0)
    assert one.row[1] == pytest.approx(50.0 * LOAD_BYTES)
    assert one.row[2] == pytest.approx(0.05)
    assert one.row == pytest.approx(expected.row(1.0), rel=0.01)


def test_what_has_changed_by_a_tenth_is_told_and_nothing_else(control: ControlBlock) -> None:
    bench = Bench(control, 2)
    told = []
    for _ in range(2000):
        bench.read(1, 50, size_bytes=100)
        told.append(bench.beat())
    # The rates stand still from the first moment on; only the count of reads grows.
    assert sum(bool(report.volumes) for report in told[20:]) <= log(2000 / 20) / log(1.1) + 1
    bench.read(1, 2000)
    assert list(bench.beat().volumes) == [1]
    document = told[-1].document()
    assert document == {"knownSeconds": 1000.0, "windowSeconds": 60.0}


def test_a_volume_that_cools_is_told_of_until_it_is_cold(control: ControlBlock) -> None:
    bench = Bench(control, 1)
    for _ in range(10):
        bench.read(1, 100, seconds=0.001)
        bench.beat()
    rows = [one.row for _ in range(5000) if (one := bench.beat(30.0).volumes.get(1))]
    assert [row[0] for row in rows] == sorted((row[0] for row in rows), reverse=True)
    assert rows[-1] == (0.0,) * 9
    assert min(value for row in rows for value in row[::3] if value) >= COLD_READS
    assert len(rows) < 150
    assert bench.beat(30.0).document() == {
        "knownSeconds": pytest.approx(bench.now - 1000.0),
        "windowSeconds": 60.0,
    }


def test_a_lost_heartbeat_is_made_up_for(control: ControlBlock) -> None:
    bench = Bench(control, 2)
    bench.read(1, 10)
    assert list(bench.beat(arrives=False).volumes) == [1]
    assert list(bench.beat().volumes) == [1]
    assert bench.beat(0.01).volumes == {}
    bench.reporter.forget()  # the Directory was restarted
    assert list(bench.beat(0.01).volumes) == [1]


def test_two_directories_are_told_apart(control: ControlBlock) -> None:
    bench = Bench(control, 1)
    other = bench.heat.reporter()
    bench.read(1, 10)
    bench.beat()
    assert list(other.next(bench.now).volumes) == [1]


def test_a_slot_that_is_used_again_is_another_volume(control: ControlBlock) -> None:
    bench = Bench(control, 1)
    bench.read(1, 1000)
    bench.beat()
    slot = bench.slots[1]
    bench.remove(1)
    bench.add(2)
    assert bench.slots[2] == slot
    assert bench.beat().volumes == {}
    bench.read(2, 5)
    [(volume, one)] = bench.beat().volumes.items()
    assert (volume, one.reads) == (2, 5)
    assert one.known_seconds == pytest.approx(2 * BEAT_SECONDS)
    assert one.row[0] == pytest.approx(5.0, rel=0.01)


def test_a_removed_volume_is_not_told_of(control: ControlBlock) -> None:
    bench = Bench(control, 2)
    bench.read(1, 10)
    bench.remove(1)
    assert bench.beat().volumes == {}
    bench.read(2, 10)
    assert list(bench.beat().volumes) == [2]


@pytest.mark.parametrize("volumes", [1000, 3000])
def test_a_heartbeat_stays_small_however_many_volumes_are_read(control: ControlBlock, volumes: int) -> None:
    bench, dice = Bench(control, volumes), random.Random(3)
    seen: Tallies[int] = Tallies()
    largest = 0
    for beat in range(60):
        for volume in range(1, volumes + 1):
            bench.read(volume, dice.randrange(1, 2000 if volume == 7 else 20), size_bytes=100_000)
        report = bench.beat()
        seen.update(list(report.volumes))
        largest = max(largest, len(json.dumps(report.document())))
        if beat == 0:
            assert 7 in report.volumes  # what has changed most goes first
    assert largest < 16 * 1024
    assert set(seen) == set(bench.slots), "each volume has its turn"


def test_a_machine_with_cold_volumes_is_not_walked_for_ever(control: ControlBlock) -> None:
    bench = Bench(control, 50)
    bench.read(50, 1)
    assert bench.heat.slots() == []
    bench.beat()
    assert bench.heat.slots() == [bench.slots[50]]


# -- samples


def counted(reads: list[int], dice: random.Random, flush_every: int = 0) -> Tallies[int]:
    """What the supervisor makes of these reads of one worker."""
    block = ControlBlock.create(1)
    try:
        sampler, reader = ReadSampler(block, 0, dice=dice.random), SampleReader(block)
        found: Tallies[int] = Tallies()
        for number, key in enumerate(reads, 1):
            sampler.count(key)
            if flush_every and number % flush_every == 0:
                sampler.flush()
                for sampled, weight in reader.take():
                    found[sampled] += weight
        for sampled, weight in reader.take():
            found[sampled] += weight
        return found
    finally:
        block.close()


def test_while_there_are_few_reads_all_are_counted() -> None:
    dice = random.Random(1)
    reads = [dice.randrange(2**64) for _ in range(MANY - 1)] * 3
    assert counted(reads, dice, flush_every=30) == Tallies(reads)


def test_many_reads_are_counted_in_proportion() -> None:
    dice, n = random.Random(11), 400_000
    reads = [1 if dice.random() < 0.5 else 2 if dice.random() < 0.5 else 3 for _ in range(n)]
    found, true = counted(reads, dice, flush_every=20_000), Tallies(reads)
    # A read that is taken with chance 1/g counts g: the variance of the sum is at most n (g - 1), with g <= 512 here.
    # Seven standard deviations are less than one in 10^11 away.
    for key, count in true.items():
        assert abs(found[key] - count) < 7 * sqrt(count * 511)
    assert abs(found.total() - n) < 7 * sqrt(n * 511)


def test_a_pattern_in_the_reads_does_not_matter() -> None:
    n = 200_000
    found = counted([number % 64 for number in range(n)], random.Random(5), flush_every=10_000)
    odd = sum(count for key, count in found.items() if key % 2)
    assert abs(odd - n / 2) < 7 * sqrt(n / 2 * 255)


def test_the_rate_of_samples_is_bounded_and_comes_back() -> None:
    block = ControlBlock.create(1)
    try:
        sampler, reader = ReadSampler(block, 0, dice=random.Random(2).random), SampleReader(block)
        taken = []
        for _ in range(30):
            for _ in range(10_000):
                sampler.count(1)
            sampler.flush()
            taken.append(len(reader.take()))
        assert taken[0] < 10 * MANY
        assert max(taken[2:]) < 3 * MANY
        for _ in range(20):
            sampler.flush()
        for _ in range(10):
            sampler.count(1)
        assert reader.take() == [(1, 1)] * 10
    finally:
        block.close()


def test_the_gap_has_an_end() -> None:
    block = ControlBlock.create(1)
    try:
        sampler = ReadSampler(block, 0, dice=lambda: 0.0)
        for _ in range(100 * MANY):
            sampler.take(1)
        assert SampleReader(block).take()[-1] == (1, MAX_GAP)
    finally:
        block.close()


@given(st.lists(st.integers(0, 3 * SAMPLES), max_size=5))
@settings(max_examples=30, deadline=None)
def test_a_ring_that_nobody_looks_at_forgets_the_oldest(bursts: list[int]) -> None:
    block = ControlBlock.create(1)
    try:
        sampler, reader = ReadSampler(block, 0, dice=lambda: 0.0), SampleReader(block)
        number = 0
        for burst in bursts:
            for _ in range(burst):
                sampler.take(number)
                number += 1
            keys = [key for key, _ in reader.take()]
            if burst < SAMPLES:
                assert keys == list(range(number - burst, number))
            else:  # the oldest one might just have been overwritten
                assert keys == list(range(number - SAMPLES + 1, number))
    finally:
        block.close()


def test_what_is_overwritten_while_it_is_read_is_left_out(control: ControlBlock) -> None:
    sampler, reader = ReadSampler(control, 1, dice=lambda: 0.0), SampleReader(control)
    for number in range(SAMPLES):
        sampler.take(number)
    base = control.samples_base(1)

    class Racing:
        """Cells in which a worker goes on between the reader's first look at the count and its second."""

        looks = 0

        def __getitem__(self, index: int | slice) -> object:
            if index == base:
                self.looks += 1
                if self.looks == 2:
                    for number in range(10):
                        sampler.take(10**6 + number)
            return control.cells[index]

    reader._cells = Racing()  # type: ignore[assignment]  # stands in for the block's memory
    found = reader.take()
    assert [key for key, _ in found] == list(range(11, SAMPLES))
    assert [key for key, _ in reader.take()] == [10**6 + number for number in range(10)]
    assert SAMPLE_CELLS == 2


# -- hottest photos


def test_hot_photos_have_their_rates() -> None:
    photos = HotPhotos(100.0)
    for second in range(1, 11):
        photos.take([(7, 32)] * 3 + [(second * 1000, 1)], 100.0 + second)
    assert photos.rates(10) == {7: pytest.approx(96.0)}
    assert photos.rates(0) == {}


def test_hot_photos_follow_a_change() -> None:
    photos = HotPhotos(0.0)
    for second in range(1, 3601):
        photos.take([(1 if second <= 1800 else 2, 10)], float(second))
    rates = photos.rates(2)
    assert list(rates) == [2, 1]
    assert rates[2] == pytest.approx(10.0, rel=0.05)
    assert rates[1] < 0.5


def test_even_reads_make_no_photo_hot() -> None:
    photos, dice = HotPhotos(0.0), random.Random(4)
    for second in range(1, 61):
        photos.take([(dice.randrange(10**6), 1) for _ in range(400)], float(second))
    assert max(photos.rates(100).values(), default=0.0) < 0.2


def test_photos_before_any_time_has_passed() -> None:
    photos = HotPhotos(5.0)
    photos.take([(1, 10)], 5.0)
    assert photos.rates(10) == {}
    photos.take([(1, 0)], 4.0)
    assert photos.rates(10) == {}


def test_hot_photos_are_told_of_when_they_change(control: ControlBlock) -> None:
    bench = Bench(control, 1)
    sampler = ReadSampler(control, 1)
    assert bench.beat().photos is None or bench.reporter.next(bench.now).photos in (None, {})
    for _ in range(50):
        sampler.take(0xABC)
    assert bench.beat(1.0).document()["photos"] == [["abc", pytest.approx(50 / 1.5, rel=0.01)]]
    assert bench.beat(0.1).photos is None  # not that often
    assert bench.beat(1.0).photos is not None  # cooled by more than a tenth
    bench.reporter.forget()
    assert bench.beat(0.1).photos is not None


# -- hits


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 50)), max_size=60), st.integers(1, 8), st.randoms())
def test_each_hit_is_told_once(samples: list[tuple[int, int]], most: int, dice: random.Random) -> None:
    hits, true, told = Hits(100), Tallies[int](), Tallies[int]()
    for key, weight in samples:
        hits.take([(key, weight)])
        true[key] += weight
        if dice.random() < 0.3:
            rows = hits.peek(most)
            assert len(rows) <= most
            hits.take([(key, weight)])  # while the heartbeat is under way
            true[key] += weight
            if dice.random() < 0.5:
                hits.told(rows)
                told.update(dict(rows))
    while rows := hits.peek(most):
        hits.told(rows)
        told.update(dict(rows))
    assert told == true


def test_all_pictures_are_read_and_large_ones_are_viewed(control: ControlBlock) -> None:
    bench = Bench(control, 1)
    sampler = ReadSampler(control, 0)
    bench.beat()
    for alternate in (*range(5), *range(11, 15), 99, 100):
        sampler.take(0xABC, alternate)
    beat = bench.beat(1.0)
    assert beat.document()["hits"] == [["abc", 2]]  # large in two formats
    assert beat.document()["photos"] == [["abc", pytest.approx(11 / 1.5, rel=0.01)]]


def test_hits_are_bounded(control: ControlBlock) -> None:
    hits = Hits(3)
    hits.take([(1, 1), (2, 1), (3, 1), (4, 1), (1, 5)])
    assert hits.peek(10) == [(1, 6), (2, 1), (3, 1)]
    bench = Bench(control, 1)
    sampler = ReadSampler(control, 0, dice=lambda: 0.0)
    for key in range(1000):
        sampler.take(key, LARGE)
    assert len(bench.beat().hits) == MAX_HITS
    assert len(bench.beat().hits) == MAX_HITS


# -- real workers


def test_workers_count_time_and_sample_keys_on_every_way_of_reading(tmp_path: Path) -> None:
    with running(tmp_path, workers=2, volumes=(1,)) as store:
        small, large = new_fid(1, alternate=LARGE), new_fid(1, alternate=LARGE)
        heat, now = StoreHeat(store.control, 0.0), 0.0
        reporter = heat.reporter()
        with store.client(0) as client:
            assert client.put(f"/{small}", bytes(4096)).status == 201
            assert client.put(f"/{large}", bytes(3 * 2**20)).status == 201  # too large for the event loop
            for _ in range(6):
                assert client.get(f"/{small}").status == 200
            assert client.get(f"/{small}.jpg").status == 200
            for _ in range(3):
                assert client.get(f"/{large}").status == 200
        with store.client(1) as client:
            assert client.get(f"/{small}").status == 200
        metrics = store.metrics()
        heat.tick(now + 1.0)
        report = reporter.next(now + 1.0)
        assert dict(report.hits) == {small.key: 8, large.key: 3}
        one = report.volumes[1]
        assert one.reads == 11
        assert one.row[0] == pytest.approx(11.0)
        assert one.row[1] == pytest.approx(8 * 4096 + 3 * 3 * 2**20)
        assert 0 < one.row[2] < 11
        counted = metrics['haystack_store_volume_read_seconds_total{volume="1"}']
        assert counted == pytest.approx(one.row[2], abs=1e-5)
        summed = metrics['haystack_store_request_duration_seconds_sum{operation="read"}']
        assert counted == pytest.approx(summed, abs=2e-5)
        assert metrics['haystack_store_request_duration_seconds_count{operation="read"}'] == 11


def test_a_worker_that_dies_takes_nothing_back(tmp_path: Path) -> None:
    with running(tmp_path, workers=1, volumes=(1,)) as store:
        fid, heat = new_fid(1, alternate=LARGE), StoreHeat(store.control, 0.0)
        reporter = heat.reporter()
        assert store.once("PUT", f"/{fid}", b"photo").status == 201
        reads_until(store, str(fid), 10)
        heat.tick(1.0)
        before = reporter.next(1.0)
        store.kill(0)
        store.restart(0)
        reads_until(store, str(fid), 5)
        heat.tick(2.0)
        after = reporter.next(2.0)
        assert (before.volumes[1].reads, after.volumes[1].reads) == (10, 15)
        assert after.volumes[1].row[0] == pytest.approx(7.5, rel=0.02)
        assert dict(after.hits) == {fid.key: 15}


def reads_until(store: LocalStore, fid: str, count: int) -> None:
    with store.client() as client:
        for _ in range(count):
            assert client.get(f"/{fid}").status == 200
    assert store.counter(Counter.GET) > 0
