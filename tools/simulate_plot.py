"""The curves of ``haystack simulate`` as one picture. matplotlib is an extra of its own: ``haystack-photos[plots]``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from directory.simulation.scenario import MONTH_SECONDS
from haystack.errors import ConfigError

_Curve = tuple[str, Callable[[Mapping[str, Any]], float]]

WIDTH_INCHES = 13
HEIGHT_INCHES = 11
DOTS_PER_INCH = 80


def check() -> None:
    """Raise ConfigError when nothing can be drawn here."""
    if find_spec("matplotlib") is None:
        raise ConfigError("--plot needs matplotlib, which is not installed: pip install 'haystack-photos[plots]'")


def draw(path: Path, document: Mapping[str, Any], other: Mapping[str, Any] | None = None) -> None:
    """Write a PNG.

    Parameters
    ----------
    document: what the run prints with ``--json``.
    other: the same of another run, whose curves are dashed.
    """
    from matplotlib.figure import Figure  # takes a second to import, which the other commands need not wait for

    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DOTS_PER_INCH, layout="constrained")
    for axes, (title, unit, curves) in zip(figure.subplots(3, 2).flat, _panels(), strict=True):
        for number, (name, value) in enumerate(curves):
            color = f"C{number}"
            axes.plot(*_points(document, value), color=color, label=name)
            if other is not None:
                axes.plot(
                    *_points(other, value), color=color, linestyle="--", alpha=0.6, label=f"{name}, the other run"
                )
        axes.set_title(title)
        axes.set_xlabel("months")
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=1.0 if title == "Load" else 0.0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, format="png", metadata={"Software": "haystack simulate"})


def _points(
    document: Mapping[str, Any], value: Callable[[Mapping[str, Any]], float]
) -> tuple[list[float], list[float]]:
    samples = document["samples"]
    return [sample["seconds"] / MONTH_SECONDS for sample in samples], [value(sample) for sample in samples]


def _panels() -> Sequence[tuple[str, str, Sequence[_Curve]]]:
    return (
        (
            "Load",
            "times the mean of the machines",
            (("busiest machine", _field("load_max")), ("99 of 100", _field("load_p99"))),
        ),
        (
            "Fill",
            "% of the disks",
            (
                ("fullest machine", _field("fill_max", 100)),
                ("mean", _field("fill_mean", 100)),
                ("emptiest machine", _field("fill_min", 100)),
            ),
        ),
        (
            "Bytes",
            "PB",
            (("moved", _field("moved_bytes", 1e-15)), ("copied by repair", _field("repaired_bytes", 1e-15))),
        ),
        ("Hardware", "thousands", (("machines", _field("machines", 1e-3)), ("disks", _field("disks", 1e-3)))),
        (
            "Time without all copies",
            "volume-hours so far",
            (("of all volumes together", _field("degraded_volume_seconds", 1 / 3600)),),
        ),
        ("Volumes lost", "expected so far", (("from volumes that had lost a copy", _field("losses")),)),
    )


def _field(name: str, factor: float = 1.0) -> Callable[[Mapping[str, Any]], float]:
    return lambda sample: float(sample[name]) * factor
