"""Questions to a cluster, by kubectl, so that the kubeconfig counts as everywhere.

An answer is data; what cannot be had raises Unanswered with a kind, so that a check can say what it means.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SECONDS = 20
Raw = dict[str, Any]

NOT_FOUND, FORBIDDEN, UNAUTHORIZED, UNKNOWN_KIND, UNREACHABLE = "NotFound", "Forbidden", "Unauthorized", "Kind", "Down"
SIGNS = (
    ("(NotFound)", NOT_FOUND),
    ("(Forbidden)", FORBIDDEN),
    ("(Unauthorized)", UNAUTHORIZED),
    ("must be logged in", UNAUTHORIZED),
    ("doesn't have a resource type", UNKNOWN_KIND),
    ("could not find the requested resource", UNKNOWN_KIND),
    ("no matches for kind", UNKNOWN_KIND),
)


class Unanswered(Exception):
    """`kind`: one of the words above."""

    def __init__(self, message: str, kind: str):
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Cluster:
    """The cluster of a context; None is the current one."""

    context: str | None = None

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints. Raises Unanswered."""
        program = shutil.which("kubectl")
        if program is None:
            raise Unanswered("there is no kubectl", UNREACHABLE)
        context = [] if self.context is None else ["--context", self.context]
        try:
            done = subprocess.run(
                [program, *context, f"--request-timeout={SECONDS}s", *arguments],
                capture_output=True, text=True, errors="replace", input=stdin, timeout=SECONDS + 10,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Unanswered(f"no answer within {SECONDS} s", UNREACHABLE) from None
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["kubectl failed"])[-1]
            raise Unanswered(said, next((kind for sign, kind in SIGNS if sign in said), UNREACHABLE))
        return done.stdout

    def get(self, *arguments: str) -> Raw:
        """An object or a list of them. Raises Unanswered."""
        found: Raw = json.loads(self.run("get", *arguments, "-o", "json"))
        return found

    def items(self, *arguments: str) -> list[Raw]:
        """Raises Unanswered."""
        found: list[Raw] = self.get(*arguments)["items"]
        return found

    def review(self, specs: Sequence[Raw], kind: str) -> list[bool]:
        """Whether each is allowed: `kind` is SelfSubjectAccessReview or SubjectAccessReview. Raises Unanswered."""
        reviews = [{"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec} for spec in specs]
        body = json.dumps({"apiVersion": "v1", "kind": "List", "items": reviews})
        told = self.run("create", "-f", "-", "-o", 'jsonpath={.status.allowed}{"\\n"}', stdin=body).split()
        if len(told) != len(specs):
            raise Unanswered(f"{len(told)} answers to {len(specs)} questions", UNREACHABLE)
        return [answer == "true" for answer in told]
