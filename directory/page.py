"""The page at ``/``: what a newcomer sees who opens the Directory's address in a browser.

It needs nothing but itself: no script, no picture, nothing from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from directory.decisions.liveness import Liveness
from directory.repair.healer import Healer
from directory.service import Service
from directory.status import copy_counts, counts, problems, volume_report
from haystack import __version__
from haystack.units import format_duration, format_size

MAX_ROWS = 500
"""Rows of each table; /dir/status has everything."""

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --soft: #5d6b7a; --line: #dde3ea; --paper: #fff; --card: #f5f7fa;
  --good: #1a7f4b; --bad: #c0362c; --wait: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ef; --soft: #98a5b3; --line: #313b47; --paper: #14191f;
  --card: #1c232b; --good: #4cc38a; --bad: #ff7b72; --wait: #e3b341; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 2rem 1.25rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.5rem; } h2 { margin: 2rem 0 .5rem; font-size: 1.1rem; }
p { margin: .25rem 0; } .soft { color: var(--soft); }
dl { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.5rem 0 0; }
dl div { flex: 1 1 8rem; padding: .75rem 1rem; border-radius: .5rem; background: var(--card); }
dt { color: var(--soft); font-size: .85rem; } dd { margin: 0; font-size: 1.4rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; } table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .75rem .4rem 0; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
th { color: var(--soft); font-weight: 500; font-size: .85rem; } .number { text-align: right; }
.alive, .writable { color: var(--good); } .dead, .failed { color: var(--bad); }
.unknown, .recovering, .readonly { color: var(--wait); }
ul.problems { padding: .75rem 1rem .75rem 2rem; border-radius: .5rem; background: var(--card); color: var(--bad); }
code { padding: .1rem .35rem; border-radius: .25rem; background: var(--card); font-size: .9em; }
a { color: inherit; }
"""


def render(service: Service, healer: Healer, address: str) -> str:
    """Return the page as HTML. ``address``: host and port of this Directory, as the reader reached it."""
    numbers = {**counts(service), **copy_counts(service, healer)}
    found = problems(service, healer)
    tiles = (
        ("Photos", f"{numbers['photos']:,}"),
        ("Stores alive", f"{numbers['storesAlive']} of {numbers['stores']}"),
        ("Volumes without all copies", str(numbers["volumesDegraded"])),
        ("Copies being made", str(numbers["copiesRunning"])),
        ("Volumes writable", f"{numbers['volumesWritable']} of {numbers['volumes']}"),
    )
    tiles_html = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in tiles)
    problems_html = "".join(f"<li>{escape(text)}</li>" for text in found[:MAX_ROWS])
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="10">
<title>Haystack: {escape(address)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Haystack Directory</h1>
<p class="soft">version {escape(__version__)}, cluster {escape(service.cluster_id)}</p>
<dl>{tiles_html}</dl>
{f'<h2>Needs attention</h2><ul class="problems">{problems_html}</ul>' if found else ""}
<h2>Stores</h2>
{_stores(service)}
{_caches(service)}
<h2>Volumes</h2>
{_volumes(service)}
{_repairs(healer)}
<h2>Try it</h2>
<p>Get a place for a photo: <code>curl http://{escape(address)}/dir/assign</code></p>
<p>Put it there: <code>curl -F file=@photo.jpg http://&lt;url&gt;/&lt;fid&gt;</code>, with <code>url</code> and
<code>fid</code> from the answer. Then open the same address in the browser.</p>
<p class="soft">As JSON: <a href="/dir/status?pretty=y">/dir/status</a>,
<a href="/cluster/status?pretty=y">/cluster/status</a>; for Prometheus: <a href="/metrics">/metrics</a></p>
</body>
</html>
"""


def _stores(service: Service) -> str:
    states = sorted(service.cluster.stores.values(), key=lambda state: state.document.url)
    if not states:
        return "<p>None yet. Start one: <code>haystack store --data DIR --directory URL</code></p>"
    now_seconds = service.clock()
    rows = []
    for state in states[:MAX_ROWS]:
        document = state.document
        liveness = service.cluster.liveness(document.store_id, now_seconds)
        seen = state.last_seen_seconds
        ago = "" if seen is None else f"{format_duration(now_seconds - seen)} ago"
        free_bytes = sum(folder.free_bytes for folder in state.folders.values())
        total_bytes = sum(folder.total_bytes for folder in state.folders.values())
        known = liveness is not Liveness.UNKNOWN
        rows.append(
            (
                escape(document.public_url),
                _state(liveness.value) + (f" {_state(state.mark.mark)}" if state.mark.mark != "none" else ""),
                ago,
                escape(f"{document.data_center} / {document.rack}"),
                str(len(state.volumes)),
                f"{format_size(free_bytes)} of {format_size(total_bytes)}" if known else "",
            )
        )
    return _table(("Address", "State", "Heard from", "Place", "Volumes", "Free"), rows, len(states), numbers=(4, 5))


def _caches(service: Service) -> str:
    """Return the Caches; nothing when there are none."""
    states = service.caches.states()
    rows = []
    for state, alive in states[:MAX_ROWS]:
        beat, counters = state.beat, state.beat.counters
        served_bytes = sum(counters.get(name, 0) for name in ("hitBytes", "missBytes", "passBytes"))
        rows.append(
            (
                escape(beat.public_url),
                _state("alive" if alive else "dead"),
                f"{format_size(int(counters.get('usedBytes', 0)))} of {format_size(beat.memory_bytes)}",
                f"{counters.get('entries', 0):,.0f}",
                f"{state.reads_per_second:,.0f}",
                _share(counters.get("hits", 0), counters.get("requests", 0)),
                _share(counters.get("hitBytes", 0), served_bytes),
            )
        )
    if not rows:
        return ""
    header = ("Address", "State", "Memory", "Photos", "Reads a second", "Hits", "Hits by bytes")
    return "<h2>Caches</h2>" + _table(header, rows, len(states), numbers=(2, 3, 4, 5, 6))


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else ""


def _volumes(service: Service) -> str:
    volumes = sorted(service.cluster.records)
    if not volumes:
        return "<p>None yet. They are made when the first Store has registered.</p>"
    rows = []
    for volume in volumes[:MAX_ROWS]:
        record = service.cluster.records[volume]
        reported = volume_report(service, volume)
        store = service.cluster.stores.get(record.primary)
        rows.append(
            (
                str(volume),
                _state(reported.state if reported else record.state),
                escape(store.document.public_url if store else record.primary),
                f"{len(record.in_sync)} of {record.promised}",
                f"{reported.live_count if reported else record.live_count:,}",
                format_size(reported.size_bytes if reported else record.size_bytes),
                format_size(reported.max_bytes) if reported else "",
            )
        )
    header = ("Volume", "State", "Primary", "In sync", "Photos", "Size", "Limit")
    return _table(header, rows, len(volumes), numbers=(3, 4, 5, 6))


def _repairs(healer: Healer) -> str:
    """Return what repair does now; nothing when it does nothing."""
    if not healer.running and not healer.plan.waiting:
        return ""
    rows = []
    stores = healer.service.cluster.stores
    for progress in healer.running.values():
        step = progress.step
        target = stores[step.target].document.public_url if step.target in stores else step.target
        done = f"{format_size(progress.copied_bytes)} of {format_size(progress.total_bytes)}"
        rows.append((str(step.volume), step.action.value, escape(target), done, escape(step.reason)))
    for waiting in healer.plan.waiting[:MAX_ROWS]:
        rows.append((str(waiting.volume), "waits", "", "", escape(waiting.reason)))
    header = ("Volume", "Step", "Store", "Copied", "Why")
    return "<h2>Repair</h2>" + _table(header, rows[:MAX_ROWS], len(rows), numbers=(3,))


def _state(word: str) -> str:
    return f'<span class="{escape(word)}">{escape(word)}</span>'


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], total: int, *, numbers: Sequence[int]) -> str:
    """Return a table of cells that are HTML already."""
    classes = [' class="number"' if column in numbers else "" for column in range(len(header))]
    head = "".join(f"<th{kind}>{text}</th>" for kind, text in zip(classes, header, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(classes, row, strict=True)) + "</tr>"
        for row in rows
    )
    more = f'<p class="soft">The first {MAX_ROWS} of {total}.</p>' if total > MAX_ROWS else ""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}'
