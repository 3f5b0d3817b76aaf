"""What can go wrong when a cluster is asked, in one line that says what to do.

Decides the words and the exit code of every such error: 66 for an object that is not there, 69 for a cluster that
cannot be reached or refuses.
"""

from __future__ import annotations

import json
import os

INSTALL = "install the chart, or `ratchet crd | kubectl apply --server-side -f -`"


class KubeError(Exception):
    """A question that got no answer; the text is one line for people, `code` the exit code of a command."""

    code = os.EX_UNAVAILABLE


class Unreachable(KubeError):
    """No cluster, no kubectl, no credentials, no answer in time."""


class Refused(KubeError):
    """The API server answered with an error; `status` is its HTTP status."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class NotFound(Refused):
    """The object is not there."""

    code = os.EX_NOINPUT


class KindMissing(Refused):
    """The API server does not know the kind: its CRD is not installed, or only in another version."""


WAYS_OUT = (
    # part of what Go says -> what to do
    ("connection refused", "is the cluster up? a local one: `ratchet cluster up`; another one: --context"),
    ("no such host", "is the network up, and is it the right one? `kubectl config get-contexts`, then --context"),
    ("i/o timeout", "a private cluster is reached from its own network or by a proxy-url in the kubeconfig"),
    ("deadline exceeded", "a private cluster is reached from its own network or by a proxy-url in the kubeconfig"),
    ("certificate has expired", "sign in again, or take the kubeconfig from the cluster again"),
    ("x509", "the kubeconfig has another cluster's authority: take it from the cluster again"),
    ("tls: ", "the kubeconfig has another cluster's certificates: take it from the cluster again"),
    ("getting credentials", "sign in again; the plugin is named under users in the kubeconfig"),
)


def unreachable(where: str, said: str) -> Unreachable:
    """`where` cannot be asked; `said` are the words of Go's network library."""
    first = one_line(said) or "it closed the connection"
    way = next((way for part, way in WAYS_OUT if part in first), "look at it with `kubectl cluster-info`")
    return Unreachable(f"{where} cannot be reached: {first}; {way}")


def refused(where: str, what: str, status: int, body: bytes) -> Refused:
    """The error for an answer of the API server that is not a success. `what` is what was asked for, in words."""
    said = _status_object(body)
    message = one_line(str(said.get("message") or body[:500].decode(errors="replace"))) or f"HTTP {status}"
    if status == 401:
        return Refused(f"{where} does not accept the credentials of the kubeconfig (401); sign in again", status)
    if status == 403:
        role = "view" if what.startswith("read ") else "edit"
        return Refused(f"no right to {what}: {message}; ask for a role that may, for example {role}", status)
    if status == 404:
        # An unknown path, a kind that is not served, has no Status of an object.
        details = said.get("details")
        known = isinstance(details, dict) and bool(details.get("name"))
        return NotFound(message, status) if known else KindMissing(f"{where} does not know how to {what}", status)
    return Refused(f"{where} refused to {what}: {message}", status)


def one_line(text: str) -> str:
    """Text without line breaks and without what could drive a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _status_object(body: bytes) -> dict[str, object]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
