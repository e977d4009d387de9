"""All rules, in the order in which their findings are worth reading."""

from __future__ import annotations

from k8s.check import pods, policies, programs, references, regions, scaling, store
from k8s.check.objects import Fault, Place, Rule

RULES: tuple[Rule, ...] = (
    references.dangling,
    references.selectors,
    references.unread,
    references.accounts,
    programs.commands,
    programs.settings,
    programs.ports,
    programs.probes,
    programs.drains,
    pods.hardened,
    pods.tokens,
    pods.sized,
    pods.available,
    pods.images,
    pods.labelled,
    scaling.owned,
    scaling.autoscalers,
    scaling.concurrency,
    scaling.described,
    scaling.recommended,
    scaling.queries,
    scaling.quota,
    store.durable,
    regions.replicated,
    regions.let_in,
    policies.isolated,
    policies.namespaces,
    policies.secrets,
    policies.mesh,
    policies.scraped,
    policies.outdated,
)


def judged(place: Place) -> list[Fault]:
    """Return everything that the rules find wrong in a place."""
    return sorted({fault for rule in RULES for fault in rule(place)})
