"""A stand-in for a role: says that it is ready, notes what happens to it, and misbehaves when told to.

Arguments: NAME FOLDER [BEHAVIOUR…]. Behaviours: "fail" (say why and end with 3), "silent" (never ready), "deaf" (ignore
SIGTERM), "worker" (start a child that is deaf), "flood" (much output), "once" (fail, but not in the first run).
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

name, folder, *behaviours = sys.argv[1:]
journal = Path(folder) / "journal"


def note(event: str) -> None:
    with journal.open("a") as file:
        file.write(f"{name} {event} {os.getpid()}\n")


def on_term(*_: object) -> None:
    note("stopping")
    sys.exit(0)


signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in behaviours else on_term)
first = not (journal.exists() and f"{name} started" in journal.read_text())
note("started")
if "worker" in behaviours:
    code = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", code])
if "flood" in behaviours:
    sys.stdout.write("x" * 1_000_000 + "\n" + "y\n" * 1000)
if "fail" in behaviours or ("once" in behaviours and not first):
    print("a line before")
    print(f"haystack: {name}: port 8080 is in use", file=sys.stderr)
    sys.exit(3)
if "silent" not in behaviours:
    admin = "" if name == "directory" else ", admin http://127.0.0.1:2"
    role = "directory" if name == "directory" else "store"
    # In one write: whoever stops us once we are ready must find both lines.
    print(f"{role}: listening on http://0.0.0.0:1{admin}, data in {folder}, and more\nserving", flush=True)
while True:
    time.sleep(600)
