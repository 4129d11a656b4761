"""The photo service's API as a whole `haystack up` serves it, asked with requests made of its own OpenAPI document: no
5xx, no answer outside the document, whoever asks. The same for the calls of the intake, which tickets are for.

``pytest tests/campaigns/test_photo_api.py --examples 100``; a request that fails is printed as a curl command.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection

sys.path.insert(0, str(Path(__file__).parents[1] / "frontend"))

from api_checks import CHECKS
from pictures import file_of, noise
from real_cluster import haystack_up

from frontend.api.calls import CALLS
from frontend.api.table import Who

pytestmark = pytest.mark.timeout(1800)

PASSWORD = "correct horse battery"
SECONDS = 20
WAYS = ("token", "session", "nobody", "wrong token")
ENDS_SOMETHING = ("deletePhoto", "changePassword", "logOut", "deleteToken")
"""Calls that spoil what others ask for: they get people of their own."""


@dataclass
class Asker:
    """How somebody asks, and what there is to ask for: the session has what says who he is."""

    session: requests.Session
    known: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Served:
    """A cluster, and people in it."""

    site: str
    api: str
    schema: Any
    names: Iterator[int]
    askers: dict[str, Asker] = field(default_factory=dict)

    def person(self, **known: list[str]) -> tuple[str, str]:
        """Name and API token of somebody new."""
        name = f"person{next(self.names)}"
        login = {"login": name, "password": PASSWORD, "name": "t"}
        self._ok(requests.post(f"{self.api}/users", json={"username": name, "password": PASSWORD}, timeout=SECONDS))
        made = self._ok(requests.post(f"{self.api}/tokens", json=login, timeout=SECONDS))
        return name, str(made.json()["token"])

    def upload(self, token: str, data: bytes, **fields: str) -> str:
        """The id of a photo that was uploaded."""
        answer = requests.post(
            f"{self.api}/photos",
            data=fields,
            files={"file": ("a.jpg", data, "image/jpeg")},
            headers={"Authorization": f"Bearer {token}"},
            timeout=SECONDS,
        )
        return str(self._ok(answer).json()["id"])

    def asker(self, way: str, call: str) -> Asker:
        """Who asks in a way; one asks for most calls."""
        if call in ENDS_SOMETHING:
            return self._asker(way, photos=20 if call == "deletePhoto" else 1)
        if way not in self.askers:
            self.askers[way] = self._asker(way, photos=2)
        return self.askers[way]

    def _asker(self, way: str, photos: int) -> Asker:
        """Somebody who asks in a way, and what is his and others' for him to ask for."""
        owner, owner_token = self.person()
        other, other_token = self.person()
        mine = [self.upload(owner_token, PICTURE, title="mine", tags="beach") for _ in range(photos)]
        others = [
            self.upload(other_token, PICTURE, visibility=one, title=f"{one} one")
            for one in ("public", "followers", "private")
        ]
        comments = [str(self._ok(self._comment(photo, owner_token)).json()["id"]) for photo in (mine[0], others[0]) * 3]
        session = requests.Session()
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))  # logging in changes nothing of who asks
        if way == "session":
            login = {"login": owner, "password": PASSWORD}
            begun = self._ok(session.post(f"{self.api}/sessions", json=login, timeout=SECONDS))
            session.headers["X-CSRF-Token"] = begun.json()["csrfToken"]
            session.headers["Cookie"] = begun.headers["Set-Cookie"].partition(";")[0]
        elif way != "nobody":
            session.headers["Authorization"] = f"Bearer {owner_token if way == 'token' else 'hst_' + 'A' * 43}"
        known = {"photo": [*mine, *others], "username": [owner, other], "comment": comments}
        return Asker(session, known)

    def _comment(self, photo: str, token: str) -> requests.Response:
        return requests.post(
            f"{self.api}/photos/{photo}/comments",
            json={"text": "hm"},
            headers={"Authorization": f"Bearer {token}"},
            timeout=SECONDS,
        )

    @staticmethod
    def _ok(answer: requests.Response) -> requests.Response:
        assert answer.status_code < 300, answer.text
        return answer


PICTURE = file_of(noise(60, 40))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("api")
    config = folder / "config.toml"
    config.write_text('[frontend]\nrate_limits = "off"\n')  # else there is nothing but 429
    arguments = ("--config", str(config), "--stores", "1", "--workers", "1", "--cache-memory", "128MiB")
    with haystack_up(folder, *arguments) as told:
        api = f"{told['frontend']}/api/v1"
        yield Served(told["frontend"], api, schemathesis.openapi.from_url(f"{api}/openapi.json"), iter(range(10**6)))
        log = (folder / "up.log").read_text()
    assert "Traceback" not in log, log[-5000:]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", CALLS, ids=lambda call: str(call.name))
def test_a_call_keeps_to_the_document(call: Any, way: str, served: Served, examples: int) -> None:
    operation = served.schema[call.path][call.method]
    asker = served.asker(way, call.name)
    cases = operation.as_strategy()
    if call.parameters or call.body or call.form or "parameters" in operation.definition.raw:
        cases = st.one_of(cases, operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))

    # In a form all is text: a number for a title, which the document's schema calls wrong, is a title.
    checks = [check for check in CHECKS if call.form is None or check is not negative_data_rejection]

    @_settings(examples)
    @given(cases, st.randoms(use_true_random=False))
    def ask(case: Any, random: Any) -> None:
        _name_what_there_is(case, asker, random)
        answer = case.call_and_validate(
            base_url=served.api, session=asker.session, checks=checks, allow_redirects=False, timeout=SECONDS
        )
        if answer.status_code >= 400:
            assert answer.json()["status"] == answer.status_code and answer.json()["detail"]
        if way in ("nobody", "wrong token") and call.who is Who.USER:
            assert answer.status_code >= 400

    ask()


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def _name_what_there_is(case: Any, asker: Asker, random: Any) -> None:
    """Most random names are nobody's: name something that there is three times of four, where a right name is meant."""
    components = case.meta.components
    path = components.get(ParameterLocation.PATH)
    if path is not None and path.mode is GenerationMode.POSITIVE:
        for name, known in asker.known.items():
            if name in case.path_parameters and random.random() < 0.75:
                case.path_parameters[name] = random.choice(known)
    body = components.get(ParameterLocation.BODY)
    positive = body is not None and body.mode is GenerationMode.POSITIVE
    if positive and isinstance(case.body, dict) and "file" in case.body and random.random() < 0.5:
        case.body["file"] = PICTURE[: random.choice((len(PICTURE), len(PICTURE), 200))]


# -- the intake: no document, but a table in docs/photo-service.md

ANSWERS = {200, 201, 204, 400, 403, 404, 405, 408, 409, 411, 412, 413, 415, 422, 423, 460}

_digits = st.integers(-5, 2 * len(PICTURE)).map(str) | st.sampled_from(
    ["", "1e3", "0x10", "9" * 40, "\u00b2", "+1", "1 2"]
)
_words = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)


def _checksums(body: bytes) -> st.SearchStrategy[str]:
    right = base64.b64encode(hashlib.sha256(body).digest()).decode()
    return st.sampled_from([f"sha256 {right}", f"sha256 {right[:-4]}", f"md4 {right}", "sha256", "sha256 ???"]) | _words


_CALLS = ("POST /upload", "POST /files", "HEAD /files/{id}", *["PATCH /files/{id}"] * 3, "DELETE /files/{id}")
_ODD_CALLS = (
    "POST /files/{id}", "PUT /upload", "GET /files/{id}", "OPTIONS /files", "PATCH /files/" + "0" * 32,
    "HEAD /files/%00", "DELETE /files", "POST /files/../upload",
)  # fmt: skip
_TUS_BODY = "application/offset+octet-stream"
_FORM = "multipart/form-data"
_TYPES = ["image/jpeg", _FORM, f"{_FORM}; boundary=x", 'multipart/mixed; boundary="', ";", "x"]


@st.composite
def intake_calls(draw: st.DrawFn) -> tuple[str, str, dict[str, str], bytes]:
    """Method, path (with {id} for the ticket's), headers (with {ticket}), body: right ones, of which little is odd."""
    odd = _chance(15)
    method, path = draw(st.sampled_from(_ODD_CALLS if draw(odd) else _CALLS)).split()
    rest = draw(st.booleans())
    body = draw(st.binary(max_size=300)) if draw(odd) else PICTURE[100:] if rest else PICTURE[:100]
    body = PICTURE if path == "/upload" and not draw(odd) else body
    headers = {
        "Tus-Resumable": ("1.0.0", st.sampled_from(["0.2.2", ""])),
        "Authorization": ("Bearer {ticket}", st.sampled_from(["Bearer {ticket}x", "Basic YTpi"]) | _words),
        "Upload-Length": (str(len(PICTURE)), _digits),
        "Upload-Offset": ("100" if rest else "0", _digits),
        "Content-Type": (_TUS_BODY if path != "/upload" else "image/jpeg", st.sampled_from(_TYPES)),
    }
    chosen = {name: draw(strange) if draw(odd) else right for name, (right, strange) in headers.items()}
    more = {
        "Upload-Checksum": _checksums(body),
        "Upload-Metadata": _words,
        "Upload-Defer-Length": st.sampled_from(["1", "x"]),
        "X-HTTP-Method-Override": st.sampled_from(["PATCH", "DELETE", "delete", "GET", ""]),
        "Content-Encoding": st.sampled_from(["identity", "gzip", "br", "x"]),
    }
    chosen |= {name: draw(values) for name, values in more.items() if draw(odd)}
    left_out = [name for name in chosen if draw(_chance(5))]
    return method, path, {name: value for name, value in chosen.items() if name not in left_out}, body


def _chance(percent: int) -> st.SearchStrategy[bool]:
    return st.integers(0, 99).map(lambda value: value < percent)


def test_the_intake_refuses_what_is_odd_and_breaks_on_nothing(served: Served, examples: int) -> None:
    """Each example is a few calls with one ticket, in any order."""
    _, token = served.person()
    statuses: dict[int, int] = {}

    @_settings(examples)
    @given(st.lists(intake_calls(), min_size=1, max_size=6))
    def ask(calls: list[tuple[str, str, dict[str, str], bytes]]) -> None:
        offer = _ticket(served, token)
        base = offer["uploadUrl"].rpartition("/")[0]
        names = {"ticket": offer["ticket"], "id": _upload_id(offer)}
        for method, path, headers, body in calls:
            sent = {name: _filled(value, names) for name, value in headers.items()}
            answer = requests.request(method, base + _filled(path, names), data=body, headers=sent, timeout=SECONDS)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            assert answer.status_code in ANSWERS, (method, path, headers, len(body), answer.status_code, answer.text)
            if answer.status_code >= 400 and method != "HEAD":
                assert len(answer.json()["error"]) > 8, answer.text

    ask()
    print(dict(sorted(statuses.items())))
    assert {200, 201, 204, 400, 403, 404, 409, 412, 415} <= set(statuses)


def _filled(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _ticket(served: Served, token: str) -> dict[str, str]:
    answer = requests.post(
        f"{served.api}/uploads",
        json={"size": len(PICTURE), "name": "a.jpg"},
        headers={"Authorization": f"Bearer {token}"},
        timeout=SECONDS,
    )
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def _upload_id(offer: dict[str, str]) -> str:
    """The name of the ticket's tus upload, as its creation would answer it."""
    headers = {
        "Authorization": f"Bearer {offer['ticket']}",
        "Tus-Resumable": "1.0.0",
        "Upload-Length": str(len(PICTURE)),
    }
    answer = requests.post(offer["tusUrl"], headers=headers, timeout=SECONDS)
    return answer.headers["Location"].rpartition("/")[2]
