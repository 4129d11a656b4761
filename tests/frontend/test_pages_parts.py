"""Parts of pages that need no server: how things are written, the policy, static files, the map, colours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.database.browsing import Spot
from frontend.database.photos import Photo
from frontend.pages import formatting
from frontend.pages.assets import FOLDER, Assets
from frontend.pages.common import own_path
from frontend.pages.policy import content_security_policy
from frontend.pages.world import MAX_POINTS, clusters_of, land_path
from frontend.visibility import Visibility

NOW_MS = 1_722_449_159_000
STYLE = (FOLDER / "style.css").read_text()
PHOTO = Photo(
    1, 1, "anna", "1,1000000000000000001", "", "", Visibility.PUBLIC, NOW_MS, None, 43.4, 11.8, "", "image/jpeg",
    3, 2, 1, False, (0,), b"", b"", 0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("passed_ms", "words"),
    [
        (-5_000, "just now"),
        (59_999, "just now"),
        (60_000, "1 min ago"),
        (3_600_000, "1 h ago"),
        (86_400_000, "yesterday"),
        (6 * 86_400_000, "6 days ago"),
        (7 * 86_400_000, "24 July 2024"),
    ],
)
def test_ago(passed_ms: int, words: str) -> None:
    assert formatting.ago(NOW_MS - passed_ms, NOW_MS) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0"), (9_999, "9,999"), (12_345, "12.3K"), (20_000, "20K"), (999_999, "999K"), (4_000_000, "4M")],
)
def test_count(number: int, words: str) -> None:
    assert formatting.count(number) == words


def test_what_is_written() -> None:
    assert formatting.counted(1, "photo") == "1 photo" and formatting.counted(0, "reply", "replies") == "0 replies"
    assert formatting.moment(NOW_MS) == "31 July 2024, 18:05"
    assert formatting.machine_time(NOW_MS) == "2024-07-31T18:05:59Z"
    assert formatting.day(-62_135_596_800_001) == "" and formatting.day(2**62) == ""
    assert formatting.size(1) == "1 KB" and formatting.size(4_200_000) == "4.2 MB"
    assert formatting.limit(20 * 2**20) == "20 MiB" and formatting.limit(1_000_000) == "1.0 MB"
    assert formatting.place(-43.46, 11.5) == "43.4600°\u00a0S, 11.5000°\u00a0E"


@given(st.integers(0, 60_000), st.integers(0, 60_000))
def test_each_picture_has_a_class_for_its_shape(width: int, height: int) -> None:
    assert f".{formatting.ratio_class(width, height)} {{ --r:" in STYLE


@given(st.text(min_size=1))
def test_each_name_has_a_colour(name: str) -> None:
    hue = formatting.hue_class(name)
    assert hue == "hue0" or f".{hue} {{ background" in STYLE


def test_a_policy_takes_origins_alone() -> None:
    policy = content_security_policy(["http://b:1", "http://a:1", "http://b:1"], ["https://c"])
    assert "img-src 'self' http://a:1 http://b:1;" in policy and "connect-src 'self' https://c;" in policy
    for wrong in ("*", "http://a; script-src *", "data:", "http://a/path", "'unsafe-inline'", "http://*.a"):
        with pytest.raises(ValueError):
            content_security_policy([wrong])


@given(st.text(max_size=60))
def test_a_path_to_go_back_to_is_on_this_site(text: str) -> None:
    path = own_path(text)
    assert path.startswith("/") and not path.startswith(("//", "/\\")) and "\n" not in path


def test_a_file_that_is_imported_changes_the_name_of_who_imports_it(tmp_path: Path) -> None:
    (tmp_path / "one.js").write_text('import { a } from "./two.js";\n')
    (tmp_path / "two.js").write_text("export const a = 1;\n")
    before = Assets(tmp_path)
    (tmp_path / "two.js").write_text("export const a = 2;\n")
    after = Assets(tmp_path)
    assert before.url("one.js") != after.url("one.js") and before.url("two.js") != after.url("two.js")
    with pytest.raises(KeyError):
        after.url("three.js")


def test_photos_of_one_place_are_one_point() -> None:
    one, other = clusters_of([Spot(1, 43.4, 11.9), Spot(2, 43.6, 11.9), Spot(3, -33.0, -70.0)])
    assert (one.count, one.newest, other.count) == (2, 1, 1)
    assert (other.x, other.y) == (110.0, 123.0) and one.radius > other.radius
    many = [Spot(number, number // 100 * 3.0 - 90, number % 100 * 3.0 - 150) for number in range(3 * MAX_POINTS)]
    points = clusters_of(many)
    assert len(points) == MAX_POINTS and points[0].newest == 0
    numbers = [int(word) for word in re.findall(r"-?\d+", land_path())]
    assert all(0 <= x <= 360 for x in numbers[::2]) and all(0 <= y <= 180 for y in numbers[1::2])


def _colours(part: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", part))


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.03928 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_texts_can_be_read_in_light_and_dark() -> None:
    """WCAG 2.2 AA: 4.5 to 1 for texts, 3 to 1 for the edges of fields."""
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")[:2]
    for colours in (_colours(light), {**_colours(light), **_colours(dark.split("\n}\n")[0])}):
        for ground in ("ground", "sheet", "sunk"):
            for text in ("ink", "soft", "accent", "accent-deep", "bad", "good"):
                assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground, colours)
            assert _contrast(colours["edge"], colours[ground]) >= 3, ground
        for text, ground in (("on-accent", "accent"), ("bad", "bad-ground"), ("good", "good-ground")):
            assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        assert _contrast(colours["heart"], colours["sheet"]) >= 4.5
    for colour in ["#7a4b1c", *re.findall(r"\.hue\d \{ background: (#[0-9a-f]{6})", STYLE)]:
        assert _contrast("#ffffff", colour) >= 4.5


def test_nothing_names_another_host() -> None:
    for folder in (FOLDER, FOLDER.parent / "templates"):
        for path in folder.iterdir():
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            lines = [line for line in text.splitlines() if not line.lstrip().startswith("//")]
            assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]|@import|innerHTML|eval\(", "\n".join(lines)), path
