"""The hit ratios as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cache_traces.table import Row
from benchmarks.common import CannotMeasure

_STYLES: dict[str, dict[str, Any]] = {
    "Bélády": {"color": "black", "linestyle": ":", "marker": "."},
    "Varnish's LRU": {"color": "tab:gray", "linestyle": "--", "marker": "x"},
    "lru": {"color": "tab:blue", "linewidth": 2, "marker": "o"},
    "s3fifo": {"color": "tab:red", "linewidth": 2, "marker": "o"},
}


def plot(rows: Sequence[Row], file: Path) -> None:
    """One panel a trace: hit ratio by requests over the size of the cache. Raises CannotMeasure without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise CannotMeasure("plots need matplotlib: pip install 'haystack-photos[plots]'") from error
    traces = list(dict.fromkeys(row.trace for row in rows))
    figure, panels = pyplot.subplots(1, len(traces), figsize=(2.5 * len(traces), 3.4), sharey=True, squeeze=False)
    for panel, trace in zip(panels[0], traces, strict=True):
        for policy in dict.fromkeys(row.policy for row in rows if row.trace == trace):
            points = [
                (row.share * 100, row.result.hit_ratio * 100)
                for row in rows
                if (row.trace, row.policy) == (trace, policy)
            ]
            panel.plot(*zip(*points, strict=True), label=policy, **_STYLES.get(policy, {"marker": ".", "linewidth": 1}))
        panel.set_title(trace, fontsize=10)
        panel.set_xscale("log")
        panel.set_xticks([1, 5, 20], ["1%", "5%", "20%"])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("hits, % of the requests")
    figure.supxlabel("size of the cache, % of the set", fontsize=10)
    figure.legend(*panels[0][-1].get_legend_handles_labels(), loc="outside upper center", ncols=9, fontsize=8)
    figure.set_layout_engine("constrained")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=80)
    pyplot.close(figure)
