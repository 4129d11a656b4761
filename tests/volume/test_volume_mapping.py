"""Views into the page cache: only what is resident, never a SIGBUS, valid as long as they are held."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from haystack.volume import mapping
from haystack.volume.mapping import AHEAD_BYTES, MAX_PAGES, PAGE_BYTES, VolumeMap

CONTENT = bytes(range(256)) * 4096  # 1 MiB


class Opened:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDWR)
        self.map = VolumeMap(self.fd)

    def drop(self) -> None:
        """Have the kernel forget the file's pages."""
        os.fsync(self.fd)
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    path = tmp_path / "1.vol"
    path.write_bytes(CONTENT)
    each = Opened(path)
    yield each
    os.close(each.fd)


@pytest.mark.parametrize("offset", [0, 1, 4095, 4096, 5000, len(CONTENT) - 10])
@pytest.mark.parametrize("size", [0, 1, 10, 4096, 9000])
def test_mapping_gives_the_bytes(opened: Opened, offset: int, size: int) -> None:
    size = min(size, len(CONTENT) - offset)
    assert opened.map.view(offset, size) == CONTENT[offset : offset + size]


def test_mapping_gives_no_page_that_is_not_resident(opened: Opened) -> None:
    assert opened.map.view(0, len(CONTENT)) == CONTENT
    del_view = opened.map.view(0, 8)
    del del_view
    # Pages that are mapped into a process are not dropped, so a fresh map is asked.
    opened.map = VolumeMap(opened.fd)
    opened.drop()
    if opened.map.view(0, len(CONTENT)) is not None:
        pytest.skip("this filesystem keeps its pages")  # tmpfs
    assert opened.map.view(PAGE_BYTES * 7, 100) is None
    os.pread(opened.fd, PAGE_BYTES, PAGE_BYTES * 200)
    assert opened.map.view(PAGE_BYTES * 200, PAGE_BYTES) == CONTENT[PAGE_BYTES * 200 :][:PAGE_BYTES]
    assert opened.map.view(0, len(CONTENT)) is None  # only some of it


def test_mapping_of_a_truncated_file_gives_none_instead_of_a_signal(opened: Opened) -> None:
    assert opened.map.view(0, len(CONTENT)) is not None
    os.ftruncate(opened.fd, PAGE_BYTES * 3)
    assert opened.map.view(PAGE_BYTES * 2, PAGE_BYTES) == CONTENT[PAGE_BYTES * 2 : PAGE_BYTES * 3]
    for offset, size in ((PAGE_BYTES * 3, 1), (PAGE_BYTES * 2, PAGE_BYTES + 1), (len(CONTENT) - 10, 10)):
        assert opened.map.view(offset, size) is None
    os.ftruncate(opened.fd, 100)
    assert opened.map.view(0, 200) is None
    assert opened.map.view(0, 100) == CONTENT[:100]


def test_mapping_shows_what_is_appended_at_once(opened: Opened) -> None:
    assert opened.map.view(len(CONTENT) - 5, 6) is None
    for number in range(300):
        size = opened.path.stat().st_size
        piece = b"%d" % number * 1000
        assert opened.map.view(size, len(piece)) is None
        with opened.path.open("ab") as file:
            file.write(piece)
        assert opened.map.view(size, len(piece)) == piece
        assert opened.map.view(size, len(piece) + 1) is None
    assert maps_of(opened.path) == 1


def test_mapping_follows_a_growing_file_and_old_views_stay_valid(opened: Opened) -> None:
    old = opened.map.view(100, 1000)
    assert old is not None
    end = opened.path.stat().st_size + 2 * AHEAD_BYTES
    os.pwrite(opened.fd, b"the end", end)
    assert opened.map.view(end, 7) == b"the end"
    assert opened.map.view(end, 8) is None
    assert old == CONTENT[100:1100]
    assert old.readonly
    assert maps_of(opened.path) == 2
    del old
    assert maps_of(opened.path) == 1


def test_mapping_that_was_released_lasts_as_long_as_its_views(opened: Opened) -> None:
    view = opened.map.view(100, 1000)
    opened.map.release()
    assert opened.map.view(100, 1000) is None
    assert opened.map.in_use
    assert view == CONTENT[100:1100]
    del view
    assert not opened.map.in_use
    assert maps_of(opened.path) == 0


def test_mapping_does_without_space_ahead(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "AHEAD_BYTES", 2**60)  # more than there are addresses
    assert opened.map.view(100, 1000) == CONTENT[100:1100]
    assert opened.map.covers(len(CONTENT)) and not opened.map.covers(len(CONTENT) + 1)
    monkeypatch.setattr(mapping, "_map", lambda fd, size_bytes: None)
    os.pwrite(opened.fd, b"more", len(CONTENT))
    assert opened.map.view(len(CONTENT), 4) is None


def maps_of(path: Path) -> int:
    return sum(str(path) in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_mapping_has_a_largest_view(opened: Opened) -> None:
    os.ftruncate(opened.fd, PAGE_BYTES * (MAX_PAGES + 2))
    opened.map = VolumeMap(opened.fd)
    assert not opened.map.resident(0, PAGE_BYTES * MAX_PAGES + 1)


def test_mapping_is_not_believed_where_the_kernel_will_not_tell(tmp_path: Path) -> None:
    """Of a file that one neither owns nor may write, mincore says that every page is there."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    path = tmp_path / "1.vol"
    path.write_bytes(CONTENT)
    path.chmod(0o644)
    code = (
        "import os, sys; from haystack.volume.mapping import VolumeMap; fd = os.open(sys.argv[1], os.O_RDONLY); "
        "os.setuid(65534); print(VolumeMap(fd).view(0, 100))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=30)
    assert done.stdout == "None\n", done.stderr
