"""Every call of the HTTP contract that concerns groups of experiments, written once for both clients."""

import builtins
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from gradprobe.client.errors import WaitTimeout
from gradprobe.client.exchange import Exchange
from gradprobe.client.progress import shown
from gradprobe.client.requests import CompareSelection, Query, Request, creation, group_path, query_of, spec_body
from gradprobe.group_resources import (
    ComparisonDocument,
    Remedies,
    RemediesList,
    RemediesSummary,
    Sweep,
    SweepComparison,
    SweepPage,
    SweepSummary,
)

if TYPE_CHECKING:
    from gradprobe.spec import Spec

Group = TypeVar("Group", Sweep, Remedies)

_PAGE = 100
_POLL_SECONDS = 0.5


class GroupCalls:
    """Part of `Calls`: what concerns more than one experiment."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def sweep(
        self,
        axes: Mapping[str, Sequence[Any]],
        base: "Spec | Mapping[str, Any] | None" = None,
        *,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Sweep:
        """Submit the product of the axes as one group; all of it is validated before any of it is stored."""
        body = {
            "name": name,
            "tags": dict(tags or {}),
            "base": spec_body(base, given_alone=True),
            "axes": {pointer: [*values] for pointer, values in axes.items()},
        }
        return await self._exchange.send(Sweep, creation("/sweeps", body, idempotency_key))

    async def get_sweep(self, sweep_id: str) -> Sweep:
        """One sweep: its members, and how far they are."""
        return await self._exchange.read(Sweep, group_path("sweeps", sweep_id))

    async def list_sweeps(self, limit: int | None = None) -> AsyncGenerator[SweepSummary, None]:
        """Sweeps, newest first, page after page as they are consumed; `limit` is a total."""
        cursor, left = None, limit
        while left is None or left > 0:
            query: Query = {"limit": _PAGE if left is None else min(left, _PAGE), "cursor": cursor}
            page = await self._exchange.read(SweepPage, "/sweeps", query)
            for sweep in page.items if left is None else page.items[:left]:
                yield sweep
            if page.next_cursor is None:
                return
            cursor, left = page.next_cursor, None if left is None else left - len(page.items)

    async def compare_sweep(self, sweep_id: str, sort: str | None = None) -> SweepComparison:
        """A sweep as one table, column by column; `sort` is a column or an axis, with `-` the largest first."""
        return await self._exchange.read(SweepComparison, group_path("sweeps", sweep_id, "comparison"), {"sort": sort})

    async def cancel_sweep(self, sweep_id: str) -> Sweep:
        """Ask all members to stop; those that have ended stay as they are."""
        request = Request("POST", group_path("sweeps", sweep_id, "cancel"), repeatable=True)
        return await self._exchange.send(Sweep, request)

    async def delete_sweep(self, sweep_id: str) -> None:
        """Delete a sweep with all its experiments; where some run it is refused: cancel it first."""
        await self._exchange.delete(group_path("sweeps", sweep_id))

    async def wait_sweep(
        self,
        sweep_id: str,
        timeout: float | None = None,
        on_progress: Callable[[Sweep], None] | None = None,
        *,
        progress: bool = False,
    ) -> Sweep:
        """Wait until all members have ended, whichever way; raises WaitTimeout after `timeout` seconds."""
        with shown(progress, sweep_id) as show:
            return await self._ended(lambda: self.get_sweep(sweep_id), timeout, (on_progress, show))

    async def remedies(
        self,
        experiment_id: str,
        remedies: Iterable[str] | None = None,
        *,
        seeds: int = 3,
        controls: int | None = None,
        idempotency_key: str | None = None,
    ) -> Remedies:
        """Try the diagnosis's remedies, paired with the plain spec and with random changes over the same seeds."""
        body = {"remedies": None if remedies is None else [*remedies], "seeds": seeds, "controls": controls}
        path = group_path("experiments", experiment_id, "remedies")
        return await self._exchange.send(Remedies, creation(path, body, idempotency_key))

    async def get_remedies(self, remedies_id: str) -> Remedies:
        """How far a trial is, and what each change did as far as it has ended."""
        return await self._exchange.read(Remedies, group_path("remedies", remedies_id))

    async def list_remedies(self, experiment_id: str) -> builtins.list[RemediesSummary]:
        """The trials of an experiment's remedies, newest first."""
        path = group_path("experiments", experiment_id, "remedies")
        return (await self._exchange.read(RemediesList, path)).items

    async def cancel_remedies(self, remedies_id: str) -> Remedies:
        """Ask all of a trial to stop, and try nothing more."""
        request = Request("POST", group_path("remedies", remedies_id, "cancel"), repeatable=True)
        return await self._exchange.send(Remedies, request)

    async def delete_remedies(self, remedies_id: str) -> None:
        """Delete a trial with all its experiments; the one whose remedies they are stays."""
        await self._exchange.delete(group_path("remedies", remedies_id))

    async def wait_remedies(
        self,
        remedies_id: str,
        timeout: float | None = None,
        on_progress: Callable[[Remedies], None] | None = None,
        *,
        progress: bool = False,
    ) -> Remedies:
        """Wait until nothing more is tried, and return the ranking; raises WaitTimeout after `timeout` seconds."""
        with shown(progress, remedies_id) as show:
            return await self._ended(lambda: self.get_remedies(remedies_id), timeout, (on_progress, show))

    async def compare(self, experiments: Iterable[str], **selection: Unpack[CompareSelection]) -> ComparisonDocument:
        """Up to 20 experiments side by side; with `max_points` all are cut into the same buckets of iterations."""
        query = {"experiments": ",".join(experiments), **query_of(selection)}
        return await self._exchange.read(ComparisonDocument, "/comparisons", query)

    async def _ended(
        self,
        look: Callable[[], Awaitable[Group]],
        timeout: float | None,
        listeners: Iterable[Callable[[Group], None] | None],
    ) -> Group:
        deadline = None if timeout is None else time.monotonic() + timeout
        told = [listener for listener in listeners if listener]
        while True:
            found = await look()
            for tell in told:
                tell(found)
            if found.status == "ended":
                return found
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeout(f"{found.id} had not ended after {timeout:g} s; it goes on")
            await self._exchange.wire.pause(_POLL_SECONDS)
