"""wrk, the load generator of both sides, driven by Lua scripts that make requests cheaply.

Every request is a string that was made before the clock started, or is put together from such strings, so that wrk's
core spends its time on the sockets. The script reports through ``done``, so nothing is parsed out of prose.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import CannotMeasure
from benchmarks.processes import pinned

MARK = "result: "
SPARE_SECONDS = 60.0

DONE = (
    """
local started_threads = {}
function setup(thread)
    table.insert(started_threads, thread)
    thread:set("number", #started_threads)
end
function done(summary, latency, requests)
    local asked = 0
    for _, thread in ipairs(started_threads) do asked = asked + (thread:get("asked") or 0) end
    local e = summary.errors
    io.write(string.format(
        '"""
    + MARK
    + """{"asked":%d,"requests":%d,"microseconds":%d,"bytes":%d,"p50":%d,"p99":%d,"max":%d,' ..
        '"status":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d}\\n',
        asked, summary.requests, summary.duration, summary.bytes,
        latency:percentile(50), latency:percentile(99), latency.max,
        e.status, e.connect, e.read, e.write, e.timeout))
end
"""
)

RANDOM_PATHS = (
    DONE
    + """
-- args: file of paths, file of header lines, seed. Asks for random paths of the file.
asked = 0
function init(args)
    for line in io.lines(args[2]) do
        local name, value = line:match("^([^:]+): (.*)$")
        wrk.headers[name] = value
    end
    requests = {}
    for path in io.lines(args[1]) do requests[#requests + 1] = wrk.format("GET", path) end
    count = #requests
    math.randomseed(tonumber(args[3]) + number)
end
function request()
    asked = asked + 1
    return requests[math.random(count)]
end
"""
)

EACH_PATH_ONCE = (
    DONE
    + """
-- args: file of paths. Asks for each path once, in the order of the file, and counts what it asked for.
asked = 0
function init(args)
    requests = {}
    for path in io.lines(args[1]) do requests[#requests + 1] = wrk.format("GET", path) end
    count = #requests
end
function request()
    asked = asked + 1
    return requests[math.min(asked, count)]
end
"""
)

RANDOM_KEYS = (
    DONE
    + """
-- args: first key (a multiple of 65536), number of keys, volume, cookie, seed, how many of the keys to ask for. Asks
-- for random keys, out of so many at equal distances, of a volume in which all have the same cookie; for more keys than
-- there is room for ready-made requests.
asked = 0
function init(args)
    first, count = tonumber(args[1]), tonumber(args[2])
    distinct = tonumber(args[6])
    step = math.floor(count / distinct)
    high, low = {}, {}
    local whole = wrk.format("GET", "/" .. args[3] .. ",@" .. args[4])
    local cut = whole:find("@", 1, true)
    local before, after = whole:sub(1, cut - 1), whole:sub(cut + 1)
    for n = 0, math.floor(count / 65536) do high[n] = before .. string.format("%x", first / 65536 + n) end
    for n = 0, 65535 do low[n] = string.format("%04x", n) .. after end
    math.randomseed(tonumber(args[5]) + number)
end
function request()
    local n = math.random(0, distinct - 1) * step
    local l = n % 65536
    return high[(n - l) / 65536] .. low[l]
end
"""
)

UPLOADS = (
    DONE
    + """
-- args: first key, volumes with commas between, file with the body, cookie, uploads of a turn. Each request is a PUT of
-- a new photo; the volumes take turns.
asked = 0
function init(args)
    key, turn, volumes = tonumber(args[1]) + number * 2^40, tonumber(args[5]), {}
    for volume in args[2]:gmatch("[0-9]+") do volumes[#volumes + 1] = volume end
    local file = io.open(args[3], "rb")
    local body = file:read("*a")
    file:close()
    wrk.headers["Content-Type"] = "image/jpeg"
    local whole = wrk.format("PUT", "/@" .. args[4], nil, body)
    local cut = whole:find("@", 1, true)
    before, after = whole:sub(1, cut - 1), whole:sub(cut + 1)
end
function request()
    key, asked = key + 1, asked + 1
    return before .. volumes[1 + math.floor(key / turn) % #volumes] .. "," .. string.format("%x", key) .. after
end
"""
)


@dataclass(frozen=True, slots=True)
class Result:
    """What wrk found.

    Parameters
    ----------
    asked: requests that were begun, where the script counts them.
    requests: answers that were read whole.
    seconds: how long it took.
    body_and_head_bytes: what was read.
    p50_ms, p99_ms, max_ms: latencies.
    busy: part of its core's time that wrk itself used, 1 for each full core.
    """

    asked: int
    requests: int
    seconds: float
    body_and_head_bytes: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    busy: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Run:
    """One run against a server; ``busy`` is the part of their cores' time that the server's workers used."""

    result: Result
    busy: float

    @property
    def per_cpu_second(self) -> float:
        """Requests in one second of the workers' CPU time: hardly moved by what else the machine does."""
        return self.result.per_second / self.busy if self.busy else 0.0


def parse(output: str, cpu_seconds: float) -> Result:
    """Read the result line of our scripts. Raises CannotMeasure when answers were wrong or missing."""
    marked = [line.removeprefix(MARK) for line in output.splitlines() if line.startswith(MARK)]
    if len(marked) != 1:
        raise CannotMeasure(f"wrk gave no result:\n{output}")
    found: dict[str, int] = json.loads(marked[0])
    problems = [f"{found[kind]} {kind}" for kind in ("status", "connect", "read", "write", "timeout") if found[kind]]
    if problems or not found["requests"]:
        raise CannotMeasure(f"wrk met errors: {', '.join(problems) or 'no answer at all'}")
    seconds = found["microseconds"] / 1e6
    return Result(
        found["asked"],
        found["requests"],
        seconds,
        found["bytes"],
        found["p50"] / 1e3,
        found["p99"] / 1e3,
        found["max"] / 1e3,
        cpu_seconds / seconds,
    )


def run(
    url: str,
    script: str,
    script_arguments: Sequence[object],
    *,
    folder: Path,
    seconds: float,
    connections: int,
    threads: int,
    cores: Sequence[int],
) -> Result:
    """Run wrk and wait for it.

    Parameters
    ----------
    script: Lua text, one of those above.
    folder: for the script's file.
    cores: processor cores that wrk may use.
    """
    script_path = folder / f"load-{threading.get_ident()}.lua"
    script_path.write_text(script)
    argv = ["wrk", "-t", str(threads), "-c", str(connections), "-d", f"{max(1, round(seconds))}s", "--timeout", "30s"]
    argv += ["-s", str(script_path), url, "--", *map(str, script_arguments)]
    process = subprocess.Popen(
        pinned(argv, cores), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    watchdog = threading.Timer(seconds + SPARE_SECONDS, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        watchdog.cancel()
        if process.returncode is None:
            process.kill()
            process.wait()
    return parse(output, usage.ru_utime + usage.ru_stime)
