"""What a camera wrote, as it should be and broken in many ways."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import corners, exif, file_of, opened
from PIL import ExifTags, Image

from frontend.images.decoding import orientation
from frontend.images.exif import MAX_TEXT, parse_time_ms, read_taken
from frontend.images.preparing import prepare
from frontend.images.settings import ImageSettings


def image_with(
    base: dict[int, Any], detail: dict[int, Any] | None = None, gps: dict[int, Any] | None = None
) -> Image.Image:
    found = Image.Exif()
    found.update(base)
    found.get_ifd(ExifTags.IFD.Exif).update(detail or {})
    found.get_ifd(ExifTags.IFD.GPSInfo).update(gps or {})
    return opened(file_of(corners(16, 16), exif=found))


def test_time_place_and_camera() -> None:
    taken = read_taken(
        image_with(
            {
                ExifTags.Base.Make: "Canon",
                ExifTags.Base.Model: "Canon EOS 5D",
                ExifTags.Base.DateTime: "2020:01:01 00:00:00",
            },
            {ExifTags.Base.DateTimeOriginal: "2024:07:31 18:05:59", ExifTags.Base.OffsetTimeOriginal: "+02:00"},
            {1: "S", 2: (33.0, 51.0, 24.0), 3: "W", 4: (70.5,)},
        )
    )
    assert taken.time_ms == 1_722_441_959_000
    assert taken.place is not None
    assert (round(taken.place.latitude, 5), taken.place.longitude) == (-33.85667, -70.5)
    assert taken.camera == "Canon EOS 5D"


@pytest.mark.parametrize(
    ("text", "offset", "milliseconds"),
    [
        ("1970:01:01 00:00:00", "", 0),
        ("1970-01-01T00:00:01", "", 1000),
        ("1969:12:31 23:59:59", "", -1000),
        ("1970:01:01 00:00:00", "-01:30", 5_400_000),
        ("1970:01:01 00:00:00", "nonsense", 0),
        ("0000:00:00 00:00:00", "", None),
        ("2024:13:01 00:00:00", "", None),
        ("2024:02:30 00:00:00", "", None),
        ("2024:01:01 24:00:00", "", None),
        ("1800:01:01 00:00:00", "", None),
        ("    :  :     :  :  ", "", None),
        ("", "", None),
    ],
)
def test_times(text: str, offset: str, milliseconds: int | None) -> None:
    assert parse_time_ms(text, offset) == milliseconds


@given(st.text(max_size=40), st.text(max_size=10))
def test_any_text_is_a_time_or_none(text: str, offset: str) -> None:
    parse_time_ms(text, offset)


@given(st.integers(1826, 9999), st.integers(0, 99), st.integers(0, 99), st.sampled_from("+-"))
def test_any_zone_is_a_time_or_none(year: int, hours: int, minutes: int, sign: str) -> None:
    parse_time_ms(f"{year:04}:12:31 23:59:59", f"{sign}{hours:02}:{minutes:02}")


@pytest.mark.parametrize(
    "gps",
    [
        {2: (91.0, 0.0, 0.0), 4: (1.0, 0.0, 0.0)},
        {2: (1.0, 0.0, 0.0), 4: (181.0, 0.0, 0.0)},
        {2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)},
        {2: (1.0, 0.0, 0.0)},
        {4: (1.0, 0.0, 0.0)},
        {1: "N", 3: "E"},
        {2: (1.0, 2.0, 3.0), 4: 500.0},
        {2: (1.0, 2.0, 3.0, 4.0), 4: (1.0,)},
    ],
)
def test_a_place_that_is_none(gps: dict[int, Any]) -> None:
    assert read_taken(image_with({}, {}, gps)).place is None


def test_long_and_odd_texts_are_cut() -> None:
    taken = read_taken(
        image_with({ExifTags.Base.Make: "M\x00\n\x1b[31m" + "x" * 5000, ExifTags.Base.Model: b"\xff\xfe"})
    )
    assert len(taken.camera) <= MAX_TEXT and taken.camera.isprintable()


@pytest.mark.parametrize("value", (0, 9, 65535))
def test_an_orientation_that_is_none(value: int) -> None:
    assert orientation(image_with({ExifTags.Base.Orientation: value})) == 1


WHOLE = file_of(corners(40, 30), exif=exif(6, place=True, secret="text"))
START = WHOLE.index(b"Exif\0\0") + 6
END = START + int.from_bytes(WHOLE[START - 8 : START - 6], "big") - 8


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(START, END - 1), st.integers(0, 255)), min_size=1, max_size=20))
def test_broken_exif_costs_no_photo(changes: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for at, value in changes:
        data[at] = value
    prepared = prepare(bytes(data), ImageSettings())
    assert {prepared.width, prepared.height} == {40, 30}
    if prepared.taken.place is not None:
        assert abs(prepared.taken.place.latitude) <= 90 and abs(prepared.taken.place.longitude) <= 180


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300))
def test_rubbish_as_exif_costs_no_photo(rubbish: bytes) -> None:
    for head in (b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0", b"Exif\0\0MM\0*\0\0\0\x08"):
        data = file_of(corners(40, 30), exif=head + rubbish)
        prepared = prepare(data, ImageSettings())
        assert {prepared.width, prepared.height} == {40, 30}
