"""The OpenAPI document, and a page that shows it; made here, and nothing of it is loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable
from functools import cache
from typing import Any

from aiohttp import web

from frontend.api.openapi import document
from frontend.api.table import PREFIX

_STYLE = """
:root{color-scheme:light dark;--line:light-dark(#d8dce2,#3a3f47);--soft:light-dark(#f4f6f8,#1d2126);
--link:light-dark(#0b57c2,#8ab4ff)}
*{box-sizing:border-box}body{margin:0;font:16px/1.5 system-ui,sans-serif}
main{max-width:60rem;margin:auto;padding:1rem}a{color:var(--link)}h2{margin-top:2rem;text-transform:capitalize}
details{border:1px solid var(--line);border-radius:.5rem;margin:.4rem 0;overflow:hidden}
summary{padding:.5rem .8rem;cursor:pointer;background:var(--soft);overflow-wrap:anywhere}
summary:focus-visible,a:focus-visible{outline:2px solid var(--link)}
.body{padding:.4rem .8rem;overflow-x:auto}code,pre{font:14px/1.45 ui-monospace,monospace}
.method{display:inline-block;min-width:4.6rem;font-weight:700}pre{background:var(--soft);padding:.6rem;border-radius:.4rem}
table{border-collapse:collapse}td,th{border-bottom:1px solid var(--line);padding:.25rem .8rem .25rem 0;text-align:left}
"""


def add_docs(app: web.Application) -> None:
    """Put both into an application."""
    app.router.add_get(f"{PREFIX}/openapi.json", _openapi)
    app.router.add_get(f"{PREFIX}/docs", _docs)


async def _openapi(_: web.Request) -> web.Response:
    return web.Response(body=_document(), content_type="application/json", headers={"Cache-Control": "max-age=300"})


async def _docs(_: web.Request) -> web.Response:
    page, style_hash = _page()
    policy = f"default-src 'none'; style-src 'sha256-{style_hash}'; base-uri 'none'; frame-ancestors 'none'"
    return web.Response(body=page, content_type="text/html", charset="utf-8",
                        headers={"Content-Security-Policy": policy, "Cache-Control": "max-age=300"})  # fmt: skip


@cache
def _document() -> bytes:
    return json.dumps(document(), indent=1, ensure_ascii=False).encode()


@cache
def _page() -> tuple[bytes, str]:
    digest = hashlib.sha256(_STYLE.encode()).digest()
    return _render(document()).encode(), base64.b64encode(digest).decode("ascii")


def _render(api: dict[str, Any]) -> str:
    info = api["info"]
    about = "".join(f"<p>{_marked(part)}</p>" for part in info["description"].split("\n\n"))
    groups = "".join(_group(api, tag["name"]) for tag in api["tags"])
    models = "".join(_model(name, schema) for name, schema in sorted(api["components"]["schemas"].items()))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{_text(info['title'])}: API</title><style>{_STYLE}</style><main><h1>{_text(info['title'])}: API</h1>"
        f'{about}<p>Base: <code>{PREFIX}</code>. <a href="{PREFIX}/openapi.json">The OpenAPI 3.1 document</a></p>'
        f"{groups}<h2>Schemas</h2>{models}</main></html>"
    )


def _group(api: dict[str, Any], name: str) -> str:
    calls = [
        _call(method, path, operation)
        for path, methods in api["paths"].items()
        for method, operation in methods.items()
        if name in operation["tags"]
    ]
    return f"<section><h2>{_text(name)}</h2>{''.join(calls)}</section>"


def _call(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{_text(one['name'])}</code></td><td>{one['in']}{', required' if one['required'] else ''}</td>"
        f"<td>{_marked(one.get('description', ''))}</td><td><code>{_text(_short(one['schema']))}</code></td></tr>"
        for one in operation["parameters"]
    )
    table = f"<table>{parameters}</table>" if parameters else ""
    body = "".join(
        f"<p>Body: {_text(kind)} {_reference(content['schema'])}</p>"
        for kind, content in operation.get("requestBody", {}).get("content", {}).items()
    )
    answers = ", ".join(_answer(status, one) for status, one in operation["responses"].items() if status != "default")
    who = "" if {} in operation["security"] else "<p>Needs a session or an API token.</p>"
    return (
        f'<details id="{operation["operationId"]}"><summary><span class="method">{method.upper()}</span> '
        f"<code>{_text(path)}</code><br>{_text(operation['summary'])} <small>({operation['operationId']})</small>"
        f'</summary><div class="body">{who}{table}{body}<p>Answers: {answers}</p></div></details>'
    )


def _answer(status: str, response: dict[str, Any]) -> str:
    content: Iterable[dict[str, Any]] = response.get("content", {}).values()
    return f"{status} {' '.join(_reference(one['schema']) for one in content)}".strip()


def _reference(schema: dict[str, Any]) -> str:
    if "$ref" not in schema:
        return f"<pre>{_text(json.dumps(schema, indent=1))}</pre>"
    name = schema["$ref"].rpartition("/")[2]
    return f'<a href="#schema-{_text(name)}">{_text(name)}</a>'


def _model(name: str, schema: dict[str, Any]) -> str:
    shown = json.dumps(schema, indent=1, ensure_ascii=False)
    return (
        f'<details id="schema-{_text(name)}"><summary><code>{_text(name)}</code> '
        f'{_text(schema.get("description", ""))}</summary><div class="body"><pre>{_text(shown)}</pre></div></details>'
    )


def _short(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    return " ".join(f"{key}={value}" for key, value in schema.items() if key not in ("type", "examples")) or "text"


def _text(value: str) -> str:
    return html.escape(value)


def _marked(value: str) -> str:
    parts = _text(value).replace("``", "`").split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))
