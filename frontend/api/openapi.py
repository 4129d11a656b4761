"""The OpenAPI 3.1 document, made of the table of calls and its models."""

from __future__ import annotations

import http
from collections.abc import Iterable
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

import haystack
from frontend.api import schemas
from frontend.api.calls import CALLS
from frontend.api.problems import CONTENT_TYPE
from frontend.api.table import PATH_MEANINGS, PATH_PATTERNS, PREFIX, Call, Document, Who

_REF = "#/components/schemas/{model}"
_ABOUT = """The API of a Haystack photo service.

Errors are problem details (RFC 9457). Lists have cursors: give `next` of a page as `cursor` to get the one behind it.
Programs send an API token as `Authorization: Bearer`; browsers have the cookie of a session, and their changes must
come from the service's own pages. Every answer says in `RateLimit` and `RateLimit-Policy` how many more requests are
taken; 429 and 503 say in `Retry-After` when to come again. What somebody may not see is answered as if it were not
there.
"""


@cache
def document() -> Document:
    """The whole document; its parts must not be changed."""
    refs, components = _schemas()
    paths: dict[str, Document] = {}
    for call in CALLS:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, refs)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Haystack photos", "version": haystack.__version__, "description": _ABOUT},
        "servers": [{"url": PREFIX}],
        "tags": [{"name": name} for name in dict.fromkeys(call.group for call in CALLS)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "haystack_session"},
            },
            "responses": {
                "Problem": {
                    "description": "It was not done.",
                    "content": {CONTENT_TYPE: {"schema": refs[schemas.Problem, "serialization"]}},
                }
            },
        },
    }


_Refs = dict[tuple[type[BaseModel], JsonSchemaMode], Document]


def _schemas() -> tuple[_Refs, Document]:
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(schemas.Problem, "serialization")]
    for call in CALLS:
        if call.answer is not None:
            wanted.append((call.answer, "serialization"))
        wanted += [(model, "validation") for model in (call.body, call.form) if model is not None]
    found, definitions = models_json_schema(list(dict.fromkeys(wanted)), by_alias=True, ref_template=_REF)
    refs: _Refs = {(model, mode): schema for (model, mode), schema in found.items() if issubclass(model, BaseModel)}
    return refs, definitions.get("$defs", {})


def _operation(call: Call, refs: _Refs) -> Document:
    operation: Document = {
        "operationId": call.name,
        "tags": [call.group],
        "summary": call.summary,
        "parameters": [*map(_path_parameter, call.parameters), *_query_parameters(call), *_header_parameters(call)],
        "responses": _responses(call, refs),
        "security": [{"token": []}, {"session": []}] if call.who is Who.USER else [{}, {"token": []}, {"session": []}],
    }
    if call.body is not None:
        content = {"application/json": {"schema": refs[call.body, "validation"]}}
        operation["requestBody"] = {"required": True, "content": content}
    if call.form is not None:
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _form(call.form)}}}
    return operation


def _path_parameter(name: str) -> Document:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": PATH_MEANINGS[name],
        "schema": {"type": "string", "pattern": f"^({PATH_PATTERNS[name]})$"},
    }


def _query_parameters(call: Call) -> Iterable[Document]:
    schema = call.query.model_json_schema(by_alias=True)
    required = schema.get("required", [])
    for name, one in schema.get("properties", {}).items():
        described = {key: value for key, value in one.items() if key not in ("title", "description", "default")}
        described = _without_null(described) | ({"default": one["default"]} if one.get("default") is not None else {})
        found = {"name": name, "in": "query", "required": name in required, "schema": described}
        if "description" in one:
            found["description"] = one["description"]
        yield found


def _without_null(schema: Document) -> Document:
    """A query says nothing by leaving a parameter out, not by null."""
    if "anyOf" not in schema:
        return schema
    kept = [one for one in schema["anyOf"] if one.get("type") != "null"]
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return rest | (kept[0] if len(kept) == 1 else {"anyOf": kept})


def _header_parameters(call: Call) -> Iterable[Document]:
    for name, meaning in call.headers.items():
        schema = {"type": "string", "minLength": 1, "maxLength": 100, "pattern": "^[!-~]+$"}
        yield {"name": name, "in": "header", "required": False, "description": meaning, "schema": schema}


def _form(model: type[BaseModel]) -> Document:
    schema = model.model_json_schema(by_alias=True)
    schema["properties"] = {
        "file": {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"},
        **schema["properties"],
    }
    schema["required"] = ["file", *schema.get("required", [])]
    return schema


def _responses(call: Call, refs: _Refs) -> Document:
    good: Document = {"description": http.HTTPStatus(call.status).phrase, "headers": _rate_headers()}
    if call.answer is not None:
        good["content"] = {"application/json": {"schema": refs[call.answer, "serialization"]}}
    if call.status in (201, 302) and call.answer in (None, schemas.UploadedPhoto):
        good["headers"]["Location"] = {"schema": {"type": "string"}}
    responses: Document = {str(call.status): good}
    for status in sorted(_problems(call)):
        responses[str(status)] = {"$ref": "#/components/responses/Problem"}
    responses["default"] = {"$ref": "#/components/responses/Problem"}
    return responses


def _problems(call: Call) -> set[int]:
    found = {429, *call.problems}
    if call.who is Who.USER:
        found |= {401, *((403,) if call.changes else ())}
    if call.body is not None or call.form is not None:
        found |= {400, 413, 415, 422}
    if call.query is not schemas.NoQuery:
        found.add(422)
    if call.query is schemas.SearchQuery:
        found.add(400)
    if call.parameters:
        found.add(404)
    return found


def _rate_headers() -> dict[str, Any]:
    text: dict[Literal["schema"], Any] = {"schema": {"type": "string"}}
    return {"RateLimit": text, "RateLimit-Policy": text}
