"""The client's calls on groups of experiments: sweeps, comparisons, remedies that are tried."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from gradprobe.client.calls import Calls
from gradprobe.client.requests import CompareSelection
from gradprobe.client.wire import each, now
from gradprobe.group_resources import (
    ComparisonDocument,
    Remedies,
    RemediesSummary,
    Sweep,
    SweepComparison,
    SweepSummary,
)

if TYPE_CHECKING:
    from gradprobe.spec import Spec


class GroupClient:
    """Part of `Client`: what concerns more than one experiment."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def sweep(
        self,
        axes: Mapping[str, Sequence[Any]],
        base: "Spec | Mapping[str, Any] | None" = None,
        *,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Sweep:
        """Submit the product of the axes as one group; all of it is validated before any of it is stored.

        Args:
            axes: by JSON pointer into the spec (`/network/activation`) the values of that field.
            base: what all members have in common, a mapping with any part of a spec; a `Spec` has every field set.
            name: of the sweep; its members' names begin with it.
            tags: of the sweep and of all its members.
            idempotency_key: as for `create`.
        """
        return now(self._calls.sweep(axes, base, name=name, tags=tags, idempotency_key=idempotency_key))

    def get_sweep(self, sweep_id: str) -> Sweep:
        """One sweep: its members, and how far they are."""
        return now(self._calls.get_sweep(sweep_id))

    def list_sweeps(self, limit: int | None = None) -> Iterator[SweepSummary]:
        """Sweeps, newest first, page after page as they are consumed; `limit` is a total."""
        return each(self._calls.list_sweeps(limit))

    def compare_sweep(self, sweep_id: str, sort: str | None = None) -> SweepComparison:
        """A sweep as one table, column by column; `sort` is a column or an axis, with `-` the largest first."""
        return now(self._calls.compare_sweep(sweep_id, sort))

    def cancel_sweep(self, sweep_id: str) -> Sweep:
        """Ask all members to stop; those that have ended stay as they are."""
        return now(self._calls.cancel_sweep(sweep_id))

    def delete_sweep(self, sweep_id: str) -> None:
        """Delete a sweep with all its experiments; where some run it is refused: cancel it first."""
        now(self._calls.delete_sweep(sweep_id))

    def wait_sweep(
        self,
        sweep_id: str,
        timeout: float | None = None,
        on_progress: Callable[[Sweep], None] | None = None,
        *,
        progress: bool = False,
    ) -> Sweep:
        """Block until all members have ended, whichever way; raises WaitTimeout after `timeout` seconds.

        `on_progress` and `progress` are those of `wait`.
        """
        return now(self._calls.wait_sweep(sweep_id, timeout, on_progress, progress=progress))

    def remedies(
        self,
        experiment_id: str,
        remedies: Iterable[str] | None = None,
        *,
        seeds: int = 3,
        controls: int | None = None,
        idempotency_key: str | None = None,
    ) -> Remedies:
        """Try the diagnosis's remedies, paired with the plain spec and with random changes over the same seeds.

        Args:
            experiment_id: an experiment whose diagnosis has remedies.
            remedies: their ids; all by default.
            seeds: how many, the experiment's own first.
            controls: how many random changes; as many as remedies by default.
            idempotency_key: as for `create`.
        """
        return now(
            self._calls.remedies(
                experiment_id, remedies, seeds=seeds, controls=controls, idempotency_key=idempotency_key
            )
        )

    def get_remedies(self, remedies_id: str) -> Remedies:
        """How far a trial is, and what each change did as far as it has ended."""
        return now(self._calls.get_remedies(remedies_id))

    def list_remedies(self, experiment_id: str) -> list[RemediesSummary]:
        """The trials of an experiment's remedies, newest first."""
        return now(self._calls.list_remedies(experiment_id))

    def cancel_remedies(self, remedies_id: str) -> Remedies:
        """Ask all of a trial to stop, and try nothing more."""
        return now(self._calls.cancel_remedies(remedies_id))

    def delete_remedies(self, remedies_id: str) -> None:
        """Delete a trial with all its experiments; the one whose remedies they are stays."""
        now(self._calls.delete_remedies(remedies_id))

    def wait_remedies(
        self,
        remedies_id: str,
        timeout: float | None = None,
        on_progress: Callable[[Remedies], None] | None = None,
        *,
        progress: bool = False,
    ) -> Remedies:
        """Block until nothing more is tried, and return the ranking; raises WaitTimeout after `timeout` seconds.

        `on_progress` and `progress` are those of `wait`.
        """
        return now(self._calls.wait_remedies(remedies_id, timeout, on_progress, progress=progress))

    def compare(self, experiments: Iterable[str], **selection: Unpack[CompareSelection]) -> ComparisonDocument:
        """Up to 20 experiments side by side; with `max_points` all are cut into the same buckets of iterations."""
        return now(self._calls.compare(experiments, **selection))
