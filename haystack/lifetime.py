"""The life of a node's main process: its parts side by side until it is told to stop, and what the system allows it."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import sys
import threading
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def log_to_stderr() -> None:
    """Log to standard error: standard output belongs to the line that says where the node listens."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=LOG_FORMAT)


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def stop_event(stop: asyncio.Event | None) -> asyncio.Event:
    """``stop``, or a new event, which SIGTERM and SIGINT set from now on when this runs on the main thread."""
    stop = stop or asyncio.Event()
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def run_until(stop: asyncio.Event, parts: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run the parts side by side until ``stop`` is set; raises the error of the first one that fails."""
    stopped = asyncio.create_task(stop.wait())
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        pending: set[asyncio.Task[Any]] = {stopped, *tasks}
        while not stopped.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        await end_tasks((stopped, *tasks))


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until none of them runs any more. How they ended is nobody's business now."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


def raise_file_limit() -> None:
    """Allow as many open files as the system lets us: volumes, indexes and connections all need some."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
