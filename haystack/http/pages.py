"""The pages of a node about itself, on the data path: alive, ready, figures."""

from __future__ import annotations

import json
from collections.abc import Callable

from haystack.http.connection import HttpConnection
from haystack.http.response import JSON_TYPE, NO_STORE, header_block
from haystack.metrics_page import CONTENT_TYPE

METRICS_TYPE = header_block([("Content-Type", CONTENT_TYPE)]) + NO_STORE


class AboutPages:
    """Answers ``/healthz``, ``/readyz`` and ``/metrics``.

    Parameters
    ----------
    why_not_ready: what keeps the node from serving, in words; None when nothing does.
    metrics: makes the page for Prometheus, the whole node included.
    """

    def __init__(self, why_not_ready: Callable[[], str | None], metrics: Callable[[], bytes]) -> None:
        self._why_not_ready = why_not_ready
        self._metrics = metrics
        self._pages = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics_page}

    def answer(self, connection: HttpConnection, path: str) -> bool:
        """Answer a GET or HEAD, if its path is one of the pages."""
        page = self._pages.get(path)
        if page is None:
            return False
        page(connection)
        return True

    def _healthz(self, connection: HttpConnection) -> None:
        respond_json(connection, 200, {"status": "alive"})

    def _readyz(self, connection: HttpConnection) -> None:
        why = self._why_not_ready()
        if why is None:
            respond_json(connection, 200, {"status": "ready"})
        else:
            respond_json(connection, 503, {"error": why})

    def _metrics_page(self, connection: HttpConnection) -> None:
        connection.respond(200, METRICS_TYPE, self._metrics())


def respond_json(connection: HttpConnection, status: int, content: object) -> None:
    """Answer with JSON, which no proxy may keep."""
    connection.respond(status, JSON_TYPE + NO_STORE, json.dumps(content, ensure_ascii=False).encode() + b"\n")
