"""fdatasync of several files at once: each file has its own result, whatever way it was synced."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from haystack.volume import syncs as syncs_module
from haystack.volume.syncs import MAX_AT_ONCE, KernelSyncs, Syncs


@pytest.fixture(params=["kernel", "threads"])
def syncs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Syncs]:
    if request.param == "threads":

        def refuse() -> KernelSyncs:
            raise OSError(errno.ENOSYS, "io_setup")

        monkeypatch.setattr(syncs_module, "KernelSyncs", refuse)
    syncs = Syncs()
    yield syncs
    syncs.close()


@pytest.fixture
def fds(tmp_path: Path) -> Iterator[list[int]]:
    fds = [os.open(tmp_path / f"{number}", os.O_RDWR | os.O_CREAT) for number in range(9)]
    for fd in fds:
        os.write(fd, b"photo")
    yield fds
    for fd in fds:
        os.close(fd)


def test_syncs_of_several_files(syncs: Syncs, fds: list[int]) -> None:
    assert syncs.sync([]) == []
    for count in (1, 2, 9):
        assert syncs.sync(fds[:count]) == [0] * count


def test_syncs_more_files_than_one_submission_names(syncs: Syncs, fds: list[int]) -> None:
    many = (fds * MAX_AT_ONCE)[: 2 * MAX_AT_ONCE + 3]
    assert syncs.sync(many) == [0] * len(many)


@pytest.mark.parametrize("place", [0, 1, 4])
def test_syncs_failure_of_one_file_is_its_own(syncs: Syncs, fds: list[int], place: int) -> None:
    reader, writer = os.pipe()
    try:
        found = syncs.sync([*fds[:place], writer, *fds[place:5]])
    finally:
        os.close(reader)
        os.close(writer)
    assert found == [errno.EINVAL if index == place else 0 for index in range(6)]
    assert syncs.sync([*fds[:3], writer]) == [0, 0, 0, errno.EBADF]
    assert syncs.sync(fds) == [0] * 9


def test_syncs_for_several_threads_at_once(syncs: Syncs, fds: list[int]) -> None:
    found: list[list[int]] = []

    def work(own: list[int]) -> None:
        for _ in range(20):
            found.append(syncs.sync(own))

    threads = [threading.Thread(target=work, args=(fds[start : start + 3],)) for start in (0, 3, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[0, 0, 0]] * 60


def test_syncs_of_the_kernel_work_here(fds: list[int]) -> None:
    """Not only their replacement: otherwise the tests above would test one way twice."""
    kernel = KernelSyncs()
    assert kernel.sync(fds) == [0] * 9
    kernel.close()
