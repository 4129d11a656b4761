"""The pure decisions."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directory.decisions import liveness
from directory.decisions.choice import Candidate, CopyPlace, Where, WriteTable, take_turns, weights
from directory.decisions.confirmations import MAX_RENDITIONS, apply_needles
from directory.decisions.growth import plan_growth, plan_top_up, volumes_wanted
from directory.decisions.liveness import Liveness
from directory.decisions.membership import Standing, admit, worth_writing
from directory.decisions.replication import parse_replication
from directory.decisions.spaces import FolderSpace, refusal
from directory.messages import DELETED, STORED, Needle, VolumeDocument
from directory.settings import MAX_VOLUMES_PER_FOLDER
from directory.storage.tables import PhotoRecord, VolumeRecord
from haystack.units import GIB, MIB

SIZES = st.integers(0, 64 * GIB)


def candidate(volume: int = 1, **changes: object) -> Candidate:
    base = Candidate(
        volume=volume,
        store_id="s1",
        url="a:1",
        public_url="a:1",
        data_center="dc1",
        rack="r1",
        folder="f1",
        size_bytes=0,
        max_bytes=32 * GIB,
        folder_free_bytes=100 * GIB,
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # the names are checked by replace


def space(folder: str = "f1", **changes: object) -> FolderSpace:
    base = FolderSpace(
        store_id="s1",
        url="a:1",
        data_center="dc1",
        rack="r1",
        folder=folder,
        path=f"/data/{folder}",
        alive=True,
        state="ok",
        free_bytes=100 * GIB,
        total_bytes=200 * GIB,
        volumes=0,
        writable=0,
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # as above


def volume_document(**changes: object) -> VolumeDocument:
    base = VolumeDocument(
        volume=3,
        uuid="u1",
        generation=0,
        epoch=1,
        folder="f1",
        state="writable",
        reason="",
        size_bytes=4096,
        max_bytes=32 * GIB,
        live_count=0,
        live_bytes=0,
        deleted_count=0,
        deleted_bytes=0,
        max_key=0,
        reads=0,
        writes=0,
        replication="000",
        last_append_ms=0,
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # as above


# -- liveness


@pytest.mark.parametrize(
    ("last_seen", "now", "expected"),
    [
        (None, 100.0, Liveness.UNKNOWN),
        (None, 105.0, Liveness.UNKNOWN),
        (None, 105.1, Liveness.DEAD),
        (101.0, 106.0, Liveness.ALIVE),
        (101.0, 106.1, Liveness.DEAD),
    ],
)
def test_a_store_is_judged_by_its_silence(last_seen: float | None, now: float, expected: Liveness) -> None:
    assert liveness.judge(last_seen, 100.0, now, 5.0) is expected


# -- choice


@given(
    st.lists(st.tuples(st.sampled_from("abc"), SIZES, SIZES, SIZES, st.floats(0, 1e6)), min_size=1, max_size=20),
    st.floats(0, 1, exclude_max=True),
)
def test_a_choice_is_one_of_the_candidates_and_emptier_ones_come_first(rows: list, fraction: float) -> None:  # type: ignore[type-arg]  # rows of mixed types
    candidates = [
        candidate(
            number,
            store_id=store,
            size_bytes=size,
            max_bytes=max(most, 1),
            folder_free_bytes=free,
            store_writes_per_second=load,
        )
        for number, (store, size, most, free, load) in enumerate(rows, 1)
    ]
    chosen = WriteTable(candidates).choose(fraction)
    assert chosen in candidates
    if any(not c.crowded for c in candidates):
        assert not chosen.crowded
    assert all(weight > 0 for weight in weights(candidates))


def test_no_candidate_no_choice() -> None:
    assert WriteTable([]).choose(0.5) is None


def test_equal_volumes_are_used_evenly() -> None:
    table = WriteTable([candidate(volume) for volume in range(1, 8)])
    counts = Counter(table.choose(n / 7000).volume for n in range(7000))  # type: ignore[union-attr]  # there are some
    assert set(counts.values()) <= {999, 1000, 1001}


def test_volumes_of_a_folder_take_turns_and_all_are_used_evenly() -> None:
    candidates = [candidate(number, folder=f"f{number % 2}", size_bytes=GIB) for number in range(8)]
    counts: Counter[int] = Counter()
    for turn in range(400):
        table = WriteTable(candidates, turn=turn / 400)
        chosen = [table.choose(n / 100) for n in range(100)]
        assert len(table) == len(set(chosen)) == 2
        assert {one.folder for one in chosen if one is not None} == {"f0", "f1"}
        counts.update(one.volume for one in chosen if one is not None)
    assert set(counts) == set(range(8))
    assert max(counts.values()) - min(counts.values()) <= 200  # of 5,000 each


@given(
    st.lists(st.tuples(st.sampled_from("abc"), SIZES, SIZES), min_size=1, max_size=20),
    st.floats(0, 1, exclude_max=True),
)
def test_turns_leave_each_folder_its_weight(rows: list, turn: float) -> None:  # type: ignore[type-arg]  # rows of mixed types
    candidates = [
        candidate(number, folder=folder, size_bytes=size, max_bytes=max(most, 1))
        for number, (folder, size, most) in enumerate(rows, 1)
    ]
    weighted = list(zip(candidates, weights(candidates), strict=True))
    chosen = take_turns(weighted, turn)
    assert {one.folder for one, _ in chosen} == {one.folder for one in candidates}
    assert len(chosen) == len({one.folder for one in candidates})
    for one, weight in chosen:
        assert weight == pytest.approx(sum(own for other, own in weighted if other.folder == one.folder))


def test_room_is_shared_by_the_volumes_of_a_folder() -> None:
    crowd = [candidate(volume, folder="f1", folder_free_bytes=40 * GIB) for volume in range(1, 5)]
    alone = candidate(9, folder="f2", folder_free_bytes=20 * GIB)
    assert weights([*crowd, alone]) == [10 * GIB] * 4 + [20 * GIB]


def test_a_busy_store_gets_less_but_never_nothing() -> None:
    idle = candidate(1, store_id="s1", store_writes_per_second=0.0)
    busy = candidate(2, store_id="s2", store_writes_per_second=1000.0)
    weight_idle, weight_busy = weights([idle, busy])
    assert weight_idle / 4 <= weight_busy < weight_idle


def test_only_where_it_was_asked_for() -> None:
    here, there = candidate(1), candidate(2, data_center="dc2", rack="r2", url="b:1")
    for where in (Where("dc2"), Where(rack="r2"), Where(data_node="b:1"), Where("dc2", "r2", "b:1")):
        assert {WriteTable([here, there], where).choose(n / 10) for n in range(10)} == {there}
    assert WriteTable([here, there], Where("dc1", "r2")).choose(0.5) is None
    assert str(Where("dc2", "r2")) == "data center 'dc2' rack 'r2'"


# -- growth


def test_seven_to_begin_with_and_as_many_as_are_missing_later() -> None:
    assert volumes_wanted([space()], 7) == 7
    assert volumes_wanted([space(volumes=9, writable=5)], 7) == 2
    assert volumes_wanted([space(volumes=9, writable=7)], 7) == 0
    assert volumes_wanted([space(volumes=9, writable=9)], 7) == 0


def test_every_folder_with_room_takes_part() -> None:
    folders = [space("f1", writable=7), space("f2"), space("f3", state="failed"), space("f4", free_bytes=1)]
    assert volumes_wanted(folders, 7) == 3
    assert [place.folder for place in plan_growth(folders, 3, target=7).places] == ["f2"] * 3


@given(st.lists(st.tuples(st.integers(2, 100_000), st.integers(0, 9)), min_size=1, max_size=12), st.integers(1, 20))
def test_growth_comes_to_an_end(rows: list[tuple[int, int]], target: int) -> None:
    """Whatever the disks' sizes, one round of growth leaves nothing wanted."""
    folders = [
        space(f"f{index}", free_bytes=free_gib * 2**30, writable=writable)
        for index, (free_gib, writable) in enumerate(rows)
    ]
    wanted = volumes_wanted(folders, target)
    added = Counter(place.folder for place in plan_growth(folders, wanted, target=target).places)
    grown = [replace(folder, writable=folder.writable + added[folder.folder]) for folder in folders]
    assert volumes_wanted(grown, target) == 0


def test_volumes_of_silent_stores_and_failed_folders_do_not_count() -> None:
    assert volumes_wanted([space("f1", writable=7, alive=False), space("f2", writable=1)], 7) == 6
    assert volumes_wanted([space("f1", writable=7, state="failed"), space("f2", writable=1)], 7) == 6


@given(
    st.lists(
        st.tuples(st.integers(0, 500), st.booleans(), st.sampled_from(["ok", "full", "failed"]), st.integers(0, 9)),
        max_size=8,
    ),
    st.integers(0, 40),
)
def test_a_plan_uses_only_folders_that_have_room(rows: list, wanted: int) -> None:  # type: ignore[type-arg]  # rows of mixed types
    folders = [
        space(f"f{n}", free_bytes=free * 100 * MIB, alive=alive, state=state, volumes=volumes, writable=min(volumes, 3))
        for n, (free, alive, state, volumes) in enumerate(rows)
    ]
    plan = plan_growth(folders, wanted)
    usable = {folder.folder for folder in folders if not refusal(folder)}
    assert {place.folder for place in plan.places} <= usable
    assert len(plan.places) == (wanted if usable else 0)
    assert bool(plan.reason) == (len(plan.places) < wanted)


def test_new_volumes_are_shared_out_by_free_space() -> None:
    folders = [space("big", free_bytes=400 * GIB), space("small", free_bytes=100 * GIB)]
    counts = Counter(place.folder for place in plan_growth(folders, 10).places)
    assert counts == {"big": 8, "small": 2}


def test_a_folder_takes_only_so_many_volumes() -> None:
    folders = [space("f1", volumes=MAX_VOLUMES_PER_FOLDER - 2)]
    plan = plan_growth(folders, 5)
    assert len(plan.places) == 2
    assert str(MAX_VOLUMES_PER_FOLDER) in plan.reason


@pytest.mark.parametrize(
    ("folders", "where", "words"),
    [
        ([], Where(), "no Store has registered"),
        ([space()], Where("dc9"), "no Store is in data center 'dc9'"),
        ([space(alive=False)], Where(), "/data/f1 of Store a:1: the Store is silent"),
        ([space(state="failed")], Where(), "the folder is failed"),
        ([space(free_bytes=10 * MIB)], Where(), "10.0 MiB free, 1.00 GiB needed"),
        ([space(trouble="refused with 507")], Where(), "refused with 507"),
        ([space(f"f{n}", alive=False) for n in range(9)], Where(), "(and 5 more)"),
    ],
)
def test_a_refusal_says_why(folders: list[FolderSpace], where: Where, words: str) -> None:
    plan = plan_growth(folders, 1, where=where)
    assert plan.places == ()
    assert words in plan.reason


def test_a_small_disk_needs_less_free_space() -> None:
    small = space(free_bytes=60 * MIB, total_bytes=1000 * MIB)
    assert refusal(small) == ""
    assert refusal(replace(small, free_bytes=40 * MIB)) != ""
    assert refusal(replace(small, free_bytes=40 * MIB), max_volume_bytes=30 * MIB) == ""


# -- membership


def record(**changes: object) -> VolumeRecord:
    taken = admit(None, volume_document(), "s1", abandoned=False, now_ms=5).record
    return replace(taken, **changes)  # type: ignore[arg-type]  # as above


def test_an_unknown_volume_is_taken_in() -> None:
    verdict = admit(None, volume_document(epoch=4, state="readonly"), "s1", abandoned=False, now_ms=5)
    assert verdict.standing is Standing.MEMBER
    assert verdict.record.primary == "s1" and verdict.record.in_sync == ("s1",)
    assert (verdict.record.epoch, verdict.record.state, verdict.record.created_ms) == (4, "readonly", 5)
    assert VolumeRecord.unpack(3, verdict.record.pack()) == verdict.record


def test_another_uuid_is_a_conflict_for_members_and_strangers() -> None:
    for store_id in ("s1", "s2"):
        verdict = admit(record(), volume_document(uuid="u2"), store_id, abandoned=True, now_ms=9)
        assert verdict.standing is Standing.CONFLICT
        assert verdict.record == record()


def test_a_second_copy_waits_until_the_first_is_lost() -> None:
    known = record()
    verdict = admit(known, volume_document(size_bytes=1), "s2", abandoned=False, now_ms=9)
    assert verdict.standing is Standing.EXTRA and verdict.record == known
    verdict = admit(known, volume_document(), "s2", abandoned=True, now_ms=9)
    assert verdict.standing is Standing.MEMBER
    assert (verdict.record.primary, verdict.record.in_sync, verdict.record.epoch) == ("s2", ("s2",), 2)


def test_sizes_alone_are_not_written_down() -> None:
    known = record()
    grown = admit(known, volume_document(size_bytes=10**6, live_count=5, live_bytes=9), "s1", abandoned=False, now_ms=9)
    assert grown.record.size_bytes == 10**6
    assert not worth_writing(known, grown.record)
    full = admit(known, volume_document(state="readonly"), "s1", abandoned=False, now_ms=9)
    assert worth_writing(known, full.record)
    assert worth_writing(None, known)


def test_epochs_never_go_back() -> None:
    assert admit(record(epoch=7), volume_document(epoch=3), "s1", abandoned=False, now_ms=9).record.epoch == 7
    assert admit(record(epoch=3), volume_document(epoch=7), "s1", abandoned=False, now_ms=9).record.epoch == 7


# -- confirmations


def needle(key: int, kind: int = STORED, *, alternate: int = 0, cookie: int = 0, size: int = 1) -> Needle:
    return Needle(key, alternate, cookie or key * 11 + 1, size, size * 3, size * 7, kind)


def applied(state: dict[int, PhotoRecord], needles: list[Needle], volume: int = 3) -> dict[int, PhotoRecord]:
    effect = apply_needles(volume, needles, state.get)
    merged = {**state, **effect.photos}
    return {key: photo for key, photo in merged.items() if photo is not None}


NEEDLES = st.lists(
    st.builds(
        needle,
        st.integers(0, 3),
        st.sampled_from([STORED, DELETED]),
        alternate=st.integers(0, 2),
        size=st.integers(1, 100),
    ),
    max_size=30,
)


@given(NEEDLES, st.data())
def test_the_map_is_what_the_volume_says_in_any_batches_with_any_repetition(needles: list[Needle], data) -> None:  # type: ignore[no-untyped-def]  # hypothesis' data object
    model: dict[tuple[int, int], int] = {}
    for one in needles:
        if one.kind == STORED:
            model[one.key, one.alternate] = one.size_bytes
        else:
            model.pop((one.key, one.alternate), None)
    state: dict[int, PhotoRecord] = {}
    done = 0
    while done < len(needles):
        begin = data.draw(st.integers(0, done))
        done = data.draw(st.integers(done + 1, len(needles)))
        state = applied(state, needles[begin:done])
    found = {(key, alt): r.size_bytes for key, photo in state.items() for alt, r in photo.renditions.items()}
    assert found == model
    assert all(photo.renditions for photo in state.values())


def test_a_number_that_is_taken_stays_with_its_photo() -> None:
    state = applied({}, [needle(1, cookie=5)])
    effect = apply_needles(4, [needle(1, cookie=5, alternate=1), needle(1, DELETED, cookie=5)], state.get)
    assert (effect.unlisted, effect.stored, effect.deleted) == (1, 0, 0)
    assert effect.photos[1] == state[1]
    effect = apply_needles(3, [needle(1, cookie=6, alternate=1), needle(1, DELETED, cookie=6)], state.get)
    assert effect.unlisted == 1 and effect.photos[1] == state[1]


def test_what_was_looked_up_is_not_changed() -> None:
    state = applied({}, [needle(1)])
    before = state[1].pack()
    apply_needles(3, [needle(1, alternate=1), needle(1, DELETED)], state.get)
    assert state[1].pack() == before


def test_a_photos_record_has_a_limit() -> None:
    needles = [needle(1, alternate=number) for number in range(MAX_RENDITIONS + 2)]
    effect = apply_needles(3, needles, lambda _: None)
    assert effect.unlisted == 2
    photo = effect.photos[1]
    assert photo is not None and len(photo.renditions) == MAX_RENDITIONS
    again = apply_needles(3, [needle(1, alternate=5, size=9)], lambda _: photo)
    assert again.stored == 1


def test_records_survive_packing() -> None:
    photo = applied({}, [needle(1, alternate=2**32 - 1, size=9), needle(1, cookie=12)])[1]
    assert PhotoRecord.unpack(photo.pack()) == photo


# -- memberships that Stores report


def reported(epoch: int, in_sync: str, **changes: object) -> VolumeDocument:
    changes = {"replication": "002", "primary": in_sync[0], "in_sync": tuple(in_sync), **changes}
    return volume_document(epoch=epoch, **changes)


@given(st.permutations([("a", 7, "ab"), ("b", 7, "ab"), ("c", 5, "abc"), ("d", 3, "dab")]))
def test_without_a_disk_the_highest_epoch_wins_in_any_order(reports: list[tuple[str, int, str]]) -> None:
    known: VolumeRecord | None = None
    for store_id, epoch, in_sync in reports:
        known = admit(known, reported(epoch, in_sync), store_id, abandoned=False, now_ms=9).record
        assert known.primary in known.in_sync and set(known.in_sync) <= set(known.members)
    assert known is not None
    assert (known.epoch, known.primary, set(known.in_sync)) == (7, "a", {"a", "b"})
    assert set(known.members) == {"a", "b", "c", "d"} and known.degraded_since_ms == 9
    for store_id, epoch, in_sync in reports:
        verdict = admit(known, reported(epoch, in_sync), store_id, abandoned=False, now_ms=10)
        assert verdict.standing is (Standing.MEMBER if store_id in "ab" else Standing.STALE)
        assert verdict.record == known


def test_a_document_that_was_lost_gives_way_to_any_other() -> None:
    without = volume_document(epoch=40, replication="001")
    known = admit(None, without, "c", abandoned=False, now_ms=9).record
    assert (known.epoch, known.in_sync) == (1, ("c",)) and known.degraded_since_ms == 9
    known = admit(known, reported(2, "ab", replication="001"), "b", abandoned=False, now_ms=9).record
    assert (known.epoch, known.primary, known.in_sync, known.stale) == (2, "a", ("a", "b"), ("c",))


def test_a_stale_copy_of_a_volume_that_moved_never_takes_over() -> None:
    moved = record(epoch=3, primary="s2", in_sync=("s2",), members=("s2",))
    for document in (volume_document(), volume_document(epoch=2, stale=True)):
        verdict = admit(moved, document, "s1", abandoned=True, now_ms=9)
        assert verdict.standing is Standing.STALE
        assert (verdict.record.in_sync, verdict.record.members) == (("s2",), ("s2", "s1"))


def test_records_of_the_first_format_are_read() -> None:
    packed = record().pack()
    del packed["members"], packed["degradedSinceMs"]
    assert VolumeRecord.unpack(3, packed) == record()


def test_the_room_of_all_copies_counts() -> None:
    full = CopyPlace("s2", "f2", 1 * GIB)
    lone, pair = candidate(1), candidate(2, others=(full,))
    weight_lone, weight_pair = weights([lone, pair])
    assert weight_pair == 1 * GIB < weight_lone


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.integers(2, 1000)), min_size=1, max_size=8),
    st.sampled_from(["001", "010", "100", "011", "110"]),
    st.integers(1, 9),
)
def test_growth_of_copies_comes_to_an_end(rows: list[tuple[str, str, int]], text: str, target: int) -> None:
    """One round of growth leaves nothing wanted, or says why; no volume has two copies on one Store."""
    replication = parse_replication(text)
    folders = [
        space(f"f{n}", store_id=f"s{n}", url=f"s{n}:1", data_center=center, rack=rack, free_bytes=free_gib * GIB)
        for n, (center, rack, free_gib) in enumerate(rows)
    ]
    wanted = volumes_wanted(folders, target, replication=replication, writable=0)
    assert wanted >= target
    plan = plan_growth(folders, wanted, target=target, replication=replication)
    assert plan_top_up(folders, target, replication=replication, writable=0) == plan
    assert bool(plan.reason) == (len(plan.volumes) < wanted)
    counts = Counter(place.folder for volume in plan.volumes for place in volume.places)
    for volume in plan.volumes:
        assert len({place.store_id for place in volume.places}) == replication.copies
    grown = [replace(folder, writable=counts[folder.folder]) for folder in folders]
    again = volumes_wanted(grown, target, replication=replication, writable=len(plan.volumes))
    assert again == 0 or not plan.volumes


def test_stores_that_come_and_go_leave_no_trail_of_volumes() -> None:
    folders = [space(f"f{n}", store_id=f"s{n}") for n in range(3)]
    replication = parse_replication("001")
    assert volumes_wanted(folders, 7, replication=replication, writable=1, still_open=56) == 0
    assert volumes_wanted(folders, 7, replication=replication, writable=0, still_open=56) > 0
    assert volumes_wanted(folders, 7, replication=replication, writable=7, spread=False) == 0
