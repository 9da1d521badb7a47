"""A trial in the store: what its experiments came to, and what is tried next once they have ended."""

import logging
import math
from collections.abc import Iterable

from sqlalchemy import Connection

from gradprobe.errors import QueueFull, TooManyExperiments
from gradprobe.settings import Settings
from gradprobe.state import Status
from gradprobe.store import admission, experiments, sweeps
from gradprobe.store.admission import Room
from gradprobe.store.experiments import Member
from gradprobe.store.sweeps import Group, Place
from gradprobe.trial.design import Change, Design, combined, specs
from gradprobe.trial.ranking import Outcome, Ranking, rank

_logger = logging.getLogger(__name__)


def ranking_of(group: Group, members: Iterable[Place]) -> Ranking:
    """What the changes of a group of kind `remedies` did so far."""
    return rank(Design.of_document(group.definition), outcomes_of(members))


def outcomes_of(members: Iterable[Place]) -> dict[tuple[str, int], Outcome]:
    """Of the members that succeeded, by change and seed."""
    return {
        (member.member["change"], member.member["seed"]): _outcome(member)
        for member in members
        if member.status is Status.SUCCEEDED and member.result is not None
    }


def members_of(group: Group, design: Design, changes: Iterable[Change]) -> list[Member]:
    """The experiments that try these changes over the design's seeds."""
    return [Member(spec, place) for spec, place in specs(group.base, design.seeds, tuple(changes))]


def advance(connection: Connection, settings: Settings) -> list[str]:
    """Look at the groups whose experiments have all ended; the ids of those to which combinations were added.

    Of any number of processes that do this at once, one moves a group on.
    """
    grown = []
    for group in sweeps.finished_stages(connection):
        design = Design.of_document(group.definition)
        changes = _next_changes(group, design, ranking_of(group, sweeps.members(connection, group.id)))
        if changes and not _has_room(connection, group, len(changes) * len(design.seeds), settings):
            continue  # looked at again in the next round
        wider = Design(design.rule, design.seeds, (*design.changes, *changes))
        if sweeps.advance(connection, group, sweeps.COMPLETE, wider.document()) and changes:
            members = members_of(group, design, changes)
            experiments.create_members(connection, group.id, members, settings.maximum_attempts)
            grown.append(group.id)
    return grown


def _next_changes(group: Group, design: Design, found: Ranking) -> list[Change]:
    if found.enough is not None:
        return []
    tried = [one.change for one in found.changes if one.change.arm == "remedy" and one.ended]
    return combined(group.base, tried)


def _has_room(connection: Connection, group: Group, wanted: int, settings: Settings) -> bool:
    room = Room(settings.maximum_waiting, settings.maximum_active)
    try:
        admission.require_room(connection, group.owner, room, wanted=wanted)
    except (TooManyExperiments, QueueFull) as error:
        _logger.info("%s: combinations wait for room: %s", group.id, error.message)
        return False
    return True


def _outcome(member: Place) -> Outcome:
    result, summary = member.result or {}, member.summary or {}
    loss = result.get("final_loss")
    # A loss that was not finite is null in the result.
    finite = math.inf if loss is None else loss
    # Of what a rule that failed looks for nothing is known, so it can't be called healthy.
    verdict = None if summary.get("failed_rules") else member.verdict
    return Outcome(verdict, result.get("test_accuracy"), finite, summary.get("delta_ratio_initial"))
