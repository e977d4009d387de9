"""A principal: who calls, on whose behalf, and what they may do in which queue.

Values only. Where a principal comes from (a token, a key, nobody in open mode) is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from millstream.errors import UsageError

#: As a tenant: all of them. As a queue of a grant: any.
ALL = "*"
_GRANT = re.compile(r"(viewer|submitter|operator|admin)(?::([A-Za-z0-9][A-Za-z0-9._-]{0,63}|\*))?")


class Role(IntEnum):
    """What somebody may do; each includes those before it."""

    VIEWER = 1  # look at queues and runs
    SUBMITTER = 2  # enqueue runs
    OPERATOR = 3  # cancel, retry and replay runs
    ADMIN = 4  # see who did what, and whatever else there will be to administer


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody who calls."""

    #: ``token:SUBJECT``, ``key:ID`` or ``open``: what the audit names, and what is counted by.
    name: str
    #: Whose runs are seen, and on whose behalf runs are enqueued. None: those of no tenant.
    tenant: str | None = None
    grants: Mapping[str, Role] = field(default_factory=dict)
    #: What a form of theirs has to bring; None: they are a program, which sends no forms.
    form_token: str | None = field(default=None, repr=False)

    def may(self, role: Role, queue: str) -> bool:
        """Whether a role's deeds are allowed in a queue."""
        held = max(self.grants.get(queue, 0), self.grants.get(ALL, 0))
        return held >= role

    def may_somewhere(self, role: Role) -> bool:
        """Whether a role's deeds are allowed in any queue at all."""
        return any(held >= role for held in self.grants.values())

    def sees(self, tenant: str | None) -> bool:
        """Whether a tenant's runs are shown."""
        return self.tenant in {ALL, tenant}

    @property
    def acts_for(self) -> str | None:
        """The tenant of what is enqueued."""
        return None if self.tenant == ALL else self.tenant


def grants_of(words: Iterable[str]) -> dict[str, Role]:
    """Return what words such as ``operator`` and ``submitter:research`` grant; pass over others.

    A token's roles are shared with other programs, whose words mean nothing here.
    """
    grants: dict[str, Role] = {}
    for word in words:
        found = _GRANT.fullmatch(word)
        if found:
            queue = found[2] or ALL
            grants[queue] = max(Role[found[1].upper()], grants.get(queue, Role.VIEWER))
    return grants


def check_grants(words: Iterable[str]) -> tuple[str, ...]:
    """Return the words, or raise `UsageError` for one that grants nothing."""
    checked = tuple(words)
    for word in checked:
        if not _GRANT.fullmatch(word):
            raise UsageError(
                f"role {word!r} is unknown; there are viewer, submitter, operator and admin, each"
                " alone or for one queue: operator:research"
            )
    return checked
