"""Which racks and data centers the Stores of `haystack up` play."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directory.decisions.replication import Site, parse_replication
from haystack.config import UpSettings
from haystack.errors import ConfigError, FolderError
from tools.layout import Layout, Place, check_count, make_layout
from tools.updir import UpFolder

REPLICATIONS = st.tuples(*[st.integers(0, 3)] * 3).map(lambda digits: "".join(map(str, digits)))


@pytest.mark.parametrize(
    ("replication", "places"),
    [
        ("000", [("default", "default")]),
        ("001", [("default", "default")] * 2),
        ("010", [("default", "rack1"), ("default", "rack2")]),
        ("100", [("dc1", "rack1"), ("dc2", "rack2")]),
        ("011", [("default", "rack1"), ("default", "rack2"), ("default", "rack1")]),
        ("110", [("dc1", "rack1"), ("dc2", "rack2"), ("dc1", "rack3")]),
    ],
)
def test_places_are_chosen_for_the_replication(replication: str, places: list[tuple[str, str]]) -> None:
    layout = make_layout(replication, None, None)
    assert layout.least_stores() == len(places)
    assert [layout.place(number) for number in range(1, len(places) + 1)] == [Place(*one) for one in places]


@pytest.mark.parametrize(
    ("replication", "stores", "centers", "racks"),
    [("001", 5, 1, 1), ("010", 3, 1, 3), ("100", 3, 3, 3), ("011", 5, 1, 2), ("011", 6, 1, 3), ("110", 6, 3, 6)],
)
def test_stores_are_spread_so_that_none_is_in_all_volumes(
    replication: str, stores: int, centers: int, racks: int
) -> None:
    assert make_layout(replication, None, None, stores) == Layout(replication, centers, racks)


@given(REPLICATIONS, st.integers(1, 64))
def test_any_number_that_is_enough_is_spread(replication: str, stores: int) -> None:
    least = make_layout(replication, None, None).least_stores()
    assert least is not None
    if stores >= least:
        check_count(make_layout(replication, None, None, stores), stores)


def test_racks_and_data_centers_as_asked() -> None:
    layout = make_layout("011", 2, 3)
    assert [layout.place(number) for number in range(1, 6)] == [
        Place("dc1", "rack1"),
        Place("dc2", "rack2"),
        Place("dc1", "rack3"),
        Place("dc1", "rack1"),
        Place("dc2", "rack2"),
    ]
    check_count(layout, 5)


@given(REPLICATIONS)
def test_the_least_number_is_enough_and_one_less_is_not(replication: str) -> None:
    layout = make_layout(replication, None, None)
    least = layout.least_stores()
    assert least is not None
    check_count(layout, least)
    promise = parse_replication(replication)
    sites = []
    for number in range(least):
        place = layout.place(number + 1)
        sites.append(Site(str(number), place.data_center, place.rack))
    assert promise.kept(sites) == promise.copies
    if least > 1:
        with pytest.raises(ConfigError, match=f"at least {least} Stores, and there would be {least - 1}"):
            check_count(layout, least - 1)


@pytest.mark.parametrize(
    ("replication", "centers", "racks", "message"),
    [
        ("100", 1, None, "100 .*is not possible with 1 data centers and 1 racks"),
        ("010", None, 1, "not possible"),
        ("000", 3, 2, "2 racks cannot be in 3 data centers; give --racks 3"),
    ],
)
def test_what_cannot_be(replication: str, centers: int | None, racks: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_layout(replication, centers, racks)


class TestRemembered:
    def layout(self, folder: Path, **settings: object) -> Layout:
        with UpFolder(folder, note=print) as up:
            layout = up.layout(UpSettings(data=folder, **settings))  # type: ignore[arg-type]  # any setting
            up.write_layout(layout)
            return layout

    def test_it_stays_until_another_is_asked_for(self, tmp_path: Path) -> None:
        assert self.layout(tmp_path) == Layout("000", 1, 1)
        assert self.layout(tmp_path, replication="010") == Layout("010", 1, 2)
        assert self.layout(tmp_path) == Layout("010", 1, 2)
        # Stores do not move while they need not.
        assert self.layout(tmp_path, replication="000") == Layout("000", 1, 2)
        assert self.layout(tmp_path, replication="100") == Layout("100", 2, 2)
        assert self.layout(tmp_path, racks=3, data_centers=2) == Layout("100", 2, 3)

    def test_as_many_stores_as_are_needed(self, tmp_path: Path) -> None:
        with UpFolder(tmp_path, note=print) as up:
            assert up.store_count(None, 3) == 3
            (tmp_path / "store4").mkdir()
            assert up.store_count(None, 3) == 4
            assert up.store_count(5, 3) == 5

    @pytest.mark.parametrize("text", ["", "[]", '{"replication": "9", "racks": 1, "data_centers": 1}', "{}"])
    def test_damage_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "layout.json").write_text(text)
        with pytest.raises(FolderError, match=r"layout\.json: cannot be used: .*; remove it, and give --replication"):
            self.layout(tmp_path)
