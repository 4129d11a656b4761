"""Calls of the command to Directories and to the Stores' admin API: JSON over HTTP, the latter signed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import aiohttp

from haystack.client.errors import UnexpectedAnswer, Unreachable, error_for
from haystack.errors import ConfigError, InvalidRequest
from haystack.json_calls import AnswerTooLarge, NoAnswer, json_call

TIMEOUT_SECONDS = 10.0
"""Longest time to connect, and longest silence of a server, for calls that answer at once."""

UNSIGNED = 401
MAX_ANSWER_BYTES = 256 * 1024 * 1024

HOW_TO_SIGN = (
    "this needs the cluster's secret: give --secret-file FILE, HAYSTACK_SECRET_FILE, secret_file in [cluster] of the "
    "configuration file, or --data with the folder of `haystack up`"
)


class Control:
    """Calls to a cluster. Use it as an async context.

    Parameters
    ----------
    directory_urls: the Directories; the first that answers is asked.
    secret: returns the cluster's secret, None when there is none; called only for calls that must be signed.
    timeout_seconds: longest time to connect, and longest silence.
    now: unix time in seconds, for signatures.

    Raises (every call)
    -------------------
    Unreachable: no answer.
    UnexpectedAnswer: an answer that is not understood.
    ConfigError: a call must be signed, and there is no secret.
    HaystackError: as the server said.
    """

    def __init__(
        self,
        directory_urls: Sequence[str],
        secret: Callable[[], bytes | None],
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._directory_urls = tuple(directory_urls)
        self._secret = secret
        self._timeout_seconds = timeout_seconds
        self._now = now
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Control:
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def directory(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, object] | None = None,
        document: object = None,
        *,
        signed: bool = False,
    ) -> dict[str, Any]:
        """Ask the first Directory that answers.

        Parameters
        ----------
        path: begins with ``/``.
        document: the body, as JSON; None for no body.
        signed: for what only those may do who have the cluster's secret.
        """
        query = f"?{urlencode(parameters)}" if parameters else ""
        failures = []
        for url in self._directory_urls:
            try:
                return await self._call(method, f"{url}{path}{query}", document, signed, self._timeout_seconds)
            except Unreachable as error:
                failures.append(str(error))
        raise Unreachable(f"{'; '.join(failures)}. Is the cluster running, and is --directory right?")

    async def store(
        self, admin_url: str, method: str, path: str, document: object = None, *, timeout_seconds: float | None = None
    ) -> dict[str, Any]:
        """Call the admin API of a Store, signed.

        Parameters
        ----------
        admin_url: ``host:port`` as the Store registered it, or with ``http://``.
        document: the body, as JSON; None for no body.
        timeout_seconds: longest silence, for calls that work for long; as of all calls by default.
        """
        base = admin_url if "://" in admin_url else f"http://{admin_url}"
        silence_seconds = timeout_seconds or self._timeout_seconds
        return await self._call(method, f"{base}{path}", document, True, silence_seconds)

    async def _call(
        self, method: str, url: str, document: object, signed: bool, silence_seconds: float
    ) -> dict[str, Any]:
        assert self._session is not None
        secret = self._secret() if signed else None
        try:
            answer = await json_call(
                self._session,
                method,
                url,
                document,
                secret=secret,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._timeout_seconds, sock_read=silence_seconds
                ),
                max_answer_bytes=MAX_ANSWER_BYTES,
                now=self._now,
            )
        except NoAnswer as error:
            raise Unreachable(f"{url}: {error}") from error
        except AnswerTooLarge as error:
            raise UnexpectedAnswer(str(error)) from error
        if answer.status == UNSIGNED and signed and secret is None:
            # A cluster on loopback addresses may do without a secret, so that only the server knows that one is needed.
            raise ConfigError(f"{url}: {HOW_TO_SIGN}")
        if not 200 <= answer.status < 300:
            raise error_for(answer.status, f"{method} {url}: {answer.reason}", not_found=InvalidRequest)
        if not isinstance(answer.document, dict):
            raise UnexpectedAnswer(f"{method} {url}: the answer is no JSON object; is this a Haystack server?")
        return answer.document
