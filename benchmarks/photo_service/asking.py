"""Asks a front end over HTTP, one request at a time or several, and notes how long each answer took."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from benchmarks.client import percentile
from benchmarks.common import CannotMeasure
from benchmarks.photo_service.questions import Kind, Request

TIMEOUT_SECONDS = 120
_EXPECTED = (200, 404)
"""A photo that the one who asks may not see is answered by 404, after the same work."""


@dataclass(slots=True)
class Latencies:
    """How long answers took, and what they were."""

    ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    body_bytes: int = 0

    def percentile(self, percent: float) -> float:
        """In ms."""
        return percentile(self.ms, percent)

    def words(self) -> str:
        """For people."""
        p50, p90, p99 = (self.percentile(percent) for percent in (50, 90, 99))
        answers = ", ".join(f"{count} × {status}" for status, count in sorted(self.statuses.items()) if status != 200)
        size = self.body_bytes / max(1, len(self.ms)) / 1024
        return f"p50 {p50:.1f}, p90 {p90:.1f}, p99 {p99:.1f} ms ({size:.0f} KB{', ' * bool(answers)}{answers})"

    def add(self, other: Latencies) -> None:
        self.ms += other.ms
        self.statuses += other.statuses
        self.body_bytes += other.body_bytes


class Asker:
    """One keep-alive connection to a front end."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_SECONDS)

    def close(self) -> None:
        self._connection.close()

    def prepare(self, request: Request) -> Request:
        """The request for the page of a list that is to be measured: turns the pages before."""
        path = request.path
        for _ in range(request.pages):
            status, body = self._get(Request(path, request.user))
            following = json.loads(body).get("next") if status == 200 else None
            if following is None:
                break
            path = f"{request.path}&cursor={quote(following)}"
        return Request(path, request.user)

    def ask(self, request: Request, found: Latencies) -> None:
        """Note how long an answer takes. Raises CannotMeasure when it is an error."""
        started = time.perf_counter()
        status, body = self._get(request)
        found.ms.append((time.perf_counter() - started) * 1000)
        found.statuses[status] += 1
        found.body_bytes += len(body)
        if status not in _EXPECTED:
            raise CannotMeasure(f"{request.path} was answered {status}: {body[:300]!r}")

    def _get(self, request: Request) -> tuple[int, bytes]:
        self._connection.request("GET", request.path, headers=request.headers)
        response = self._connection.getresponse()
        return response.status, response.read()


def ask_all(url: str, kind: Kind, count: int, at_once: int, seed: int) -> Latencies:
    """Ask for so many requests of a kind, ``at_once`` of them always under way.

    Raises
    ------
    CannotMeasure: an answer is an error.
    """
    dice = random.Random(seed)
    requests = [kind.make(dice) for _ in range(count)]
    found, problems = Latencies(), list[Exception]()
    ready = threading.Barrier(at_once)
    lock = threading.Lock()

    def work(mine: Sequence[Request]) -> None:
        asker, own = Asker(url), Latencies()
        try:
            prepared = [asker.prepare(request) for request in mine]
            ready.wait(TIMEOUT_SECONDS)
            for request in prepared:
                asker.ask(request, own)
        except Exception as error:  # told by the caller
            problems.append(error)
            ready.abort()
        finally:
            asker.close()
        with lock:
            found.add(own)

    threads = [threading.Thread(target=work, args=(requests[first::at_once],)) for first in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for problem in problems:
        if not isinstance(problem, threading.BrokenBarrierError):
            raise CannotMeasure(f"{kind.name}: {problem}") from problem
    return found
