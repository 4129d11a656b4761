"""People who use the pages by HTTP, like a browser without script: redirects, cookies, forms."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import aiohttp
from aiohttp import CookieJar
from site_harness import PASSWORD, Place

VOID = {"meta", "link", "input", "img", "source", "br", "hr", "area", "base", "col", "embed", "track", "wbr"}
"""Elements without an end."""

LABELLED = {"input", "textarea", "select"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    inside: tuple[str, ...]
    text: str = ""


@dataclass
class Html(HTMLParser):
    """A page that was parsed, and what is wrong with it."""

    source: str
    elements: list[Element] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    stack: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)
        self.close()
        self.problems += [f"<{one.tag}> has no end" for one in self.stack]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.problems.append(f"<{tag}> has an attribute twice: {names}")
        element = Element(tag, dict(attrs), tuple(one.tag for one in self.stack))
        self.elements.append(element)
        if tag not in VOID:
            self.stack.append(element)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.stack or self.stack[-1].tag != tag:
            self.problems.append(f"</{tag}> ends {self.stack[-1].tag if self.stack else 'nothing'}")
            return
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        for one in self.stack:
            one.text += data

    def all(self, tag: str) -> list[Element]:
        """The elements of a kind; the title of a drawing is none of the page's."""
        return [one for one in self.elements if one.tag == tag and "svg" not in one.inside]

    def one(self, tag: str) -> Element:
        (found,) = self.all(tag)
        return found

    @property
    def text(self) -> str:
        return " ".join(self.one("body").text.split())


@dataclass
class Answer:
    status: int
    url: str
    headers: Any
    html: Html


class Visitor:
    """Somebody at a browser of his own."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.session = aiohttp.ClientSession(cookie_jar=CookieJar(unsafe=True))

    async def get(self, path: str, **headers: str) -> Answer:
        return await self._ask("GET", path, None, headers)

    async def post(self, path: str, fields: Any = None, **headers: str) -> Answer:
        """Send a form with the token that our pages have in theirs."""
        if fields is None or isinstance(fields, dict):
            fields = {"csrf": await self.token(), **(fields or {})}
        return await self._ask("POST", path, fields, headers)

    async def token(self) -> str:
        """The token of forms."""
        found = re.search(r'name="csrf" value="([^"]+)"', (await self.get("/settings")).html.source)
        assert found is not None
        return found[1]

    async def sign_up(self, name: str) -> Visitor:
        answer = await self.post("/sign-up", {"username": name, "password": PASSWORD})
        assert answer.status == 200, answer.html.text
        return self

    async def upload(self, *names: str, data: bytes = b"a photo", **fields: str) -> Answer:
        form = aiohttp.FormData()
        form.add_field("csrf", await self.token())
        for number, name in enumerate(names):
            form.add_field("photos", data + bytes([number]), filename=name, content_type="image/jpeg")
        if not names:  # as browsers do when none was chosen
            form.add_field("photos", b"", filename="", content_type="application/octet-stream")
        for field_name, value in fields.items():
            form.add_field(field_name, value)
        return await self.post("/upload", form)

    async def _ask(self, method: str, path: str, data: Any, headers: dict[str, str]) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(method, self.place.url + path, data=data, headers=named) as response:
            text = await response.text()
            return Answer(response.status, str(response.url), response.headers, Html(text))

    async def close(self) -> None:
        await self.session.close()
