"""What queries find, in which order and on which page; and the pure parts of it: tokens, spellings, ranges of days."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest
from database_harness import Scene
from hypothesis import given
from hypothesis import strategies as st

from frontend.database import photos, search, spelling, tokens
from frontend.database.finding import RANKED, find, parse_query
from frontend.visibility import Visibility

DAY_MS = tokens.DAY_MS


def ids(scene: Scene, query: str, viewer: str | None = None, limit: int = 50) -> list[int]:
    found = scene.do(find, parse_query(query), None if viewer is None else scene.person(viewer), None, limit)
    return [photo.id for photo in found.page.items]


def all_pages(scene: Scene, query: str, limit: int, viewer: str | None = None) -> list[list[int]]:
    found, after = [], None
    while True:
        page = scene.do(find, parse_query(query), None if viewer is None else scene.person(viewer), after, limit).page
        found.append([photo.id for photo in page.items])
        after = page.next
        if after is None:
            return found


def ms(one: datetime.date) -> int:
    return (one - datetime.date(1970, 1, 1)).days * DAY_MS


def day(text: str) -> int:
    return ms(datetime.date.fromisoformat(text))


def test_every_field_is_found_and_the_weightier_ones_first(scene: Scene) -> None:
    scene.photo(1, "anna", tags=("harbour",))
    scene.photo(2, "anna", title="At the harbour")
    scene.photo(3, "harbour")
    scene.photo(4, "anna", caption="Where the Harbour ends")
    scene.photo(5, "anna", camera="Harbour 3000")
    scene.photo(6, "anna", title="Harbourmaster")
    scene.photo(7, "anna", title="Elsewhere")
    scene.photo(8, "anna", title="A harbour again")
    assert ids(scene, "harbour") == [1, 8, 2, 6, 3, 4, 5]
    assert ids(scene, "HARB") == [1, 8, 6, 2, 3, 4, 5]
    assert ids(scene, "harbour again") == [8]
    assert ids(scene, "harbour anna title:") == []


def test_accents_and_case_do_not_matter(scene: Scene) -> None:
    scene.photo(1, "anna", title="Crème brûlée im CAFÉ", tags=("über_uns",))
    scene.photo(2, "anna", title="桜の下で 日本語")
    assert ids(scene, "cafe") == ids(scene, "Café") == ids(scene, "creme brulee") == ids(scene, "uns") == [1]
    assert ids(scene, "#über_uns") == ids(scene, "tag:ÜBER_UNS") == [1] and ids(scene, "#uns") == []
    assert ids(scene, "日本") == [2]


def test_filters(scene: Scene) -> None:
    scene.photo(1, "anna", title="beach", tags=("sea", "sun"), taken_ms=day("2023-07-31") + 5)
    scene.photo(2, "ben", title="beach", tags=("sea",), taken_ms=day("2024-02-29"))
    scene.photo(3, "ben", title="hill", created_ms=day("2024-03-01"))
    assert ids(scene, "#sea") == [2, 1] and ids(scene, "#sea #sun") == [1] and ids(scene, "beach @ben") == [2]
    assert ids(scene, "@nobody_here") == ids(scene, "tag:a.b") == ids(scene, 'from:x"y') == ids(scene, "tag:'") == []
    assert ids(scene, "on:2023") == ids(scene, "on:2023-07") == ids(scene, "on:2023-07-31") == [1]
    assert ids(scene, "on:2023-08") == [] and ids(scene, "after:2024-02-29") == [3, 2]
    assert ids(scene, "before:2024-02-29") == [1] and ids(scene, "after:2023-07-31 before:2024-03-01") == [2, 1]
    assert ids(scene, "after:2025 before:2024") == [] and ids(scene, "beach after:2024") == [2]


def test_places(scene: Scene) -> None:
    scene.photo(1, "anna", latitude=43.46, longitude=11.88)
    scene.photo(2, "anna", latitude=43.50, longitude=11.90)
    scene.photo(3, "anna", latitude=-17.0, longitude=179.95)
    scene.photo(4, "anna", latitude=-17.0, longitude=-179.95)
    scene.photo(5, "anna", latitude=89.99, longitude=10.0)
    scene.photo(6, "anna")
    assert ids(scene, "near:43.46,11.88,1") == [1] and ids(scene, "near:43.46,11.88") == [2, 1]
    assert ids(scene, "near:-17,180,20") == ids(scene, "near:-17,-180,20") == [4, 3]
    assert ids(scene, "near:89.9,-170,50") == [5] and ids(scene, "near:0,0,20000") == [5, 4, 3, 2, 1]


def test_nobody_finds_what_he_may_not_see(scene: Scene) -> None:
    for number, visibility in enumerate(Visibility, start=1):
        scene.photo(number, "anna", title="secret", visibility=visibility, tags=("t",))
    scene.follow("ben", "anna")
    scene.person("eve")
    for query in ("secret", "#t", "@anna", "on:1970"):
        assert ids(scene, query) == ids(scene, query, "eve") == [1]
        assert ids(scene, query, "ben") == [2, 1] and ids(scene, query, "anna") == [3, 2, 1]
        assert all_pages(scene, query, 1) == [[1]]  # no page tells that there is more


def test_a_change_is_found_and_a_removal_is_not(scene: Scene) -> None:
    before = scene.photo(1, "anna", title="old words", tags=("first",))
    scene.do(photos.change, replace(before, title="new", tags=()))
    assert ids(scene, "old") == ids(scene, "#first") == [] and ids(scene, "new") == [1]
    scene.do(photos.remove, before, 0)
    assert ids(scene, "new") == ids(scene, "@anna") == []


@pytest.mark.parametrize("typed, right", [("mountian", "mountain"), ("moutain", "mountain"), ("mountaim", "mountain"),
                                          ("ountain", "mountain"), ("sunnset", "sunset")])  # fmt: skip
def test_a_slip_is_forgiven(scene: Scene, typed: str, right: str) -> None:
    scene.photo(1, "anna", title="mountain")
    scene.photo(2, "anna", title="sunset")
    found = scene.do(find, parse_query(typed), None, None, 5)
    assert found.spelt == (right,) and len(found.page.items) == 1
    assert scene.do(find, parse_query("xylophone"), None, None, 5).spelt is None
    assert scene.do(find, parse_query(right), None, None, 5).spelt is None


def test_of_two_corrections_the_more_frequent_one(scene: Scene) -> None:
    scene.photo(1, "anna", title="boats")
    for number in (2, 3):
        scene.photo(number, "anna", title="coats")
    assert scene.do(spelling.spelt_right, "moats") == "coats"


def test_pages_have_each_match_once_beyond_what_is_ranked(scene: Scene) -> None:
    count = RANKED + 30
    for number in range(1, count + 1):
        scene.photo(number, "anna", title="common" if number % 3 else "", caption="common sunny", tags=("all",))
    for query in ("common sunny", "#all", "@anna", "common @anna", "common"):
        pages = all_pages(scene, query, 90)
        found = [photo_id for page in pages for photo_id in page]
        assert sorted(found) == list(range(1, count + 1)), query
        assert all(page for page in pages), query
    # Titles before captions, among the newest.
    assert found[:RANKED] == sorted(found[:RANKED], key=lambda one: (one % 3 == 0, -one))
    assert min(found[:RANKED]) == count - RANKED + 1


def test_what_is_published_meanwhile_shifts_no_page(scene: Scene) -> None:
    for number in range(1, 8):
        scene.photo(number, "anna", tags=("sea",))
    first = scene.do(find, parse_query("#sea"), None, None, 3).page
    scene.photo(100, "anna", tags=("sea",))
    second = scene.do(find, parse_query("#sea"), None, first.next, 3).page
    assert [photo.id for photo in (*first.items, *second.items)] == [7, 6, 5, 4, 3, 2]


def test_matches_are_the_newest_however_far_apart_ids_are(scene: Scene) -> None:
    wanted = [3, 5000, 40_000, 300_000, 3_000_000, 2**40, 2**62]
    for number in wanted:
        scene.photo(number, "anna", tags=("sea",), created_ms=number % 10**12)
    assert ids(scene, "#sea", limit=3) == wanted[:-4:-1]
    assert [one for page in all_pages(scene, "#sea", 2) for one in page] == wanted[::-1]


def test_an_emptied_index_is_filled_again(scene: Scene) -> None:
    scene.photo(1, "anna", title="one", tags=("a", "b"), visibility=Visibility.PRIVATE)
    scene.photo(2, "ben", title="two", latitude=1.0, longitude=2.0)
    for number in (1, 2):
        scene.do(search.remove, number)
    assert ids(scene, "two") == []
    assert scene.do(search.complete) == 2 and scene.do(search.complete) == 0
    assert ids(scene, "two near:1,2") == [2] and ids(scene, "#a #b one", "anna") == [1] and ids(scene, "one") == []


# -- pure parts


@given(st.text(max_size=60))
def test_words_are_words_of_themselves(text: str) -> None:
    words = tokens.words_of(text)
    assert tokens.words_of(" ".join(words)) == words
    assert all(word and not set(word) & set(" #@:_'\"\\") for word in words)


@given(st.dates(datetime.date(1800, 1, 1), datetime.date(2199, 12, 31)), st.dates(), st.dates())
def test_a_period_has_the_marks_of_its_days_alone(
    one: datetime.date, first: datetime.date, last: datetime.date
) -> None:
    epoch = datetime.date(1970, 1, 1)
    marks = tokens.period_marks((first - epoch).days * DAY_MS, (last - epoch).days * DAY_MS)
    inside = bool(set(marks) & set(tokens.day_marks((one - epoch).days * DAY_MS + 1)))
    assert inside == (first <= one < last) and len(marks) <= 200


@given(st.dates(datetime.date(1800, 1, 1), datetime.date(2199, 12, 31)), st.dates(max_value=datetime.date(2150, 1, 1)))
def test_open_periods_are_few_marks(one: datetime.date, edge: datetime.date) -> None:
    marks = set(tokens.day_marks(ms(one)))
    after, before = tokens.period_marks(ms(edge), None), tokens.period_marks(None, ms(edge))
    assert bool(marks & set(after)) == (one >= edge) and bool(marks & set(before)) == (one < edge)
    assert max(len(after), len(before)) <= 100


@given(st.integers(0, 2**40), st.integers(0, 2**30), st.integers(1, 2**62))
def test_blocks_have_all_ids_once_from_the_last_down(first: int, more: int, most: int) -> None:
    found = search.blocks_between(first, first + more, most)
    assert found is not None and len(found) <= search.MAX_BLOCKS
    blocks = [(int(bits), int(number)) for bits, number in (one.removeprefix(":b").split("_") for one in found)]
    ends = [(number + 1) << bits for bits, number in blocks]
    assert first + more < ends[0] <= first + more + (1 << 13)
    assert [number << bits for bits, number in blocks[:-1]] == ends[1:]
    assert blocks[-1][1] << blocks[-1][0] <= first
    assert {bits for bits, _ in blocks[: search.SAME_BLOCKS]} == {13}


def test_a_rarer_word_takes_fewer_blocks() -> None:
    common, rarer, any_ = (search.blocks_between(0, 1_250_000, most) for most in (200_000, 20_000, 2**63))
    assert common is not None and rarer is not None and any_ is not None
    assert (len(rarer), len(common), len(any_)) == (18, 42, 153)
    assert search.blocks_between(0, 2**40, 1) is None


_LATITUDES, _LONGITUDES = st.floats(-90, 90), st.floats(-180, 180)


@given(_LATITUDES, _LONGITUDES, st.floats(0.01, 20_000), st.floats(-1, 1), st.floats(-1, 1))
def test_what_is_near_has_a_mark_of_it(latitude: float, longitude: float, km: float, up: float, right: float) -> None:
    box = tokens.box_around(tokens.Near(latitude, longitude, km))
    width = (box.east - box.west) % 360 if box.east - box.west < 360 else 360.0
    inside = (
        box.south + (up + 1) / 2 * (box.north - box.south),
        (box.west + (right + 1) / 2 * width + 180) % 360 - 180,
    )
    marks = tokens.near_marks(box)
    assert len(marks) <= tokens.MAX_CELLS
    assert not marks or set(marks) & set(tokens.place_marks(*inside))


@given(st.text("abcdeé", min_size=4, max_size=9), st.integers(0, 8), st.sampled_from("abz"))
def test_slips_reach_back(word: str, at: int, letter: str) -> None:
    at %= len(word)
    changed = {word[:at] + word[at + 1 :], word[:at] + letter + word[at:], word[:at] + letter + word[at + 1 :]}
    if at:
        changed.add(word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :])
    assert changed - {word} <= spelling.slips(word)
    assert len(spelling.slips(word)) < 1000
