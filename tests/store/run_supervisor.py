"""Runs a Store's supervisor with timing for tests: ``run_supervisor.py <settings JSON> <timing JSON>``."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from haystack.config import StoreSettings
from haystack.errors import HaystackError
from haystack.lifetime import log_to_stderr
from haystack.store.settings import Timing, WorkerSettings
from haystack.store.supervisor import supervise
from haystack.store.workers import WorkerFds, worker_command


def main() -> None:
    settings, timing = json.loads(sys.argv[1]), json.loads(sys.argv[2])
    standin = settings.pop("standin", None)
    settings["data"] = tuple(map(Path, settings["data"]))
    settings["directories"] = tuple(settings.get("directories", ()))
    if "secret" in settings:
        settings["secret"] = settings["secret"].encode()

    def command(one: WorkerSettings, fds: WorkerFds) -> list[str]:
        usual = worker_command(one, fds)
        return [sys.executable, standin, *usual[4:]] if standin else usual

    log_to_stderr()
    try:
        asyncio.run(supervise(StoreSettings(**settings), timing=Timing(**timing), command=command))
    except HaystackError as error:
        sys.exit(f"haystack: {type(error).__name__}: {error}")


main()
