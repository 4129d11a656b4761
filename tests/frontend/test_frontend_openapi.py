"""The OpenAPI document is right, and the API keeps to it: requests made from it, odd ones too, find no 5xx and no
answer outside the schema.

More of them: ``HAYSTACK_SCHEMA_EXAMPLES=200 pytest tests/frontend/test_frontend_openapi.py``.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from api_checks import CHECKS
from hypothesis import HealthCheck, Phase, settings
from site_harness import PASSWORD, running

from frontend.api.calls import CALLS
from frontend.api.openapi import document
from frontend.api.table import PREFIX

EXAMPLES = int(os.environ.get("HAYSTACK_SCHEMA_EXAMPLES", "8"))

schema = schemathesis.openapi.from_dict(document())


class Served:
    """A front end on a thread of its own: what makes the requests has no event loop."""

    def __init__(self, folder: Path) -> None:
        self.url = ""
        self.token = ""
        self.photo = ""
        self._folder = folder
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()))

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(30)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        self._loop.close()

    async def _run(self) -> None:
        async with running(self._folder) as place:
            alice = await place.person("alice")
            await place.person("bob")
            self.photo = (await alice.upload(b"photo", title="beach"))["id"]
            self.token = alice.headers["Authorization"]
            self.url = place.api
            self._ready.set()
            await self._stop.wait()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    one = Served(tmp_path_factory.mktemp("site"))
    one.start()
    yield one
    one.stop()


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == 8,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_api_keeps_to_its_document(case: Any, served: Served) -> None:
    if case.operation.definition.raw["operationId"] in ("changePassword", "deleteToken", "logOut"):
        case.headers = {**(case.headers or {})}
    else:
        case.headers = {**(case.headers or {}), "Authorization": served.token}
    # Names of somebody and something that there is, half of the time.
    if case.path_parameters and case.path_parameters.get("username", "x")[0] in "abcdefghijklm":
        case.path_parameters["username"] = "bob"
    if case.path_parameters and case.path_parameters.get("photo", "f")[0] in "01234567":
        case.path_parameters["photo"] = served.photo
    case.call_and_validate(base_url=served.url, checks=CHECKS, allow_redirects=False, timeout=10)


def test_every_call_is_in_the_document_once() -> None:
    found = [
        (method.upper(), path, operation["operationId"])
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    ]
    assert sorted(found) == sorted((call.method, call.path, call.name) for call in CALLS)
    assert len({name for _, _, name in found}) == len(found)


def test_the_calls_of_the_notes_are_there() -> None:
    names = {call.name for call in CALLS}
    assert {"uploadPhoto", "getPhoto", "downloadPhoto", "searchPhotos", "followUser", "getTopPhotos"} <= names


def test_it_is_served_as_it_is(served: Served) -> None:
    answer = requests.get(f"{served.url}/openapi.json", timeout=10)
    assert answer.json() == document() and answer.json()["openapi"] == "3.1.0"
    assert answer.json()["servers"] == [{"url": PREFIX}]


def test_who_sends_a_wrong_token_learns_it(served: Served) -> None:
    answer = requests.get(f"{served.url}/me", headers={"Authorization": "Bearer hst_x"}, timeout=10)
    assert answer.status_code == 401 and answer.headers["WWW-Authenticate"].startswith("Bearer")
    login = {"login": "bob", "password": PASSWORD, "name": "x"}
    assert requests.post(f"{served.url}/tokens", json=login, timeout=10).status_code == 201
