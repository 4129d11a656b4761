"""Reading what comes in with the models of the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from haystack.errors import HaystackError, InvalidRequest

Model = TypeVar("Model", bound=BaseModel)


class NotValid(HaystackError):
    """Values that a model refuses.

    Parameters
    ----------
    wrong: field → what is wrong with it.
    """

    http_status = 422

    def __init__(self, wrong: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in wrong.items())[:500])
        self.wrong = wrong


def checked(model: type[Model], values: Mapping[str, str]) -> Model:
    """Values of a query or a form. Raises NotValid."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise NotValid(_wrong(error)) from error


def query_of(request: web.Request, model: type[Model]) -> Model:
    """The query of a request. Raises NotValid."""
    for name in request.query:
        if len(request.query.getall(name)) > 1:
            raise NotValid({name[:60]: "is given twice"})
    return checked(model, request.query)


async def body_of(request: web.Request, model: type[Model]) -> Model:
    """The JSON body of a request. Raises NotValid, InvalidRequest, HTTPUnsupportedMediaType."""
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(reason="send application/json")
    raw = await request.read()
    try:
        return model.model_validate_json(raw, strict=True)
    except ValidationError as error:
        wrong = _wrong(error)
        if any(one["type"] == "json_invalid" for one in error.errors(include_url=False, include_input=False)):
            raise InvalidRequest(f"the body is no JSON: {'; '.join(wrong.values())}") from error
        raise NotValid(wrong) from error


def _wrong(error: ValidationError) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in error.errors(include_url=False, include_input=False, include_context=False)[:20]:
        name = ".".join(str(part)[:60] for part in one["loc"]) or "body"
        found.setdefault(name, one["msg"])
    return found
