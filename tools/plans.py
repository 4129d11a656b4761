"""Changes of the cluster that an operator asks for: the Directory's plan first, the change only with ``--apply``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from haystack.client.errors import UnexpectedAnswer
from tools.control import Control
from tools.output import Output

NOTHING_CHANGED = "Nothing was changed; give --apply to do it."

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Plan:
    """What a change does, step by step, as the Directory says; ``lost``: volumes of which no copy would be left."""

    steps: Sequence[str]
    lost: Sequence[int]
    applied: bool


def apply_option(command: _Function) -> _Function:
    """Add ``--apply``, which the command gets as ``apply_it``."""
    return click.option("--apply", "apply_it", is_flag=True, help="Do it; without this the plan is only shown.")(
        command
    )


async def ask(control: Control, path: str, request: Mapping[str, object], *, apply_it: bool) -> Plan:
    """Have the Directory plan a change, or do it. Raises as Control does, and UnexpectedAnswer."""
    return (await ask_whole(control, path, request, apply_it=apply_it))[0]


async def ask_whole(
    control: Control, path: str, request: Mapping[str, object], *, apply_it: bool
) -> tuple[Plan, dict[str, Any]]:
    """As :func:`ask`; returns the Directory's whole answer, too."""
    document = await control.directory("POST", path, document={**request, "dryRun": not apply_it}, signed=True)
    try:
        plan = Plan(
            steps=tuple(str(step) for step in document["steps"]),
            lost=tuple(int(volume) for volume in document.get("lost") or ()),
            applied=bool(document["applied"]),
        )
        return plan, document
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswer(
            f"{path}: the answer is not understood ({type(error).__name__}: {error}); "
            "are Directory and this command of the same release?"
        ) from error


def show(output: Output, title: str, plan: Plan, *, note: bool = True) -> None:
    """Print a plan, and whether it was carried out (``note``)."""
    output.say(f"{title}:" if plan.steps else f"{title}: nothing to do, it is so already.")
    for number, step in enumerate(plan.steps, 1):
        output.say(f"  {number}. {step}")
    if plan.lost:
        volumes = ", ".join(map(str, plan.lost))
        output.note(f"haystack: no copy would be left of volumes {volumes}: their photos would be lost.")
    if plan.steps and note:
        output.note("Done." if plan.applied else NOTHING_CHANGED)
