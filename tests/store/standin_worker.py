"""Stands for a worker: listens on the Store's port, does what the test asks for by the environment, ends on SIGTERM.

``STANDIN_MODE``: empty (behaves), ``exit`` (ends at once), ``deaf`` (ignores SIGTERM).
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys

from haystack.store.control import ControlBlock
from haystack.store.control_cells import Counter
from haystack.store.settings import WorkerSettings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", action="append")
    for name in ("--port", "--worker", "--control-fd", "--settings-fd", "--ready-fd", "--link-fd"):
        parser.add_argument(name, type=int)
    arguments = parser.parse_args()
    mode = os.environ.get("STANDIN_MODE", "")
    if mode == "exit":
        sys.exit(3)
    settings = WorkerSettings.load(arguments.settings_fd)
    control = ControlBlock.attach(arguments.control_fd)
    control.cells[control.worker_base(settings.worker) + Counter.PID] = os.getpid()
    if mode == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((settings.host, settings.port))
    listener.listen()
    os.write(arguments.ready_fd, b"1")
    signal.pause()


main()
