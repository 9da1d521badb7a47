"""How much may wait and run: for each owner, and in all."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from gradprobe.errors import QueueFull, TooManyExperiments
from gradprobe.state import ACTIVE, Status
from gradprobe.store.tables import experiments

#: Any number that no other program takes a PostgreSQL advisory lock on: "gradroom" in ASCII.
_LOCK: Final = 0x67726164_726F6F6D


@dataclass(frozen=True, slots=True)
class Room:
    """How many experiments may wait in all, and how many of one owner may wait or run."""

    waiting: int
    active: int


def require_room(connection: Connection, owner: str | None, room: Room, taken: int = 0, wanted: int = 1) -> None:
    """That `wanted` more may be queued, `taken` of which this transaction has queued already.

    Call it in the transaction that queues them: then both bounds hold to the one, whoever takes the last place at once.

    Raises:
        TooManyExperiments: of this owner's wait or run as many as may.
        QueueFull: in all wait as many as may.
    """
    if connection.dialect.name == "postgresql":
        # Otherwise several at once would each find the last free place. SQLite has one writer at a time anyway.
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    of_owner = experiments.c.owner.is_(None) if owner is None else experiments.c.owner == owner
    active = select(func.count()).select_from(experiments).where(experiments.c.status.in_(ACTIVE), of_owner)
    if (found := connection.scalar(active) or 0) + wanted > room.active + taken:
        raise TooManyExperiments(_too_many(found, wanted, room.active))
    waiting = select(func.count()).select_from(experiments).where(experiments.c.status == Status.QUEUED)
    if (found := connection.scalar(waiting) or 0) + wanted > room.waiting + taken:
        if wanted > 1:
            raise QueueFull(f"{found} experiments wait, and these are {wanted}; this server takes {room.waiting}.")
        raise QueueFull(f"{room.waiting} experiments wait, the most that this server takes; send it again later.")


def _too_many(found: int, wanted: int, most: int) -> str:
    if wanted == 1:
        return (
            f"{most} experiments of yours wait or run, the most that this server takes of one owner; "
            "send it again when one has ended."
        )
    return (
        f"{found} experiments of yours wait or run, and these are {wanted}; this server takes {most} of one owner: "
        "ask for fewer, or send it again when some have ended."
    )
