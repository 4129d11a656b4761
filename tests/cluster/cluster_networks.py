"""Networks of their own for the processes of a cluster: one namespace each, joined by a bridge, cut at will.

A direction is cut by giving the receiver's address a link-layer address that nobody has: packets vanish without a word,
as behind a broken switch. Nothing but iproute2 is needed. For root.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

NOBODY = "02:00:00:00:00:fe"
BRIDGE_HOST = 254


def missing() -> str | None:
    """Return why network namespaces cannot be used here, or None."""
    if os.geteuid() != 0:
        return "needs root to make network namespaces"
    if shutil.which("ip") is None:
        return "needs iproute2 (the command ip)"
    probe = f"hsprobe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces cannot be made: {made.stderr.strip()}"
    run("netns", "del", probe)
    return None


def run(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


class Networks:
    """Namespaces with one address each, and an address of this process beside them.

    Parameters
    ----------
    count: how many.
    subnet: the third byte of 10.77.x.0/24, different for those that exist at the same time.
    """

    def __init__(self, count: int, subnet: int) -> None:
        self._mark = f"hs{os.getpid() % 100000}"
        self._subnet = subnet
        self.hosts = [f"10.77.{subnet}.{number}" for number in range(1, count + 1)]
        self._names = {host: f"{self._mark}n{number}" for number, host in enumerate(self.hosts, 1)}
        self._bridge = f"{self._mark}b"

    def make(self) -> None:
        run("link", "add", self._bridge, "type", "bridge")
        run("addr", "add", f"10.77.{self._subnet}.{BRIDGE_HOST}/24", "dev", self._bridge)
        run("link", "set", self._bridge, "up")
        for number, host in enumerate(self.hosts, 1):
            name, outer = self._names[host], f"{self._mark}v{number}"
            run("netns", "add", name)
            run("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
            run("link", "set", outer, "master", self._bridge, "up")
            self._inside(host, "addr", "add", f"{host}/24", "dev", "eth0")
            self._inside(host, "link", "set", "eth0", "up")
            self._inside(host, "link", "set", "lo", "up")

    def remove(self) -> None:
        """Remove what :meth:`make` made, as far as it came."""
        for number in range(1, len(self.hosts) + 1):
            # With a namespace its links go too, but at some later time, and their names may be wanted before.
            outer = f"{self._mark}v{number}"
            subprocess.run(["ip", "link", "del", outer], capture_output=True, check=False)
        for name in self._names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self._bridge], capture_output=True, check=False)

    def prefix(self, host: str) -> Sequence[str]:
        """Return the command to start a process of this host through."""
        return ("ip", "netns", "exec", self._names[host])

    def cut(self, some: Iterable[str], others: Iterable[str], *, both: bool = True) -> None:
        """Let nothing pass from some hosts to others, and back if ``both``. Clients, outside, still reach all."""
        for one, other in itertools.product(some, others):
            if one != other:
                self._lose(one, other)
                if both:
                    self._lose(other, one)

    def heal(self) -> None:
        for host in self.hosts:
            for other in self.hosts:
                if host != other:
                    self._inside(host, "neigh", "replace", other, "lladdr", self._address(other), "dev", "eth0")

    def _lose(self, sender: str, receiver: str) -> None:
        self._inside(sender, "neigh", "replace", receiver, "lladdr", NOBODY, "dev", "eth0", "nud", "permanent")

    def _address(self, host: str) -> str:
        return self._inside(host, "link", "show", "eth0").split("link/ether ")[1].split()[0]

    def _inside(self, host: str, *arguments: str) -> str:
        return run("-n", self._names[host], *arguments)


@contextmanager
def networks(count: int, subnet: int = 0) -> Iterator[Networks]:
    """Make namespaces for a while."""
    made = Networks(count, subnet)
    try:
        made.make()
        yield made
    finally:
        made.remove()
