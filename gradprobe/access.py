"""Who may do what: keys as they are written, their scopes, and the principal on whose behalf a request is made."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_KEY_BYTES: Final = 32
_PREFIX_CHARACTERS: Final = 8
_KEY: Final = re.compile(r"gp_[A-Za-z0-9_-]{43}")

#: Who a key belongs to: a person, a team or a program.
OWNER_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$"


class Scope(StrEnum):
    """What a key allows."""

    READ = "read"  # everything that changes nothing
    WRITE = "write"  # create, change, cancel, delete
    ADMIN = "admin"  # both, on everybody's experiments


@dataclass(frozen=True, slots=True)
class Principal:
    """On whose behalf a request is made. `owner` None: somebody on a server that asks for no key."""

    owner: str | None
    scopes: frozenset[Scope]

    @property
    def sees_all(self) -> bool:
        """Whether everybody's experiments are within reach, and not only the owner's."""
        return Scope.ADMIN in self.scopes

    def may(self, scope: Scope) -> bool:
        """Whether this scope, or the one that includes it, was given."""
        return scope in self.scopes or self.sees_all


#: Whoever reaches a server that asks for no key.
ANYBODY: Final = Principal(None, frozenset({Scope.ADMIN}))


def new_key() -> str:
    """A fresh key: `gp_` and 32 random bytes, base64url without padding."""
    return "gp_" + secrets.token_urlsafe(_KEY_BYTES)


def is_key(text: str) -> bool:
    """Whether `text` has the form of a key."""
    return _KEY.fullmatch(text) is not None


def lookup_prefix(key: str) -> str:
    """The part of a key that is stored as it is, so that its row is found, and people can tell keys apart."""
    return key[: len("gp_") + _PREFIX_CHARACTERS]


def digest(key: str) -> str:
    """What is stored of a key: its SHA-256, hexadecimal. 256 random bits need no slow hash."""
    return hashlib.sha256(key.encode()).hexdigest()
