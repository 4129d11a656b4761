"""``haystack up``: a whole cluster on one machine, in one folder, from one command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import Coroutine
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from directory.decisions.replication import parse_replication
from haystack.addresses import advertised_host, join
from haystack.config import (
    DEFAULT_CACHE_PORT,
    DEFAULT_DIRECTORY_URL,
    DEFAULT_FRONTEND_PORT,
    DEFAULT_INTAKE_PORT,
    Configuration,
    StoreSettings,
    UpSettings,
)
from haystack.errors import ConfigError
from haystack.units import exact_size, format_size
from tools.app import SECRET_FILE, App, config_option, json_option, pass_app, settings_options
from tools.children import Ready
from tools.cluster import (
    CACHE,
    DIRECTORY,
    FRONTEND,
    INTAKE,
    STOP_MARGIN_SECONDS,
    Cluster,
    Commands,
    Running,
    local_url,
)
from tools.layout import Layout, check_count
from tools.output import Output
from tools.settle import wait_until_writable
from tools.updir import UpFolder

EXIT_KILLED = 130
REPAIR_DELAY_SECONDS = 15.0
"""Shorter than elsewhere: nobody carries a machine of this cluster back into its rack."""

MAX_CACHE_WORKERS = 2

SETTLE_SECONDS = 10.0
"""How long the Stores may take to register and the first volumes to be made, before that is worth a line."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_Result = TypeVar("_Result")


@click.command()
@settings_options("up")
@click.option("--no-cache", is_flag=True, help="Start no Cache.")
@click.option("--no-frontend", is_flag=True, help="Start no photo service: no front end, and no intakes.")
@config_option
@json_option
@pass_app
def up(app: App, /, *, no_cache: bool, no_frontend: bool, **flags: object) -> int:
    """Start a whole cluster on this machine: one Directory, some Stores, a Cache, and a photo service.

    Everything is kept in the folder --data, which is made when it is not there, with a new secret for the cluster.
    Ctrl-C stops all of it cleanly; a second Ctrl-C kills it. A process that dies is started again.

    Settings of the roles come from [store], [directory], [cache], [frontend] and [intake] of the configuration file and
    from the environment.
    """
    if no_frontend:
        flags["frontend"] = "off"
    if no_cache:
        flags["cache_memory_bytes"] = "0"
    configuration = app.configuration().with_flags("up", flags)
    settings = configuration.up()
    with UpFolder(settings.data, note=app.output.note) as folder:
        layout = folder.layout(settings)
        count = folder.store_count(settings.stores, layout.least_stores() or 1)
        check_count(layout, count)
        own_secret = configuration.secret() is None
        if own_secret:
            folder.ensure_secret()
        commands = RoleCommands(
            settings, count, configuration, config_path=app.config_path, own_secret=own_secret, layout=layout
        )
        stop_timeout_seconds = commands.check().stop_timeout_seconds + STOP_MARGIN_SECONDS
        folder.write_layout(layout)
        return asyncio.run(_Up(app.output, settings, folder, layout).run(commands, count, stop_timeout_seconds))


@dataclass(frozen=True, slots=True)
class RoleCommands:
    """Command lines of the roles: everything that an operator wants to see in ``ps``, nothing that is secret.

    Parameters
    ----------
    settings: of this cluster.
    store_count: how many Stores there will be.
    configuration: what file and environment say; the children read the same.
    config_path: configuration file to pass on.
    own_secret: the secret is the one in the cluster's folder.
    layout: replication, and where the Stores stand.
    """

    settings: UpSettings
    store_count: int
    configuration: Configuration
    config_path: Path | None
    own_secret: bool
    layout: Layout = Layout()  # noqa: RUF009 - immutable
    free_ports: dict[int, int] = field(default_factory=dict)
    """Number of an intake → the port that was found for it."""

    def directory(self, before: Ready | None) -> list[str]:
        """Return the Directory's command line."""
        port = urlsplit(before.url).port if before else self._port(self.settings.directory_port)
        argv = self._role(DIRECTORY, self.settings.data / DIRECTORY, port)
        if self.settings.replication or not self.configuration.source(DIRECTORY, "default_replication"):
            argv += ["--default-replication", self.layout.replication]
        if not self.configuration.source(DIRECTORY, "repair_delay_seconds"):
            argv += ["--repair-delay-seconds", f"{REPAIR_DELAY_SECONDS:g}s"]
        return argv

    def store(self, number: int, before: Ready | None, directory_url: str) -> list[str]:
        """Return the command line of Store ``number``, counted from 1."""
        port = urlsplit(before.url).port if before else self._port(self.settings.store_port, number - 1)
        argv = self._role("store", self.settings.data / f"store{number}", port)
        if before and before.admin_url:
            argv += ["--admin-port", str(urlsplit(before.admin_url).port)]
        argv += ["--directory", directory_url]
        place = self.layout.place(number)
        if self.layout.racks > 1:
            argv += ["--data-center", place.data_center, "--rack", place.rack]
        workers = self.settings.workers
        if workers is None and self.configuration.source("store", "workers") is None:
            workers = max(1, len(os.sched_getaffinity(0)) // self.store_count)
        if workers is not None:
            argv += ["--workers", str(workers)]
        if self.settings.durability is not None:
            argv += ["--durability", self.settings.durability]
        if self.with_frontend:
            argv += ["--service", f"{INTAKE}={self._intake_address(number, directory_url)}"]
        return argv

    def cache(self, before: Ready | None, directory_url: str) -> list[str]:
        """Return the Cache's command line."""
        port = urlsplit(before.url).port if before else self._cache_port
        argv = self._role(CACHE, self.settings.data / CACHE, port)
        admin_port = urlsplit(before.admin_url).port if before and before.admin_url else 0
        if before or not self.configuration.source(CACHE, "admin_port"):
            argv += ["--admin-port", str(admin_port)]
        argv += ["--directory", directory_url]
        argv += ["--memory", exact_size(self.settings.cache_memory_bytes)]
        if not self.configuration.source(CACHE, "workers"):
            # Clients, Stores and the Directory want the same processors, and each worker takes of the Cache's memory.
            argv += ["--workers", str(min(MAX_CACHE_WORKERS, max(1, len(os.sched_getaffinity(0)) // 2)))]
        return argv

    def frontend(self, before: Ready | None, directory_url: str) -> list[str]:
        """Return the front end's command line."""
        port = urlsplit(before.url).port if before else self._frontend_port
        argv = self._role(FRONTEND, None, port)
        if not self.configuration.source(FRONTEND, "database"):
            argv += ["--database", f"sqlite:///{(self.settings.data / FRONTEND / 'photos.db').absolute()}"]
        return [*argv, "--directory", directory_url]

    def intake(self, number: int, before: Ready | None, store_url: str, frontend_url: str) -> list[str]:
        """Return the command line of the intake beside Store ``number``, counted from 1."""
        argv = self._role(INTAKE, self.settings.data / f"{INTAKE}{number}", self._intake_port(number))
        argv += ["--store", urlsplit(store_url).netloc, "--frontend", frontend_url]
        if not self.configuration.source(INTAKE, "image_processes"):
            argv += ["--image-processes", str(max(1, len(os.sched_getaffinity(0)) // self.store_count))]
        return argv

    def _intake_port(self, number: int) -> int:
        """The port is wanted before the intake is started: its Store has to tell of it."""
        base = self.settings.intake_port
        if base is None:
            base = DEFAULT_INTAKE_PORT if self.settings.store_port else 0
        if base:
            return self._port(base, number - 1)
        if number not in self.free_ports:
            family = socket.AF_INET6 if ":" in self.settings.host else socket.AF_INET
            with socket.socket(family) as probe:
                probe.bind((self.settings.host, 0))
                self.free_ports[number] = probe.getsockname()[1]
        return self.free_ports[number]

    def _intake_address(self, number: int, directory_url: str) -> str:
        return join(advertised_host(self.settings.host, (directory_url,)), self._intake_port(number))

    @property
    def with_frontend(self) -> bool:
        """Whether there is a photo service."""
        return self.settings.frontend == "on"

    @property
    def _frontend_port(self) -> int:
        port = self.settings.frontend_port
        if port is None:
            port = DEFAULT_FRONTEND_PORT if self.settings.store_port else 0
        return self._port(port)

    @property
    def _cache_port(self) -> int:
        port = self.settings.cache_port
        if port is None:
            # Who wants any free ports for the Stores does not want a fixed one beside them.
            port = DEFAULT_CACHE_PORT if self.settings.store_port else 0
        return self._port(port)

    @property
    def with_cache(self) -> bool:
        """Whether there is a Cache."""
        return self.settings.cache_memory_bytes > 0

    def check(self) -> StoreSettings:
        """Return the last Store's settings. Raises ConfigError for what the children would refuse one after another."""
        names = [("Directory", self._port(self.settings.directory_port))]
        for number in range(1, self.store_count + 1):
            names.append((f"store{number}", self._port(self.settings.store_port, number - 1)))
        last_port = names[-1][1]
        cache_port = self._cache_port
        if self.with_cache:
            names.append((CACHE, cache_port))
        if self.with_frontend:
            names.append((FRONTEND, self._frontend_port))
            names += [(f"{INTAKE}{n}", self._intake_port(n)) for n in range(1, self.store_count + 1)]
        taken: dict[int, str] = {}
        for name, port in names:
            if port and port in taken:
                raise ConfigError(f"up: {taken[port]} and {name} would both listen on port {port}; set other ports")
            taken[port] = name
        for key in ("admin_port", "public_url"):
            source = self.configuration.source("store", key)
            if source and self.store_count > 1:
                raise ConfigError(f"{source}: store.{key} is for one Store, but here are {self.store_count}")
        directory = {"data": str(self.settings.data), "port": names[0][1]}
        self.configuration.with_flags("directory", directory).directory()
        if self.with_cache:
            self.configuration.with_flags(CACHE, {"data": str(self.settings.data), "port": cache_port}).cache()
        if self.with_frontend:
            database = self.configuration.source(FRONTEND, "database")
            given = {} if database else {"database": "sqlite:////photos.db"}
            self.configuration.with_flags(FRONTEND, given).frontend()
        last = {"data": (str(self.settings.data),), "port": last_port}
        return self.configuration.with_flags("store", last).store()

    def _port(self, base: int, distance: int = 0) -> int:
        # 0 is any free port for each of them, wherever it is counted from.
        return base + self.settings.port_offset + distance if base else 0

    def _role(self, role: str, data: Path | None, port: int | None) -> list[str]:
        # -P: a folder named "tools" where the user happens to stand must not be taken for ours.
        argv = [sys.executable, "-P", "-m", "tools.cli", role]
        if data is not None:
            argv += ["--data", str(data)]
        argv += ["--host", self.settings.host, "--port", str(port)]
        if self.config_path is not None:
            argv += ["--config", str(self.config_path)]
        if self.own_secret:
            argv += ["--secret-file", str(self.settings.data / SECRET_FILE)]
        return argv


class _Up:
    """One run of the cluster."""

    def __init__(self, output: Output, settings: UpSettings, folder: UpFolder, layout: Layout) -> None:
        self._output = output
        self._layout = layout
        self._settings = settings
        self._folder = folder
        self._stop = asyncio.Event()
        self._killed = False

    async def run(self, commands: Commands, store_count: int, stop_timeout_seconds: float) -> int:
        """Start the cluster, say where it is, keep it until a signal comes, stop it. Returns the exit code."""
        cluster = Cluster(
            commands,
            store_count,
            report=lambda text: self._log("up", text),
            on_line=self._log,
            start_timeout_seconds=self._settings.start_timeout_seconds,
            stop_timeout_seconds=stop_timeout_seconds,
            environ={**os.environ, "PYTHONUNBUFFERED": "1"},
            pass_fds=(self._folder.lock_fd,),
            with_cache=self._settings.cache_memory_bytes > 0,
            with_frontend=self._settings.frontend == "on",
        )
        for number in STOP_SIGNALS:
            # nohup and the shell's "&" have a signal ignored on purpose.
            if signal.getsignal(number) is signal.SIG_IGN and number != signal.SIGTERM:
                continue
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, cluster)
        running = await self._until_stopped(cluster.start())
        if running is not None:
            try:
                self._folder.write_running(running)
                # A full disk, say, is no reason not to serve what is there: it is said, and the cluster goes on.
                settling = wait_until_writable(running.directory_url, store_count, timeout_seconds=SETTLE_SECONDS)
                if await self._until_stopped(settling) is False:
                    self._log("up", "not all Stores take photos yet; see: haystack status")
                if self._stop.is_set():
                    return 0
                self._announce(running)
                await self._until_stopped(cluster.failed())
            finally:
                self._folder.remove_running()
                await cluster.stop()
        return EXIT_KILLED if self._killed else 0

    async def _until_stopped(self, work: Coroutine[Any, Any, _Result]) -> _Result | None:
        """Return the work's result, or None when the signal to stop came first."""
        task = asyncio.create_task(work)
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
        return None if task.cancelled() else task.result()

    def _on_signal(self, cluster: Cluster) -> None:
        if self._stop.is_set():
            self._killed = True
            self._output.note("Killing everything.")
            cluster.kill_now()
        else:
            self._output.note("Stopping; Ctrl-C again kills.")
            self._stop.set()

    def _log(self, name: str, line: str) -> None:
        # Whoever read the log went away. That is no reason to stop serving photos.
        with contextlib.suppress(BrokenPipeError):
            self._output.note(f"{name:<{len(DIRECTORY)}} | {line}")

    def _announce(self, running: Running) -> None:
        out, data = self._output, self._settings.data
        out.document(
            {
                "directory": running.directory_url,
                "stores": [
                    {"url": local_url(one.url), "data": one.data, **asdict(self._layout.place(number))}
                    for number, one in enumerate(running.stores, 1)
                ],
                "cache": local_url(running.cache.url) if running.cache else None,
                "frontend": local_url(running.frontend.url) if running.frontend else None,
                "replication": self._layout.replication,
                "data": str(data),
            }
        )
        out.say(f"Haystack is up. Everything is kept in {data}")
        out.say(f"  directory  {running.directory.url}")
        for number, store in enumerate(running.stores, 1):
            place = self._layout.place(number)
            where = f"  {place.data_center}, {place.rack}" if self._layout.racks > 1 else ""
            out.say(f"  {f'store{number}':<9}  {store.url}{where}")
        if running.cache:
            memory = format_size(self._settings.cache_memory_bytes)
            out.say(f"  {CACHE:<9}  {running.cache.url}  {memory} of memory")
        if running.frontend:
            out.say(f"  {FRONTEND:<9}  {running.frontend.url}  the photo service")
        promise = parse_replication(self._layout.replication)
        if promise.copies > 1:
            out.say(f"Copies of each photo ({self._layout.replication}): {promise.in_words()}.")
        program = _program()
        where = "" if running.directory_url == DEFAULT_DIRECTORY_URL else f" --directory {running.directory_url}"
        lines = [
            (f"{program} import{where} ~/Pictures", "puts a folder of photos in, and lists the fid of each"),
            (f"{program} status --data {data}", "says how the cluster is"),
            (f"{running.directory_url}/<fid>", "shows a photo in your browser; without <fid>, the cluster"),
        ]
        if running.frontend:
            lines.insert(0, (local_url(running.frontend.url), "is a photo site: sign up and upload photos"))
        width = max(len(what) for what, _ in lines)
        out.say("Next, while this runs:")
        for what, why in lines:
            out.say(f"  {what:<{width}}  {why}")


def _program() -> str:
    """Return how the user may call us again: by name, or by the path that was used when that is not on PATH."""
    called = Path(sys.argv[0])
    if shutil.which("haystack") or called.name != "haystack":
        return "haystack"
    return os.path.relpath(called)
