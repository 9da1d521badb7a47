"""`gradprobe import`."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from gradprobe.cli.diagnose import print_diagnosis
from gradprobe.cli.exits import require, usage
from gradprobe.cli.session import Session, session_of
from gradprobe.cli.wording import one_line

if TYPE_CHECKING:
    from gradprobe.importing.tensorboard import Imported

_SHOWN = 8


def import_run(  # noqa: PLR0913 - each is an option of the command line
    context: typer.Context,
    *,
    directory: Annotated[
        Path, typer.Argument(help="The directory of one run's TensorBoard event files.", show_default=False)
    ],
    name: Annotated[str | None, typer.Option(help="What the run is called.  [default: the directory's name]")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A tag; repeat it.")] = None,
    classes: Annotated[
        int | None, typer.Option(min=2, help="The loss is a cross-entropy of so many classes: a guess costs ln of it.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="The training's batch size.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be taken; send nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the run as JSON.")] = False,
) -> None:
    """Give an old run a diagnosis: read TensorBoard's event files and report them to a server as a run.

    Histograms of gradients are known by names like fc1.weight.grad, gradients/fc1.weight or fc1/weight_grad, the
    weights by theirs; loss, accuracy and learning rate by theirs; and all that `gradprobe export` writes.
    """
    session = session_of(context)
    found = require("gradprobe.importing.tensorboard", extra="export").read(directory)
    if not json:
        print_found(session, found)
    if dry_run:
        return
    spec = require("gradprobe.importing.run", extra="export").spec_of(
        found, name or directory.resolve().name, _tags(tag or []), classes, batch_size
    )
    with session.connect() as client:
        made = client.report(spec, found.blocks, found.stop)
        diagnosis = client.diagnosis(made.id)
    if json:
        session.print_json(made.model_dump_json(indent=2))
        return
    session.out.print(Text(f"{made.id}: {found.stop:,} steps of {len(found.layers)} layers"))
    print_diagnosis(session, diagnosis)


def print_found(session: Session, found: "Imported") -> None:
    """What was taken, and what was left, and why."""
    session.out.print(Text(f"{len(found.taken)} tags taken, {len(found.left)} left; layers: {', '.join(found.layers)}"))
    for number, (tag, what) in enumerate(found.taken.items()):
        if number == _SHOWN:
            session.out.print(Text(f"  … and {len(found.taken) - _SHOWN} more", style="dim"))
            break
        session.out.print(Text(f"  {one_line(tag)} → {one_line(what)}"))
    for reason, count in Counter(found.left.values()).most_common():
        some = [tag for tag, why in found.left.items() if why == reason][:3]
        more = ", …" if count > len(some) else ""
        session.out.print(Text(f"  left: {one_line(', '.join(some))}{more}: {reason}", style="dim"))
    if not found.exact:
        session.out.print(
            Text("  mean_abs is from the histograms' buckets; mean, std, norm and max_abs are exact", style="dim")
        )


def _tags(given: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        key, sign, value = text.partition("=")
        if not sign:
            raise usage(f"--tag {text!r} is not a key and a value; write it like course=dl-101")
        found[key] = value
    return found
