"""Paths of a pod on a machine that allows no mount namespaces: the one helper that rewrites them.

Decides how a path the pod was told becomes the place where its volume really lies. The agent rewrites command lines
and environment values with it, and hands the table on in `RATCHET_PATH_MAP` (JSON, pod path -> real path) for paths
that the program builds itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ratchet_api import protocol
from ratchet_cluster.sandbox import Mount

VARIABLE = "RATCHET_PATH_MAP"
FILES = {  # what the trainer opens without being told
    protocol.ENV_JOB_FILE: protocol.JOB_FILE,
    protocol.ENV_STAGE_GATE_FILE: protocol.STAGE_GATE_FILE,
    "RATCHET_TERMINATION_LOG": "/dev/termination-log",
}
_END = r"(?=$|[/:,;=\s\"'])"
_START = r"(?:(?<=^)|(?<=[:,;=\s\"'(\[]))"


ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"  # where client libraries look for a pod's credentials


def write_kubeconfig(place: Path, account: str, port: int) -> Path:
    """A kubeconfig with the credentials in folder `account`, for clients that would look for them in `ACCOUNT`."""
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": f"{account}/ca.crt"}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "pod", "cluster": cluster}],
        "users": [{"name": "pod", "user": {"tokenFile": f"{account}/token"}}],
        "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod"}}],
        "current-context": "pod",
    }
    place.write_text(json.dumps(content))
    return place


def table(mounts: Sequence[Mount]) -> dict[str, str]:
    """Pod path -> real path, deepest first."""
    return {m.target: m.source for m in sorted(mounts, key=lambda mount: len(mount.target), reverse=True)}


def rewrite(text: str, mapping: Mapping[str, str]) -> str:
    """`text` with every path at or below a mapped one replaced: `/data`, `--dir=/data/x`, never `/database`."""
    if not mapping:
        return text
    choices = "|".join(re.escape(path) for path in sorted(mapping, key=len, reverse=True))
    return re.sub(f"{_START}({choices}){_END}", lambda match: mapping[match[1]], text)


def rewritten_environment(env: Mapping[str, str], mapping: Mapping[str, str]) -> dict[str, str]:
    """The environment with its values rewritten, the table and the places of the trainer's own files added."""
    own = {name: rewrite(path, mapping) for name, path in FILES.items() if rewrite(path, mapping) != path}
    return own | {name: rewrite(value, mapping) for name, value in env.items()} | {VARIABLE: json.dumps(dict(mapping))}
