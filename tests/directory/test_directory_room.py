"""Folders by rack in order: the same decisions as by looking at all of them."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_placement import copy_place, volume_places

from directory.decisions.placement import copy_in, place_in, site_of
from directory.decisions.replication import Replication, parse_replication
from directory.decisions.room import Room
from directory.decisions.spaces import FolderSpace
from haystack.units import GIB

REPLICATIONS = ["000", "001", "002", "010", "020", "100", "200", "011", "110", "101", "111"]


def claim(space: FolderSpace) -> tuple[int, str, str]:
    return space.free_bytes, space.store_id, space.folder


def folder(number: int, store: int, center: str, rack: str, free_gib: int, host: str = "") -> FolderSpace:
    return FolderSpace(
        store_id=f"s{store}",
        url=f"{host or f'h{store}'}:1",
        data_center=center,
        rack=rack,
        folder=f"f{number}",
        path="/d",
        alive=True,
        state="ok",
        free_bytes=free_gib * GIB,
        total_bytes=1000 * GIB,
        volumes=0,
        writable=0,
    )


@st.composite
def folders(draw: st.DrawFn) -> list[FolderSpace]:
    """Stores with one to three folders each; some share a machine."""
    found = []
    for store in range(draw(st.integers(0, 12))):
        center, rack = draw(st.sampled_from("abc")), draw(st.sampled_from("xyz"))
        host = draw(st.sampled_from(["", "shared", "other"]))
        for number in range(draw(st.integers(1, 3))):
            found.append(folder(number, store, center, rack, draw(st.integers(1, 9)), host))
    return found


@given(folders(), st.sampled_from(REPLICATIONS), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_new_volumes_go_where_they_would_go_by_looking_at_all(
    spaces: list[FolderSpace], text: str, leading: int
) -> None:
    promise = parse_replication(text)
    primaries = [space for number, space in enumerate(spaces) if leading == 0 or number % leading == 0]
    expected = volume_places(promise, primaries, spaces, claim)
    allowed = {(space.store_id, space.folder) for space in primaries}
    may_lead = None if leading == 0 else lambda space: (space.store_id, space.folder) in allowed
    assert place_in(Room(spaces, claim), promise, may_lead).spaces == expected


@given(folders(), st.sampled_from(REPLICATIONS), st.randoms(use_true_random=False), st.integers(0, 4))
@settings(max_examples=150, deadline=None)
def test_copies_go_where_they_would_go_by_looking_at_all(
    spaces: list[FolderSpace], text: str, random: Random, count: int
) -> None:
    promise = parse_replication(text)
    stores = sorted({space.store_id for space in spaces})
    holding = set(random.sample(stores, min(count, len(stores))))
    holders = [site_of(next(s for s in spaces if s.store_id == store)) for store in sorted(holding)]
    hosts = {space.host for space in spaces if space.store_id in holding}
    least = 3 * GIB
    fitting = [space for space in spaces if space.free_bytes >= least]
    found = copy_in(Room(spaces, claim), promise, holders, lambda space: space.free_bytes >= least, hosts)
    assert found == copy_place(promise, holders, fitting, claim, hosts)


@given(folders(), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=20))
@settings(max_examples=100, deadline=None)
def test_a_room_that_was_changed_is_one_that_was_made_so(
    spaces: list[FolderSpace], changes: list[tuple[int, int]]
) -> None:
    original = Room(spaces, claim)
    before = _picture(original)
    branch = original.branch()
    left = {(space.store_id, space.folder): space for space in spaces}
    for which, free_gib in changes:
        if not spaces:
            break
        space = spaces[which % len(spaces)]
        if free_gib == 0:
            branch.drop(space.store_id, space.folder)
            left.pop((space.store_id, space.folder), None)
        else:
            changed = replace(space, free_bytes=free_gib * GIB)
            branch.put(changed)
            left[space.store_id, space.folder] = changed
    assert _picture(branch) == _picture(Room(left.values(), claim))
    assert _picture(original) == before, "the branch has changed what it came from"
    for space in spaces:
        assert branch.get(space.store_id, space.folder) == left.get((space.store_id, space.folder))


def test_free_space_is_added_up_by_store() -> None:
    room = Room([folder(0, 1, "a", "x", 2), folder(1, 1, "a", "x", 3), folder(0, 2, "a", "y", 7)], claim)
    assert room.free_bytes(["s1", "s9"]) == {"s1": 5 * GIB, "s9": 0}
    assert {space.folder for space in room.of_store("s1")} == {"f0", "f1"} and room.of_store("s9") == []


def test_it_pays_at_ten_thousands_of_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one more volume costs: looks at folders, not seconds."""
    spaces = [
        folder(disk, store, f"c{store % 3}", f"r{store % 60}", (disk * 31 + store * 17) % 900 + 1)
        for store in range(1200)
        for disk in range(10)
    ]
    looks = 0

    def counting(space: FolderSpace) -> tuple[int, str, str]:
        nonlocal looks
        looks += 1
        return claim(space)

    room = Room(spaces, counting)
    looks = 0
    for _ in range(20):
        for space in place_in(room, Replication(1, 1, 0)).spaces:
            room.put(replace(space, free_bytes=space.free_bytes // 2))
    assert looks == 60


def _picture(room: Room) -> dict[tuple[str, str], list[FolderSpace]]:
    return {home: [space for _, space in room.best(home)] for _, home in room.homes()}
