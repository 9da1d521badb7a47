"""The client's calls on groups of experiments: sweeps, comparisons, remedies that are tried."""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack
from urllib.parse import quote

from pydantic import BaseModel

from gradprobe.client.errors import WaitTimeout
from gradprobe.client.transport import Transport, parse
from gradprobe.errors import SweepNotFound
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


class CompareSelection(TypedDict, total=False):
    """What `compare` tells of each experiment; all by default.

    `of`: `weights`, `outputs` or `clipped_weights`. `include`: any of `series`, `metrics` (those two by default) and
    `histograms`. The others are as for `gradients`.
    """

    of: str
    include: Iterable[str] | None
    layers: Iterable[str] | None
    statistics: Iterable[str] | None
    start: int | None
    stop: int | None
    max_points: int | None


class GroupCalls:
    """Part of `Client`: what concerns more than one experiment."""

    _transport: Transport

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
        common = base.model_dump(mode="json", exclude_unset=True) if isinstance(base, BaseModel) else dict(base or {})
        body = {"name": name, "tags": dict(tags or {}), "base": common, "axes": {k: list(v) for k, v in axes.items()}}
        return parse(Sweep, self._create("/sweeps", body, idempotency_key))

    def get_sweep(self, sweep_id: str) -> Sweep:
        """One sweep: its members, and how far they are."""
        return self._transport.read(Sweep, _path("sweeps", sweep_id), {})

    def list_sweeps(self, limit: int | None = None) -> Iterator[SweepSummary]:
        """Sweeps, newest first, page after page as they are consumed; `limit` is a total."""
        cursor, left = None, limit
        while left is None or left > 0:
            query = {"limit": _PAGE if left is None else min(left, _PAGE), "cursor": cursor}
            page = self._transport.read(SweepPage, "/sweeps", query)
            yield from page.items if left is None else page.items[:left]
            if page.next_cursor is None:
                return
            cursor, left = page.next_cursor, None if left is None else left - len(page.items)

    def compare_sweep(self, sweep_id: str, sort: str | None = None) -> SweepComparison:
        """A sweep as one table, column by column; `sort` is a column or an axis, with `-` the largest first."""
        return self._transport.read(SweepComparison, _path("sweeps", sweep_id, "comparison"), {"sort": sort})

    def cancel_sweep(self, sweep_id: str) -> Sweep:
        """Ask all members to stop; those that have ended stay as they are."""
        return parse(Sweep, self._transport.send("POST", _path("sweeps", sweep_id, "cancel"), repeatable=True))

    def delete_sweep(self, sweep_id: str) -> None:
        """Delete a sweep with all its experiments; where some run it is refused: cancel it first."""
        self._transport.delete(_path("sweeps", sweep_id))

    def wait_sweep(
        self, sweep_id: str, timeout: float | None = None, on_progress: Callable[[Sweep], None] | None = None
    ) -> Sweep:
        """Block until all members have ended, whichever way; raises WaitTimeout after `timeout` seconds."""
        return _wait(lambda: self.get_sweep(sweep_id), timeout, on_progress)

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
        body = {"remedies": None if remedies is None else list(remedies), "seeds": seeds, "controls": controls}
        return parse(Remedies, self._create(_path("experiments", experiment_id, "remedies"), body, idempotency_key))

    def get_remedies(self, remedies_id: str) -> Remedies:
        """How far a trial is, and what each change did as far as it has ended."""
        return self._transport.read(Remedies, _path("remedies", remedies_id), {})

    def list_remedies(self, experiment_id: str) -> list[RemediesSummary]:
        """The trials of an experiment's remedies, newest first."""
        return self._transport.read(RemediesList, _path("experiments", experiment_id, "remedies"), {}).items

    def cancel_remedies(self, remedies_id: str) -> Remedies:
        """Ask all of a trial to stop, and try nothing more."""
        return parse(Remedies, self._transport.send("POST", _path("remedies", remedies_id, "cancel"), repeatable=True))

    def delete_remedies(self, remedies_id: str) -> None:
        """Delete a trial with all its experiments; the one whose remedies they are stays."""
        self._transport.delete(_path("remedies", remedies_id))

    def wait_remedies(
        self, remedies_id: str, timeout: float | None = None, on_progress: Callable[[Remedies], None] | None = None
    ) -> Remedies:
        """Block until nothing more is tried, and return the ranking; raises WaitTimeout after `timeout` seconds."""
        return _wait(lambda: self.get_remedies(remedies_id), timeout, on_progress)

    def compare(self, experiments: Iterable[str], **selection: Unpack[CompareSelection]) -> ComparisonDocument:
        """Up to 20 experiments side by side; with `max_points` all are cut into the same buckets of iterations."""
        query = {
            name: value if value is None or isinstance(value, int | str) else ",".join(value)  # type: ignore[arg-type]
            for name, value in selection.items()
        }
        return self._transport.read(ComparisonDocument, "/comparisons", {"experiments": ",".join(experiments), **query})

    def _create(self, path: str, body: Any, idempotency_key: str | None) -> Any:
        headers = {"Idempotency-Key": idempotency_key or secrets.token_urlsafe(24)}
        return self._transport.send("POST", path, body=body, headers=headers, repeatable=True)


def _wait(look: Callable[[], Group], timeout: float | None, on_progress: Callable[[Group], None] | None) -> Group:
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        found = look()
        if on_progress:
            on_progress(found)
        if found.status == "ended":
            return found
        if deadline is not None and time.monotonic() >= deadline:
            raise WaitTimeout(f"{found.id} had not ended after {timeout:g} s; it goes on")
        time.sleep(_POLL_SECONDS)


def _path(folder: str, identifier: str, part: str = "") -> str:
    if not identifier:
        raise SweepNotFound("An id is needed, and this one is empty")
    # An id comes from people too; a "/", "?" or ".." in it must not reach another resource.
    escaped = quote(identifier, safe="").replace(".", "%2E")
    return f"/{folder}/{escaped}" + (f"/{part}" if part else "")
