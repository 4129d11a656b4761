"""Names that cannot lead elsewhere, and files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from haystack.errors import InvalidRequest
from tools.exporter import ListedNeedle, NeedleExport, names_for
from tools.files import (
    MAX_NAME_BYTES,
    FileExists,
    NewFile,
    file_digest,
    inside,
    safe_name,
    with_suffix_before_extension,
)
from tools.walk import Found, Unreadable, walk


@given(st.text(max_size=400), st.sampled_from(["", "../", "/etc/", "C:\\x\\", "a/b/"]))
def test_any_stored_name_becomes_a_plain_file_name(text: str, prefix: str) -> None:
    name = safe_name(prefix + text, "fallback")
    assert "/" not in name and "\0" not in name and name not in ("", ".", "..")
    assert not name.startswith(".") and name.isprintable()
    assert len(os.fsencode(name)) <= MAX_NAME_BYTES
    longer = with_suffix_before_extension(name, "~1f5a_3")
    assert len(os.fsencode(longer)) <= 255 and longer != name


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("cat.jpg", "cat.jpg"),
        ("Kätzchen 1.jpg", "Kätzchen 1.jpg"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        (".bashrc", "_bashrc"),
        ("..", "x.jpg"),
        ("///", "x.jpg"),
        ("", "x.jpg"),
        ("a\nb\x1b[31m.jpg", "a_b_[31m.jpg"),
        ("ä" * 300 + ".jpeg", "ä" * 97 + ".jpeg"),
    ],
)
def test_safe_names(stored: str, name: str) -> None:
    assert safe_name(stored, "x.jpg") == name


def test_names_of_needles() -> None:
    needle = ListedNeedle("3,1f5a00000000deadbeef_2", 1, "../cat.jpg", "image/jpeg", 0)
    assert names_for(needle) == ["3/cat.jpg", "3/cat~1f5a_2.jpg"]
    unnamed = ListedNeedle("3,1f5a00000000deadbeef", 1, "", "image/png", 0)
    assert names_for(unnamed) == ["3/1f5a.png", "3/1f5a~1f5a.png"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
async def test_a_killed_export_finds_its_files_again(tmp_path: Path, order: tuple[int, ...]) -> None:
    """None of them was written down; each is found whichever comes first, and no copy is made."""
    needles = [ListedNeedle(f"3,{number}0000000000000001", 1, "cat.jpg", "", 0) for number in (1, 2, 3)]

    async def export(numbers: tuple[int, ...]) -> list[str]:
        exports = NeedleExport(None)
        return [await export_one(exports, number) for number in numbers]

    async def export_one(exports: NeedleExport, number: int) -> str:
        with NewFile(tmp_path) as file:
            file.write(b"%d" % number)
            return await exports.place(file, needles[number], tmp_path)

    made = await export((0, 1, 2))
    assert made == ["3/cat.jpg", "3/cat~2.jpg", "3/cat~3.jpg"]
    assert await export(order) == [made[number] for number in order]
    assert len(list((tmp_path / "3").iterdir())) == 3


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a//b", "", ".", "a/.", "a\0b"])
def test_paths_stay_inside(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidRequest, match="not a path below"):
        inside(tmp_path, path)


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    with pytest.raises(InvalidRequest, match="symbolic link leads out"):
        inside(root, "link/new/x")
    assert list(outside.iterdir()) == []
    (root / "inner").mkdir()
    (root / "good").symlink_to(root / "inner")
    assert inside(root, "good/deep/x") == root / "good/deep/x"
    assert (root / "inner/deep").is_dir()


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "x"
    with NewFile(tmp_path) as file:
        file.write(b"half")
        assert not target.exists()
    assert list(tmp_path.iterdir()) == []
    with NewFile(tmp_path) as file:
        file.write(b"one ")
        file.write(b"two")
        file.place(target, mtime_ns=1_700_000_000_123_456_789)
        assert (file.size_bytes, file.digest) == (7, xxhash.xxh3_64_hexdigest(b"one two"))
    assert target.read_bytes() == b"one two"
    assert target.stat().st_mtime_ns == 1_700_000_000_123_456_789
    assert target.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert file_digest(target) == file.digest
    assert list(tmp_path.iterdir()) == [target]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_nothing_is_replaced_without_force(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"old")
    with NewFile(tmp_path) as file, pytest.raises(FileExists, match="--force"):
        file.place(target)
    assert target.read_bytes() == b"old"
    with NewFile(tmp_path) as file:
        file.write(b"new")
        file.place(target, force=True)
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_file_systems_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with NewFile(tmp_path) as file:
        file.place(tmp_path / "x")
    with NewFile(tmp_path) as file, pytest.raises(FileExists):
        file.place(tmp_path / "x")
    assert [one.name for one in tmp_path.iterdir()] == ["x"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        NewFile(tmp_path / "no")
    assert caught.value.filename == str(tmp_path / "no")


def test_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b/2", "b/c/3", "a/1", "z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * len(name))
    (tmp_path / "b/loop").symlink_to(tmp_path)
    (tmp_path / "b/link").symlink_to(tmp_path / "z")
    (tmp_path / "b/broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "b/self").symlink_to(tmp_path / "b/self")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = list(walk(tmp_path))
    assert [one.path for one in found] == ["a/1", "b/2", "b/c/3", "b/link", "b/self", "closed", "z"]
    assert [one for one in found if isinstance(one, Unreadable)] == [
        Unreadable("b/self", "Too many levels of symbolic links"),
        Unreadable("closed", "Permission denied"),
    ]
    first = found[0]
    assert isinstance(first, Found) and first.size_bytes == 3
    assert first.mtime_ns == (tmp_path / "a/1").stat().st_mtime_ns
