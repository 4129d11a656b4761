"""The hit ratios as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cache_traces.table import Row
from benchmarks.common import CannotMeasure

_STYLES: dict[str, dict[str, Any]] = {
    "lru": {"color": "tab:blue", "linewidth": 2, "marker": "o"},
    "s3fifo": {"color": "tab:red", "linewidth": 2, "marker": "o"},
    "lru, paper's admission": {"color": "tab:blue", "linestyle": "--", "marker": "s"},
    "s3fifo, paper's admission": {"color": "tab:red", "linestyle": "--", "marker": "s"},
    "plain LRU": {"color": "tab:cyan"},
    "SIEVE": {"color": "tab:orange"},
    "W-TinyLFU": {"color": "tab:green"},
    "Varnish's LRU": {"color": "tab:gray", "linestyle": "--", "marker": "x"},
    "Bélády": {"color": "black", "linestyle": ":"},
}
RECENT_GOAL = 80.0
"""What the Haystack paper reports of its Cache, for photos of volumes that take writes: % of the requests."""


def plot(rows: Sequence[Row], file: Path) -> None:
    """A panel for each trace, and for its recent photos: hit ratio by requests over the size of the cache.

    Raises CannotMeasure without matplotlib.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise CannotMeasure("plots need matplotlib: pip install 'haystack-photos[plots]'") from error
    panels = [(trace, False) for trace in dict.fromkeys(row.trace for row in rows)]
    panels += [(trace, True) for trace in dict.fromkeys(row.trace for row in rows if row.result.recent)]
    columns = -(-len(panels) // 2)
    figure, axes = pyplot.subplots(2, columns, figsize=(3.2 * columns, 6.4), sharex=True, sharey=True, squeeze=False)
    for (trace, recent), panel in zip(panels, axes.flat, strict=False):
        for policy in dict.fromkeys(row.policy for row in rows if row.trace == trace):
            found = [row for row in rows if (row.trace, row.policy) == (trace, policy)]
            shares = [row.share * 100 for row in found]
            ratios = [(row.result.recent_hit_ratio if recent else row.result.hit_ratio) * 100 for row in found]
            panel.plot(shares, ratios, label=policy, **{"marker": ".", "linewidth": 1, **_STYLES.get(policy, {})})
        if recent:
            panel.axhline(RECENT_GOAL, color="black", linewidth=0.6)
        panel.set_title(f"{trace},\nat most a day old" if recent else trace, fontsize=10)
        panel.set_xscale("log")
        panel.set_xticks([1, 5, 20], ["1%", "5%", "20%"])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    for unused in axes.flat[len(panels) :]:
        unused.remove()
    figure.supylabel("hits, % of the requests", fontsize=10)
    figure.supxlabel("size of the cache, % of the set", fontsize=10)
    named = {str(line.get_label()): line for panel in figure.axes for line in panel.get_lines()}
    legend = [line for name, line in named.items() if name in _STYLES]
    figure.legend(handles=legend, loc="outside upper center", ncols=5, fontsize=8)
    figure.set_layout_engine("constrained")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=80)
    pyplot.close(figure)
