"""What must be allowed: to the person who asks, and to the operator's service account.

A table of (verb, group, resource); whether each is allowed is asked of the API server by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ratchet_api.job import GROUP, PLURAL
from ratchet_operator.checks.finding import Finding, error, warning
from ratchet_operator.checks.installation import CHART


@dataclass(frozen=True)
class Right:
    """One act on one kind. `needed`: whether nothing works without; else what is lost is said."""

    verb: str
    group: str
    resource: str
    lost: str | None = None

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f".{self.group}" if self.group else "")


USER = (
    Right("get", GROUP, PLURAL),
    Right("list", GROUP, PLURAL),
    Right("watch", GROUP, PLURAL, "`ratchet watch` cannot follow"),
    Right("create", GROUP, PLURAL, "jobs can be looked at, not made"),
    Right("patch", GROUP, PLURAL, "`ratchet approve`, `suspend` and `resume` will be refused"),
    Right("delete", GROUP, PLURAL, "jobs cannot be deleted"),
    Right("list", "", "pods", "`ratchet logs` finds no pods"),
    Right("get", "", "pods/log", "`ratchet logs` cannot read them"),
    Right("list", "", "events", "reasons in events cannot be shown"),
)
"""What somebody who runs jobs does, in the job's namespace."""

OPERATOR = (
    *(Right(verb, GROUP, PLURAL) for verb in ("get", "list", "watch")),
    Right("update", GROUP, f"{PLURAL}/status"),
    *(Right(verb, "jobset.x-k8s.io", "jobsets") for verb in ("get", "list", "watch", "create", "delete")),
    *(Right(verb, "", "pods") for verb in ("list", "watch", "patch", "delete")),
    *(Right(verb, "", "configmaps") for verb in ("get", "create", "delete")),
    Right("get", "", "persistentvolumeclaims", "a claim that is missing is found out by pods that hold a slice"),
    Right("list", "", "resourcequotas", "a quota that is full is found out by pods that hold a slice"),
    *(Right(verb, "", "events", "its events are lost") for verb in ("create", "patch")),
    Right("list", "", "events", "what keeps pods from being made is not copied into the job's condition"),
    *(
        Right(verb, "", "nodes", "why attempts end is known less surely (chart value nodes.watch)")
        for verb in ("get", "list", "watch")
    ),
)
"""What the operator does, in the namespaces that it watches."""


def findings(
    who: str, rights: Sequence[Right], allowed: Mapping[Right, bool], mend: str, namespace: str
) -> list[Finding]:
    """What of a table is not allowed, one finding for all that is needed and one for each loss."""
    refused = [right for right in rights if not allowed.get(right, True)]
    needed = [str(right) for right in refused if right.lost is None]
    found = [error(who, f"may not {', '.join(needed)} in namespace {namespace}", mend)] if needed else []
    losses = dict.fromkeys(right.lost for right in refused if right.lost is not None)
    for lost in losses:
        names = ", ".join(str(right) for right in refused if right.lost == lost)
        found.append(warning(who, f"may not {names} in namespace {namespace}: {lost}", mend))
    return found


GIVE_USER = "kubectl create rolebinding ratchet-users --clusterrole=edit --namespace {namespace} --user=NAME"
GIVE_OPERATOR = f"helm upgrade ratchet {CHART} --namespace {{namespace}} --set rbac.create=true"
