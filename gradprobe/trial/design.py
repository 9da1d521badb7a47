"""Which changes are tried: the diagnosis's remedies, the plain spec, random changes as control, and combinations."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Final, Literal, Self

from pydantic import ValidationError

from gradprobe.diagnosis.findings import Diagnosis, Remedy
from gradprobe.diagnosis.remedies import apply
from gradprobe.spec import Spec

Arm = Literal["plain", "remedy", "control", "combination"]
Document = dict[str, Any]

_MOST_COMBINATIONS: Final = 3
_SEEDS: Final = 2**63


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the spec, tried over every seed: an RFC 7396 merge patch; that of the plain spec is empty."""

    arm: Arm
    id: str
    patch: Document
    reason: str = ""

    def document(self) -> Document:
        """As plain JSON."""
        return asdict(self)

    @property
    def size(self) -> int:
        """How many fields it changes."""
        return len(set(leaves(self.patch)))


PLAIN: Final = Change("plain", "plain", {}, "The spec as it is.")


@dataclass(frozen=True, slots=True)
class Design:
    """A trial: every change over every seed. Seed i of one change has the data order of seed i of every other."""

    rule: str
    seeds: tuple[int, ...]
    changes: tuple[Change, ...]

    def document(self) -> Document:
        """As plain JSON; `of_document` reads it."""
        return {"rule": self.rule, "seeds": list(self.seeds), "changes": [one.document() for one in self.changes]}

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Self:
        """What `document` wrote."""
        changes = tuple(Change(**change) for change in document["changes"])
        return cls(document["rule"], tuple(document["seeds"]), changes)

    @property
    def size(self) -> int:
        """Experiments."""
        return len(self.seeds) * len(self.changes)


def seeds_from(first: int, number: int) -> tuple[int, ...]:
    """The experiment's own seed, and those after it."""
    return tuple((first + index) % _SEEDS for index in range(number))


def remedies_in(found: Diagnosis) -> list[Remedy]:
    """Every remedy of every finding once, weightiest finding first; two patches never have one id."""
    kept: list[Remedy] = []
    for remedy in (remedy for finding in found.findings for remedy in finding.remedies):
        if any(remedy.patch == other.patch for other in kept):
            continue
        same = sum(other.id.partition("#")[0] == remedy.id for other in kept)
        kept.append(remedy if not same else Remedy(f"{remedy.id}#{same + 1}", remedy.patch, remedy.reason))
    return kept


def spec_of(base: Document, change: Change, seed: int, name: str | None = None) -> Spec:
    """The changed spec with this seed; raises pydantic's ValidationError."""
    document = apply(base, change.patch)
    document = apply(document, {"training": {"seed": seed}})
    return Spec.model_validate(document if name is None else {**document, "name": name})


def specs(base: Document, seeds: Sequence[int], changes: Sequence[Change]) -> Iterator[tuple[Spec, Document]]:
    """Every experiment with its place, seed by seed, so that pairs are complete as early as can be."""
    for seed in seeds:
        for change in changes:
            name = f"{change.id.replace('_', ' ')}, seed {seed}"
            yield spec_of(base, change, seed, name), {"arm": change.arm, "change": change.id, "seed": seed}


def combined(base: Document, ranked: Iterable[Change]) -> list[Change]:
    """Pairs of the best changes that touch no field in common and that the spec allows together."""
    found = []
    for first, second in sorted(combinations(enumerate(ranked), 2), key=lambda pair: pair[0][0] + pair[1][0]):
        one, other = first[1], second[1]
        if set(leaves(one.patch)) & set(leaves(other.patch)):
            continue
        pair = Change("combination", f"{one.id}+{other.id}", merged(one.patch, other.patch), "No single one is enough.")
        try:
            spec_of(base, pair, 0)
        except ValidationError:
            continue
        found.append(pair)
        if len(found) == _MOST_COMBINATIONS:
            break
    return found


def merged(one: Document, other: Document) -> Document:
    """Both patches in one; unlike with `apply`, a null stays one, and still takes its field away."""
    result = dict(one)
    for key, value in other.items():
        mine = result.get(key)
        result[key] = merged(mine, value) if isinstance(mine, dict) and isinstance(value, dict) else value
    return result


def leaves(patch: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The fields that a patch changes; what it does to an object of a name counts as one."""
    for key, value in patch.items():
        here = (*path, key)
        if isinstance(value, Mapping) and here in _CONTAINERS:
            yield from leaves(value, here)
        else:
            yield here


_CONTAINERS: Final = frozenset({("network",), ("optimizer",), ("training",), ("dataset",), ("recording",)})
