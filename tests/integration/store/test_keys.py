"""Access keys on both databases: shown once, stored as a digest, ended by revoking or by time."""

import pytest
from sqlalchemy import select, update

from gradprobe import access
from gradprobe.access import Scope
from gradprobe.errors import InvalidKey, KeyNotFound
from gradprobe.store import keys
from gradprobe.store.tables import keys as table
from gradprobe.store.tables import now
from tests.integration.store.transactions import Store

BOTH = (Scope.READ, Scope.WRITE)


def set_key(store: Store, identifier: str, **values: object) -> None:
    with store.database.write() as connection:
        connection.execute(update(table).where(table.c.id == identifier).values(values))


def test_a_key_opens_what_its_scopes_say_and_is_stored_as_a_digest(store: Store) -> None:
    made, secret = store.write(keys.create, "alice", BOTH, 3600.0, "laptop")

    principal, used = store.read(keys.authenticate, secret)
    assert (principal.owner, principal.scopes, used) == ("alice", frozenset(BOTH), made.id)
    assert principal.may(Scope.READ)
    assert not principal.may(Scope.ADMIN)
    assert not principal.sees_all
    assert (made.owner, made.scopes, made.note, made.revoked_at) == ("alice", BOTH, "laptop", None)
    assert made.expires_at == pytest.approx(made.created_at + 3600, abs=1)
    with store.database.read() as connection:
        row = connection.execute(select(table)).one()
    assert row.digest == access.digest(secret)
    assert not any(secret[12:] in str(value) for value in row)
    assert secret.startswith(row.prefix)


def test_an_admin_may_everything(store: Store) -> None:
    _, secret = store.write(keys.create, "root", [Scope.ADMIN])

    principal, _ = store.read(keys.authenticate, secret)
    assert principal.sees_all
    assert all(principal.may(scope) for scope in Scope)


def test_keys_are_random_and_have_one_form() -> None:
    made = {access.new_key() for _ in range(100)}

    assert len(made) == 100
    assert all(access.is_key(key) and len(key) == 46 for key in made)


@pytest.mark.parametrize("change", [-1, 0])
def test_a_key_that_differs_anywhere_opens_nothing(store: Store, change: int) -> None:
    """At its end, where the prefix that finds its row is the same, and at its beginning."""
    _, secret = store.write(keys.create, "alice", BOTH)
    place = 3 if change == 0 else len(secret) - 1
    other = secret[:place] + ("A" if secret[place] != "A" else "B") + secret[place + 1 :]

    for wrong in (other, secret + "A", secret[:-1], secret.upper(), "", "gp_", "gp_" + "\0" * 43, secret + "\n"):
        with pytest.raises(InvalidKey):
            store.read(keys.authenticate, wrong)
    assert store.read(keys.authenticate, secret)[0].owner == "alice"


def test_two_keys_that_begin_alike_are_two_keys(store: Store) -> None:
    first, secret = store.write(keys.create, "alice", BOTH)
    second, other = store.write(keys.create, "bob", BOTH)
    twin = secret[:11] + other[11:]
    set_key(store, second.id, prefix=first.prefix, digest=access.digest(twin))

    assert store.read(keys.authenticate, secret)[0].owner == "alice"
    assert store.read(keys.authenticate, twin)[0].owner == "bob"
    with pytest.raises(KeyNotFound):
        store.write(keys.revoke, first.prefix)


def test_revoked_is_revoked_at_once_whether_by_id_or_by_prefix(store: Store) -> None:
    made = [store.write(keys.create, "alice", BOTH) for _ in range(2)]

    for (key, secret), named in zip(made, (made[0][0].id, made[1][0].prefix), strict=True):
        ended = store.write(keys.revoke, named)
        assert ended.id == key.id
        assert ended.revoked_at is not None
        assert store.write(keys.revoke, named) == ended
        with pytest.raises(InvalidKey, match="was revoked"):
            store.read(keys.authenticate, secret)
    assert not store.read(keys.any_valid)
    with pytest.raises(KeyNotFound):
        store.write(keys.revoke, "key_nothing")


def test_a_key_ends_when_its_time_is_over(store: Store) -> None:
    key, secret = store.write(keys.create, "alice", BOTH, 60.0)
    assert store.read(keys.any_valid)

    set_key(store, key.id, expires_at=now() - 1.0)

    with pytest.raises(InvalidKey, match="has expired"):
        store.read(keys.authenticate, secret)
    assert not store.read(keys.any_valid)


def test_the_last_use_is_noted_once_a_minute(store: Store) -> None:
    key, secret = store.write(keys.create, "alice", BOTH)
    assert store.read(keys.every)[0].last_used_at is None

    store.write(keys.note_use, key.id)
    noted = store.read(keys.every)[0].last_used_at
    assert noted == pytest.approx(store.clock(), abs=5)
    assert store.read(keys.authenticate, secret)[1] is None
    store.write(keys.note_use, key.id)
    assert store.read(keys.every)[0].last_used_at == noted

    set_key(store, key.id, last_used_at=now() - 61.0)
    assert store.read(keys.authenticate, secret)[1] == key.id
