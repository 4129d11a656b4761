"""A Directory that stops at named moments of a move, for tests that kill somebody just then.

It is the real command in a process of its own; only some of its calls wait. The folder ``MOVE_PAUSES`` says where: the
file ``at`` names the moment (``MOMENTS`` in cluster_moves.py), ``reached`` is written when it has come, and when ``go``
is there it goes on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from directory.cluster.store_client import StoreClient
from directory.decisions.repair_views import Action
from directory.membership.memberships import Memberships
from directory.moves import mover
from directory.repair import steps
from tools.cli import main

POLL_SECONDS = 0.01

_FOLDER = Path(os.environ["MOVE_PAUSES"])


async def pause(moment: str) -> None:
    at, reached, go = (_FOLDER / name for name in ("at", "reached", "go"))
    if at.exists() and at.read_text() == moment:
        reached.write_text(moment)
        while at.exists() and not go.exists():  # noqa: ASYNC110 - it is another process that makes the file
            await asyncio.sleep(POLL_SECONDS)


def _paused(
    call: Callable[..., Awaitable[Any]], before: Callable[..., str] | None, after: Callable[..., str] | None
) -> Any:
    async def run(*given: Any, **named: Any) -> Any:
        if before is not None:
            await pause(before(*given))
        result = await call(*given, **named)
        if after is not None:
            await pause(after(result))
        return result

    return run


def _moment_of(_: object, progress: steps.Progress) -> str:
    names = {Action.COPY: "ordered", Action.GIVE_UP: "counted", Action.DELETE: "to be deleted"}
    return names.get(progress.step.action, "") if progress.step.move else ""


def _copying(state: Any) -> str:
    return "copying" if state.state == "running" and 0 < state.copied_bytes < state.total_bytes else ""


steps.StepRunner.do = _paused(steps.StepRunner.do, _moment_of, None)  # type: ignore[method-assign]  # it is the point
StoreClient.follow = _paused(StoreClient.follow, None, _copying)  # type: ignore[method-assign]  # as above
StoreClient.admit = _paused(  # type: ignore[method-assign]  # as above
    StoreClient.admit, lambda *_: "copied", lambda _: "waited for"
)
Memberships.give_up = _paused(  # type: ignore[method-assign]  # as above
    Memberships.give_up, None, lambda _: "switched"
)
StoreClient.delete_volume = _paused(  # type: ignore[method-assign]  # as above
    StoreClient.delete_volume, None, lambda _: "deleted"
)
mover.Mover._end = _paused(mover.Mover._end, lambda *_: "over", None)  # type: ignore[method-assign]  # as above

if __name__ == "__main__":
    main()
