"""The safety checks of the protocol, each with a version of itself that does not check.

A mutation replaces one rule in its module, where everybody looks it up. The model has to find the bug that follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any
from unittest import mock

import model_directory
import model_store
from model_run import Outcome, Script, plan_of, run
from model_scripts import (
    SCRIPTS,
    deposed_and_back,
    end_lost_and_written_anew,
    late_delete,
    orders_of_long_ago,
    primary_of_long_ago,
    push_repeated_amid_an_admission,
)
from model_world import LogFile

from directory.decisions import failure
from directory.decisions import membership as admission
from haystack.store.replication import rules
from haystack.store.replication.membership import Membership
from haystack.store.replication.rules import Judgement, May, Push, Standing, Verdict

Change = Callable[[Any], Any]
"""From the real rule to the one that takes its place."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """A check taken away.

    Parameters
    ----------
    name: what is not done any more, in words.
    module, rule: where the check is.
    script: a run that finds it, for what chance would take too long.
    """

    name: str
    module: ModuleType
    rule: str
    change: Change
    script: Script | None = None

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the mutated rule in its place for a while."""
        with mock.patch.object(self.module, self.rule, self.change(getattr(self.module, self.rule))):
            yield


def always(value: Any) -> Change:
    return lambda real: lambda *args, **kwargs: value


def _no_epoch_check(real: Any) -> Any:
    def judge_epoch(standing: Standing, epoch: int) -> Verdict:
        return Verdict.APPEND if standing.duty in rules.RECEIVING else Verdict.EPOCH

    return judge_epoch


def _no_gap_check(real: Any) -> Any:
    def judge_batch(standing: Standing, tail: int, epoch: int, start: int, end: int) -> Judgement:
        judged = real(standing, tail, epoch, start, end)
        return Judgement(Verdict.APPEND, start) if judged.verdict is Verdict.GAP else judged

    return judge_batch


def _majority_confirms(real: Any) -> Any:
    def all_confirmed(now: Membership, me: str, confirmed: Any, start: int, end: int) -> bool:
        has = [one for one in now.followers(me) if rules.has_confirmed(now, confirmed.get(one.store_id), start, end)]
        return len(has) + 1 > len(now.in_sync) // 2

    return all_confirmed


def _learners_not_waited_for(real: Any) -> Any:
    def all_confirmed(now: Membership, me: str, confirmed: Any, start: int, end: int) -> bool:
        return bool(real(replace(now, learners=()), me, confirmed, start, end))

    return all_confirmed


def _holes_are_committed(real: Any) -> Any:
    def committed_by(committed: int, start: int, end: int) -> int:
        return max(committed, end)

    return committed_by


def _same_epoch_is_taken(real: Any) -> Any:
    def supersedes(pushed: Membership, known: Membership | None) -> Push:
        return Push.TAKE if known is None or pushed.epoch >= known.epoch else Push.OLDER

    return supersedes


def _stale_leads(real: Any) -> Any:
    def without(record: Any, lost: Any, **more: Any) -> Any:
        changed = real(record, lost, **more)
        candidates = [store for store in record.stale if more["ready"](store)]
        if changed == record or changed.primary == record.primary or not candidates:
            return changed
        return failure.tidy(replace(changed, primary=candidates[0], in_sync=(candidates[0], *changed.in_sync)), 1)

    return without


def _last_is_removed(real: Any) -> Any:
    def without(record: Any, lost: Any, **more: Any) -> Any:
        changed = real(record, lost, **more)
        candidates = [store for store in record.members if store not in lost and more["ready"](store)]
        if changed != record or not set(record.in_sync) <= set(lost) or not candidates:
            return changed
        return failure.tidy(replace(record, epoch=record.epoch + 1, primary=candidates[0], in_sync=(candidates[0],)), 1)

    return without


def _epoch_stays(real: Any) -> Any:
    def without(record: Any, lost: Any, **more: Any) -> Any:
        return replace(real(record, lost, **more), epoch=record.epoch)

    return without


def _later(real: Any) -> Any:
    async def sync(log: LogFile, seconds: float) -> None:
        asyncio.get_running_loop().create_task(log.sync(seconds))

    return sync


def _any_membership_is_believed(real: Any) -> Any:
    def admit(record: Any, reported: Any, store_id: str, **more: Any) -> Any:
        if record is not None and reported.primary is not None and reported.epoch <= record.epoch:
            record = replace(record, epoch=reported.epoch - 1)
        return real(record, reported, store_id, **more)

    return admit


MUTATIONS = (
    Mutation("a replica takes batches of any epoch", rules, "judge_epoch", _no_epoch_check, script=primary_of_long_ago),
    Mutation("a replica appends behind a gap", rules, "judge_batch", _no_gap_check),
    Mutation(
        "a replica does not compare what it has already",
        rules,
        "judge_overlap",
        always(Verdict.APPEND),
        script=end_lost_and_written_anew,
    ),
    Mutation("any Store appends", rules, "may_append", always(True)),
    Mutation(
        "a primary acknowledges what it appended in an earlier reign",
        rules,
        "same_reign",
        always(True),
        script=deposed_and_back,
    ),
    Mutation("uploads are acknowledged with fewer copies than promised", rules, "enough_copies", always(True)),
    Mutation("nobody's confirmation is waited for", rules, "all_confirmed", always(True)),
    Mutation("the majority's confirmation suffices", rules, "all_confirmed", _majority_confirms),
    Mutation("learners are not waited for", rules, "all_confirmed", _learners_not_waited_for),
    Mutation("an older membership is taken", rules, "supersedes", always(Push.TAKE), script=orders_of_long_ago),
    Mutation(
        "the same membership drops the learners",
        rules,
        "supersedes",
        _same_epoch_is_taken,
        script=push_repeated_amid_an_admission,
    ),
    Mutation("any copy may be cut", rules, "may_follow", always(True)),
    Mutation("any copy may be deleted", rules, "may_delete", always(True), script=late_delete),
    Mutation("the reign never changes", rules, "next_reign", always(0), script=deposed_and_back),
    Mutation("everything is acknowledged at once", rules, "may_acknowledge", always(May.YES)),
    Mutation("a stale copy may lead", failure, "without", _stale_leads),
    Mutation("the last copy in sync is given up for a stale one", failure, "without", _last_is_removed),
    Mutation("a new membership keeps the epoch", failure, "without", _epoch_stays),
    Mutation("a copy that the primary has not admitted counts", model_directory, "is_admitted", always(True)),
    Mutation("a primary acknowledges before its own bytes are durable", model_store, "durable_here", _later),
    Mutation("a replica answers before its bytes are durable", model_store, "durable_there", _later),
    Mutation("the Directory believes older memberships", admission, "admit", _any_membership_is_believed),
)


def found(mutation: Mutation, seeds: range) -> Outcome | None:
    """Return the first run that finds the bug; None when none of those tried does."""
    with mutation.applied():
        if mutation.script is not None:
            outcome = run(SCRIPTS[mutation.script], mutation.script)
            return outcome if outcome.problem else None
        for seed in seeds:
            outcome = run(plan_of(seed))
            if outcome.problem:
                return outcome
    return None
