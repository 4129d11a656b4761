"""Runs an intake for tests: ``run_intake.py <settings JSON>``; it can be told to die at a step."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from frontend.images import pool
from frontend.images.preparing import Prepared
from frontend.images.settings import ImageSettings
from frontend.intake import outbox, receiving, server, store, taking
from frontend.intake.settings import IntakeSettings


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(step: str) -> None:
    """Have the process end before or after a call, as ``before write`` says."""
    when, name = step.split()
    cls: Any = store.StoreWriter if name == "write" else pool.ImagePool if name == "prepare" else outbox.Outbox
    usual = getattr(cls, name)

    if asyncio.iscoroutinefunction(usual):

        async def act(*args: Any) -> Any:
            if when == "before":
                die()
            await usual(*args)
            die()

    else:

        def act(*args: Any) -> Any:
            if when == "before":
                die()
            usual(*args)
            die()

    setattr(cls, name, act)


async def prepare_here(self: pool.ImagePool, source: bytes | Path) -> Prepared:
    """Without processes, which take a second to start."""
    return await asyncio.to_thread(pool._prepare, source, self._settings)


def main() -> None:
    given = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO)
    taking.ASKED_AGAIN_SECONDS = 0.05
    if given.pop("here", False):
        pool.ImagePool.prepare = prepare_here  # type: ignore[method-assign]  # for tests
    if window := given.pop("window_seconds", None):
        receiving.Pace.__init__.__kwdefaults__["window_seconds"] = window
    if step := given.pop("die", ""):
        die_at(step)
    images = ImageSettings(**given.pop("images", {}))
    given["data"], given["secret"] = Path(given["data"]), given["secret"].encode()
    given["frontends"] = tuple(given["frontends"])
    server.run(IntakeSettings(host="127.0.0.1", images=images, **given))


if __name__ == "__main__":  # the processes of the pool import this file, too
    main()
