"""A real cluster for tests: one Directory and several Stores as processes, in data centers and racks.

Each Store listens on a loopback address of its own: a port that a killed Store has left cannot be taken by somebody's
outgoing connection before it is started again.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from haystack.security import new_secret
from tools.children import Ready, parse_ready

START_SECONDS = 60.0
STOP_SECONDS = 40.0


class Node:
    """One role as a process group of its own.

    Parameters
    ----------
    name: for messages, and for its log.
    arguments: the command's, without its ports.
    log: what it says goes there.
    prefix: command that the process is started through, as ``ip netns exec NAME``.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        host: str,
        environ: dict[str, str],
        log: Path,
        prefix: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.host = host
        self.log = log
        self.launcher: Sequence[str] = (sys.executable, "-m", "tools.cli")
        """The command; a test may put one of its own here."""
        self.ready: Ready | None = None
        self.frozen = False
        self._arguments = tuple(arguments)
        self._environ = environ
        self._prefix = tuple(prefix)
        self._ports: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Of the supervisor, or of the Directory."""
        return self._process.pid if self._process is not None else None

    @property
    def address(self) -> str:
        assert self.ready is not None, f"{self.name} was never started"
        return self.ready.url.removeprefix("http://")

    @property
    def admin_url(self) -> str:
        assert self.ready is not None and self.ready.admin_url is not None
        return self.ready.admin_url

    def start(self) -> None:
        """Start it, where it was before, and wait until it says that it is ready."""
        assert not self.running, f"{self.name} runs already"
        ports = [text for flag in self._flags() for text in (flag, self._ports.get(flag, "0"))]
        self._starts += 1
        with self.log.open("ab") as log:
            log.write(f"--- start {self._starts}\n".encode())
            self._process = subprocess.Popen(
                [*self._prefix, *self.launcher, *self._arguments, "--host", self.host, *ports],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environ,
                start_new_session=True,
            )
        self.ready = self._wait_ready(self._process)
        self._ports["--port"] = self.ready.url.rpartition(":")[2]
        if self.ready.admin_url:
            self._ports["--admin-port"] = self.ready.admin_url.rpartition(":")[2]

    def kill(self) -> None:
        """Kill the process and its workers at once, frozen or not, and wait for the end."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        self.frozen = False

    def stop(self) -> None:
        """Stop it in good order; killed when it does not."""
        if not self.running:
            return
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        finally:
            self.kill()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)
        self.frozen = False

    def says(self, last_lines: int = 15) -> str:
        """Return the end of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"{self.name} | {line}" for line in lines[-last_lines:])

    def _flags(self) -> Sequence[str]:
        return ("--port",) if self._arguments[0] == "directory" else ("--port", "--admin-port")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> Ready:
        assert process.stdout is not None
        deadline = time.monotonic() + START_SECONDS
        text = b""
        while time.monotonic() < deadline:
            if not select.select([process.stdout], [], [], 0.2)[0]:
                continue
            piece = os.read(process.stdout.fileno(), 65536)
            text += piece
            for line in text.decode(errors="replace").splitlines():
                if ready := parse_ready(line):
                    threading.Thread(target=_drain, args=(process,), daemon=True).start()
                    return ready
            if not piece:
                break
        self.kill()
        process.stdout.close()
        raise RuntimeError(f"{self.name} did not start\n{self.says()}")


def _drain(process: subprocess.Popen[bytes]) -> None:
    """Read the output to its end, so that the process never waits for us."""
    assert process.stdout is not None
    with process.stdout as output:
        while os.read(output.fileno(), 65536):
            pass


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Store stands."""

    data_center: str
    rack: str


def places(*spots: str) -> list[Place]:
    """Return places from texts as ``dc1/A``."""
    return [Place(*spot.split("/")) for spot in spots]


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What kind of cluster it is.

    Parameters
    ----------
    places: one for each Store.
    replication: three digits.
    writable_volumes: volumes that the Directory keeps ready for photos.
    repair_delay_seconds: how long a volume stays degraded before it gets a copy elsewhere.
    caches: how many Caches.
    directory_flags, store_flags: further arguments.
    """

    places: Sequence[Place]
    replication: str = "000"
    workers: int = 1
    writable_volumes: int = 4
    repair_delay_seconds: float = 600.0
    heartbeat_seconds: float = 0.5
    dead_after_seconds: float = 3.0
    caches: int = 0
    directory_flags: Sequence[str] = ()
    store_flags: Sequence[str] = ()
    environ: dict[str, str] = field(default_factory=dict)

    def brisk(self) -> ClusterOptions:
        """Return the same, where a Store that is silent is soon taken for dead: for tests that wait for it."""
        return replace(self, heartbeat_seconds=0.2, dead_after_seconds=1.5)


class Cluster:
    """A Directory and its Stores. :meth:`start` starts all; :meth:`close` leaves no process behind.

    Parameters
    ----------
    folder: for data and logs.
    hosts: addresses of the Directory, of each Store and of each Cache; by default loopback addresses.
    prefix_of: command to start the process of a host through.
    """

    def __init__(
        self,
        folder: Path,
        options: ClusterOptions,
        *,
        hosts: Sequence[str] | None = None,
        prefix_of: Callable[[str], Sequence[str]] = lambda host: (),
    ) -> None:
        self.folder = folder
        self.options = options
        secret = folder / "secret"
        secret.write_text(new_secret())
        secret.chmod(0o600)
        self.secret_file = secret
        self.secret = secret.read_bytes().strip()
        count = 1 + len(options.places) + options.caches
        hosts = hosts or [f"127.77.{os.getpid() % 250}.{number}" for number in range(1, count + 1)]
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("HAYSTACK_")}
        self.environ |= {"HAYSTACK_SECRET_FILE": str(secret), "PYTHONUNBUFFERED": "1", **options.environ}
        self._prefix_of = prefix_of
        self._hosts = hosts
        self.directory = self._node("directory", ["directory", *self._directory_flags()], hosts[0])
        self.stores: list[Node] = []
        self.caches: list[Node] = []

    def start(self) -> None:
        """Start the Directory, then all Stores and Caches at once."""
        self.directory.start()
        self.environ["HAYSTACK_DIRECTORY"] = f"http://{self.directory.address}"
        for number, place in enumerate(self.options.places, 1):
            self.stores.append(self._node(f"store{number}", self._store_arguments(number, place), self._hosts[number]))
        for number, host in enumerate(self._hosts[1 + len(self.stores) :][: self.options.caches], 1):
            arguments = ["cache", "--workers", "1", "--memory", "160MiB"]
            self.caches.append(self._node(f"cache{number}", arguments, host))
        _all_at_once([node.start for node in (*self.stores, *self.caches)])

    def data_of(self, node: Node) -> Path:
        return self.folder / node.name

    def wipe(self, node: Node) -> None:
        """Delete all that a node has on its disk; it must not run."""
        assert not node.running
        shutil.rmtree(self.data_of(node))

    def stop_stores(self) -> None:
        """Stop all Stores in good order."""
        _all_at_once([store.stop for store in self.stores])

    def close(self) -> None:
        for node in (*self.caches, *self.stores, self.directory):
            node.kill()

    def says(self) -> str:
        """Return the ends of all logs, for the message of a failure."""
        return "\n".join(node.says() for node in (self.directory, *self.stores, *self.caches))

    def _node(self, name: str, arguments: Sequence[str], host: str) -> Node:
        return Node(
            name,
            [*arguments, "--data", str(self.folder / name)],
            host=host,
            environ=self.environ,
            log=self.folder / f"{name}.log",
            prefix=self._prefix_of(host),
        )

    def _directory_flags(self) -> list[str]:
        options = self.options
        flags = [
            "--writable-volumes",
            str(options.writable_volumes),
            "--heartbeat-seconds",
            f"{options.heartbeat_seconds:g}s",
            "--dead-after-seconds",
            f"{options.dead_after_seconds:g}s",
        ]
        if options.replication != "000":
            flags += ["--default-replication", options.replication]
            flags += ["--repair-delay-seconds", f"{options.repair_delay_seconds:g}s"]
        return flags + list(options.directory_flags)

    def _store_arguments(self, number: int, place: Place) -> list[str]:
        return [
            "store",
            "--workers",
            str(self.options.workers),
            "--data-center",
            place.data_center,
            "--rack",
            place.rack,
            *self.options.store_flags,
        ]


@contextlib.contextmanager
def running_cluster(
    folder: Path, options: ClusterOptions, *, directory: Sequence[str] | None = None
) -> Iterator[Cluster]:
    """Start a cluster; at the end all its processes are gone, and its logs are shown if something failed.

    Parameters
    ----------
    directory: command of a Directory of the test's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(folder, options)
    cluster.directory.launcher = directory or cluster.directory.launcher
    try:
        cluster.start()
        yield cluster
    except BaseException:
        print(cluster.says())
        raise
    finally:
        cluster.close()


def _all_at_once(calls: Sequence[Callable[[], None]]) -> None:
    failures: list[BaseException] = []

    def run(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
