"""Child processes: ready lines, failures with their reason, stopping, killing, and no orphans."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tools.children import LAST_LINES, MAX_LINE_BYTES, Child, ChildFailed, Ready, describe_exit, parse_ready

STANDIN = Path(__file__).with_name("standin.py")


def argv(folder: Path, name: str, *behaviours: str) -> list[str]:
    return [sys.executable, str(STANDIN), name, str(folder), *behaviours]


def make(lines: list[str], name: str = "store1") -> Child:
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return Child(name, lambda _, line: lines.append(line), pass_fds=(), environ=environ)


@pytest.fixture
async def child(lines: list[str]) -> AsyncIterator[Child]:
    child = make(lines)
    yield child
    await child.kill()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.mark.parametrize(
    ("line", "ready"),
    [
        (
            "store: listening on http://h:8080, admin http://h:18080, data in /a, /b",
            Ready("http://h:8080", "http://h:18080", "/a, /b"),
        ),
        ("directory: listening on http://[::1]:9333, data in x y", Ready("http://[::1]:9333", None, "x y")),
        ("listening on http://h:1, data in x", None),
        ("store: listening on h:1, data in x", None),
        ("store: listening on http://h:1", None),
        ("", None),
    ],
)
def test_ready_lines(line: str, ready: Ready | None) -> None:
    assert parse_ready(line) == ready


async def test_start_and_stop(child: Child, lines: list[str], tmp_path: Path) -> None:
    ready = await child.start(argv(tmp_path, "store1"), 30)
    assert ready == Ready("http://0.0.0.0:1", "http://127.0.0.1:2", f"{tmp_path}, and more")
    assert child.pid is not None
    assert await child.stop(30)
    assert await child.wait() == 0
    assert child.pid is None
    assert lines == ["serving"]
    assert "store1 stopping" in (tmp_path / "journal").read_text()


async def test_one_that_ends_tells_why(child: Child, tmp_path: Path) -> None:
    with pytest.raises(ChildFailed) as caught:
        await child.start(argv(tmp_path, "store1", "fail"), 30)
    assert str(caught.value) == (
        "store1 did not start: it ended with exit code 3; it said: store1: port 8080 is in use"
    )


async def test_one_that_says_nothing(child: Child) -> None:
    with pytest.raises(ChildFailed, match="exit code 7; it said nothing"):
        await child.start([sys.executable, "-c", "raise SystemExit(7)"], 30)


async def test_the_last_words_are_never_lost(child: Child) -> None:
    code = "import os; os.write(1, b'a\\nb\\nc\\nTraceback\\nValueError: last words'); os.kill(os.getpid(), 9)"
    with pytest.raises(ChildFailed, match="killed by SIGKILL; it said: c / Traceback / ValueError: last words"):
        await child.start([sys.executable, "-c", code], 30)


async def test_one_that_is_never_ready_is_killed(child: Child, tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match=r"not ready within 0.5 s and was killed"):
        await child.start(argv(tmp_path, "store1", "silent"), 0.5)
    assert child.pid is None


async def test_one_that_does_not_exist(child: Child) -> None:
    with pytest.raises(ChildFailed, match=r"store1 cannot be started: /nowhere: No such file"):
        await child.start(["/nowhere"], 30)
    assert await child.stop(1)


async def test_a_deaf_one_and_its_worker_are_killed(child: Child, tmp_path: Path) -> None:
    await child.start(argv(tmp_path, "store1", "deaf", "worker"), 30)
    assert child.pid is not None
    group = child.pid
    assert not await child.stop(0.3)
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


async def test_stopping_waits_for_workers(child: Child, tmp_path: Path) -> None:
    await child.start(argv(tmp_path, "store1", "worker"), 30)
    group = child.pid
    assert group is not None
    assert not await child.stop(0.3)  # the leader obeys, its worker is deaf
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


async def test_long_output_is_cut_and_bounded(child: Child, lines: list[str], tmp_path: Path) -> None:
    await child.start(argv(tmp_path, "store1", "flood"), 30)
    await child.stop(30)
    assert max(map(len, lines)) <= MAX_LINE_BYTES
    assert sum(line.count("x") for line in lines) == 1_000_000
    assert lines.count("y") == 1000
    assert len(child._last_lines) <= LAST_LINES


async def test_it_can_start_again(child: Child, tmp_path: Path) -> None:
    for _ in range(3):
        await child.start(argv(tmp_path, "store1"), 30)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL
        await child.group_gone(30)
    assert (tmp_path / "journal").read_text().count("started") == 3


async def test_it_leads_its_own_session(child: Child, tmp_path: Path) -> None:
    await child.start(argv(tmp_path, "store1"), 30)
    assert child.pid is not None
    assert os.getsid(child.pid) == child.pid != os.getsid(0)


def test_a_killed_parent_leaves_no_orphan(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from tools.children import Child\n"
        "async def main():\n"
        "    child = Child('store1', lambda *_: None, pass_fds=(), environ={})\n"
        f"    await child.start([sys.executable, {str(STANDIN)!r}, 'store1', {str(tmp_path)!r}], 30)\n"
        "    print(child.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pidfd = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    try:
        wait_for_end(pidfd)
    finally:
        os.close(pidfd)
    assert "store1 stopping" in (tmp_path / "journal").read_text()


def wait_for_end(pidfd: int) -> None:
    import select

    ready, _, _ = select.select([pidfd], [], [], 30)
    assert ready, "the process is still there"


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "it ended with exit code 0"), (-9, "it was killed by SIGKILL"), (-200, "it was killed by signal 200")],
)
def test_exits_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words


async def test_starting_does_not_block_the_loop(child: Child, tmp_path: Path) -> None:
    started = time.monotonic()
    task = asyncio.create_task(child.start(argv(tmp_path, "store1", "silent"), 30))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert time.monotonic() - started < 5
    task.cancel()
    await asyncio.wait((task,))
