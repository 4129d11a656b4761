"""What a call of the API is: its path, what it takes, what it answers, and who does it."""

from __future__ import annotations

import enum
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel

from frontend.api.schemas import NoQuery
from frontend.database.people import User
from frontend.services.errors import NotLoggedIn
from frontend.services.names import PHOTO_ID_PATTERN, USERNAME_PATTERN, parse_photo_id
from frontend.services.pictures import SIZE_NAMES
from frontend.services.site import Site

PREFIX = "/api/v1"

Given = TypeVar("Given", bound=BaseModel)


class Who(enum.Enum):
    """Who may make a call."""

    ANYBODY = "anybody"
    USER = "who is logged in"


PATH_PATTERNS: Mapping[str, str] = {
    "photo": PHOTO_ID_PATTERN.strip("^$"),
    "username": USERNAME_PATTERN.strip("^$"),
    "comment": r"[0-9]{1,18}",
    "token": r"[0-9]{1,18}",
    "size": "|".join(SIZE_NAMES),
}
"""What stands in the braces of paths. Anything else is answered with 404."""

PATH_MEANINGS: Mapping[str, str] = {
    "photo": "A photo's id.",
    "username": "A user name.",
    "comment": "A comment's id.",
    "token": "A token's id.",
    "size": "A size of picture.",
}

_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Asking:
    """One request, checked.

    Parameters
    ----------
    user: who asks; None for nobody.
    query, body: as the call's models have read them.
    address: of the client.
    """

    request: web.Request
    site: Site
    user: User | None
    query: BaseModel
    body: BaseModel | None
    address: str

    @property
    def me(self) -> User:
        """Who asks. Raises NotLoggedIn for nobody."""
        if self.user is None:
            raise NotLoggedIn("log in first: send the session's cookie, or Authorization: Bearer with an API token")
        return self.user

    @property
    def photo_id(self) -> int:
        """Of the path."""
        return parse_photo_id(self.request.match_info["photo"])

    @property
    def username(self) -> str:
        """Of the path."""
        return self.request.match_info["username"]

    def sent(self, model: type[Given]) -> Given:
        """The body, of the type that the table names."""
        assert isinstance(self.body, model)
        return self.body

    def asked(self, model: type[Given]) -> Given:
        """The query, of the type that the table names."""
        assert isinstance(self.query, model)
        return self.query


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered.

    Parameters
    ----------
    document: by the call's model.
    status: when it is another one than the call's.
    decorate: adds to the response, a cookie for instance.
    """

    document: BaseModel | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    decorate: Callable[[web.Response], None] | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call.

    Parameters
    ----------
    name: the OpenAPI operationId.
    path: behind the prefix, with names of ``PATH_PATTERNS`` in braces.
    group: for the table of contents.
    answer: None for an answer without a body.
    form: fields of a multipart form beside its file; the handler reads the body itself.
    problems: statuses that it may be refused with, beside those that all may.
    headers: of requests that it heeds: name → meaning.
    """

    name: str
    method: str
    path: str
    group: str
    summary: str
    handle: Callable[[Asking], Awaitable[Reply]]
    status: int = 200
    answer: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    form: type[BaseModel] | None = None
    query: type[BaseModel] = NoQuery
    who: Who = Who.ANYBODY
    problems: tuple[int, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def parameters(self) -> list[str]:
        """Names in the path."""
        return _PARAMETER.findall(self.path)

    @property
    def route(self) -> str:
        """The path as aiohttp takes it."""
        return PREFIX + _PARAMETER.sub(lambda match: f"{{{match[1]}:{PATH_PATTERNS[match[1]]}}}", self.path)

    @property
    def changes(self) -> bool:
        """Whether it changes something."""
        return self.method != "GET"


Document = dict[str, Any]
