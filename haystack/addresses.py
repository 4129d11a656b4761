"""Where a Store or a Cache listens, and under which address others reach it."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from haystack.errors import ConfigError

_WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound


def reserve_address(host: str, port: int, table: str = "store") -> tuple[list[socket.socket], int]:
    """Reserve host and port for the workers, which bind it again (SO_REUSEPORT).

    The sockets do not listen, so the kernel gives them no connections; they keep the port as long as they are open,
    also while a worker is down.

    Parameters
    ----------
    port: 0 for any free one.
    table: of the settings that host and port are from, for messages.

    Returns the sockets and the port. Raises ConfigError when the address cannot be used.
    """
    found = _resolve(host, port, table)
    if port:
        _require_unused(host, port, found, table)
    sockets: list[socket.socket] = []
    try:
        for family, address in found:
            sockets.append(_bind(family, (address[0], port, *address[2:]), socket.SO_REUSEPORT))
            port = sockets[0].getsockname()[1]
    except OSError as error:
        _close(sockets)
        raise _refusal(host, port, error, table) from error
    return sockets, port


def _require_unused(host: str, port: int, found: Sequence[tuple[int, tuple[object, ...]]], table: str) -> None:
    """SO_REUSEPORT would let two nodes of one user share a port, each getting half of the other's requests."""
    for family, address in found:
        try:
            _bind(family, address, socket.SO_REUSEADDR).close()
        except OSError as error:
            raise _refusal(host, port, error, table) from error


def _resolve(host: str, port: int, table: str) -> list[tuple[int, tuple[object, ...]]]:
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(f"{table}.host: {host} cannot be resolved: {error.strerror or error}") from error
    return list(dict.fromkeys((int(family), tuple(address)) for family, _, _, _, address in rows))


def _bind(family: int, address: tuple[object, ...], option: int) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, option, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


@asynccontextmanager
async def reserved_port(host: str, port: int, table: str = "store") -> AsyncIterator[int]:
    """Reserve an address as :func:`reserve_address` does, until the end of the block; gives the port."""
    sockets, port = await asyncio.to_thread(reserve_address, host, port, table)
    try:
        yield port
    finally:
        _close(sockets)


def _close(sockets: Sequence[socket.socket]) -> None:
    for one in sockets:
        one.close()


def _refusal(host: str, port: int, error: OSError, table: str) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(f"{table}.port: {join(host, port)} is in use by another process; choose another port")
    return ConfigError(f"{table}.host: cannot listen on {join(host, port)}: {error.strerror}")


def join(host: str, port: int) -> str:
    """``host:port``, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``. Raises ConfigError."""
    try:
        parts = urlsplit(f"//{address}")
        if parts.hostname and parts.port:
            return parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{address!r} is no address: {error}") from error
    raise ConfigError(f"{address!r} is no address; expected host:port")


def is_wildcard(host: str) -> bool:
    """Whether a server that listens on ``host`` listens on all addresses."""
    return host in _WILDCARDS


def advertised_host(host: str, directories: Sequence[str]) -> str:
    """The host under which others reach a node that listens on ``host``.

    One that listens on all addresses names the one from which it reaches the Directory: whoever talks to the
    Directory is likely to reach it there too.
    """
    if not is_wildcard(host):
        return host
    for url in directories:
        parts = urlsplit(url)
        address = _own_address(parts.hostname or "", parts.port or 80)
        if address:
            return address
    return socket.gethostname() if not directories else "127.0.0.1"


def _own_address(host: str, port: int) -> str | None:
    """Our address on the way to a host; nothing is sent for it."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            own: str = probe.getsockname()[0]
            return None if ipaddress.ip_address(own).is_unspecified else own
    except (OSError, ValueError):
        return None
