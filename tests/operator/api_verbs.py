"""What a request asks of the API server, in RBAC's words, and what a list of roles allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

WRITES = {"POST": "create", "PUT": "update", "PATCH": "patch"}


class Asked(NamedTuple):
    """A verb on a resource, the way RBAC knows it."""

    verb: str
    group: str
    resource: str
    """Plural, with its subresource: `pods`, `pods/status`."""


def asked(method: str, path: str, query: Mapping[str, str]) -> Asked | None:
    """What the request asks for; None for what is no resource, such as discovery."""
    parts = path.strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1] if len(parts) > 1 else "", parts[3:])
    if len(rest) > 2 and rest[0] == "namespaces":
        rest = rest[2:]
    if not rest:
        return None
    named = len(rest) > 1
    resource = "/".join([rest[0], *rest[2:]])
    if method == "GET":
        verb = "watch" if "watch" in query else "get" if named else "list"
    elif method == "DELETE":
        verb = "delete" if named else "deletecollection"
    else:
        verb = WRITES[method]
    return Asked(verb, group, resource)


def granted(roles: Iterable[Mapping[str, Any]]) -> set[Asked]:
    """Everything that Roles and ClusterRoles allow."""
    return {
        Asked(verb, group, resource)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
