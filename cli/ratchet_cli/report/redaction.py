"""What leaves a bundle before it is shared: secrets, what looks like one, and texts of prompts and responses.

Functions of plain data. Rather too much is left out than too little: a value that only looks like a secret costs a
question, one that is a secret costs a key.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

SECRET, QUOTE, COPY = "values that look secret", "quoted prompts and responses", "copies that kubectl and the API keep"
LEFT_OUT = "[left out]"

NAMES = re.compile(
    r"(token|secret|secrets|password|passwd|passphrase|credential|credentials|auth|authorization|cookie|dsn"
    r"|api ?key|access ?key|private ?key|secret ?key|signing ?key|encryption ?key|webhook|kubeconfig)$"
)
"""How names of secrets end, in lower case and with spaces between their words."""
INSIDE = re.compile(r"\b(secret|password|passwd|credentials?|private key|api key|token|auth)\b")
"""What a name of an environment variable must not have anywhere."""
VALUES = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"\b(hf_|ghp_|gho_|ghs_|github_pat_|glpat-|sk-|xox[abprs]-|ya29\.|AIza|npm_|pypi-)[\w.-]{8,}"),
    re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{12,}\b"),
    re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(\.[\w-]*)?"),  # a JSON web token
    re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
    re.compile(
        r"(?i)(?<=[?&])(sig|signature|x-[a-z]+-signature|x-[a-z]+-credential|access_token|key|token)=[^&\s\"']+"
    ),
    re.compile(
        r"(?i)\b[\w-]*(password|passwd|secret|api[-_]?key|access[-_]?key|private[-_]?key|[-_]token|auth[-_]token)"
        r"[\"']?\s*[=:]\s*[\"']?(?!\[left out\])[^\s\"',;]+"
    ),
    re.compile(r"(?i)(?<=--)[\w-]*(password|secret|token|key)\s+(?!\[left out\])[^\s\"',;-][^\s\"',;]*"),
    re.compile(r"(?i)(?<![\w-])token[\"']?\s*[=:]\s*[\"']?(?!\[left out\])[^\s\"',;]{8,}"),
)
QUOTES = re.compile(
    r"for example, (?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\\\"(?:(?!\\\").)*\\\").*?(?=\(ended by|$)"
    r"|(?<=answers cannot earn accuracy 1: ).*?(?=\. |$)"
    r"|(?<=was answered )(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")",
    re.MULTILINE,
)
"""How the trainer quotes answers (`learning_signs.quote`, the preflight)."""
DROPPED = ("managedFields", "kubectl.kubernetes.io/last-applied-configuration")
"""Keys that hold nothing but copies."""


class Redaction:
    """Redacts, and counts what it left out. `texts`: whether prompts and responses may stay."""

    def __init__(self, *, texts: bool):
        self.texts = texts
        self.counts: Counter[str] = Counter()

    def value(self, found: Any, name: str = "") -> Any:
        """Any JSON value without what is nobody's business; `name` is its key."""
        if isinstance(found, Mapping):
            return dict(self._entries(found))
        if isinstance(found, list):
            return [self.value(entry, name) for entry in found]
        if not isinstance(found, str):
            return found
        if found and NAMES.search(words(name)):
            self.counts[SECRET] += 1
            return LEFT_OUT
        return self.text(found)

    def _entries(self, found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        variable = isinstance(found.get("name"), str) and isinstance(found.get("value"), str)
        secret = str(found.get("kind")) == "Secret"
        for key, value in found.items():
            if key in DROPPED:
                self.counts[COPY] += 1
            elif secret and key in ("data", "stringData"):
                self.counts[SECRET] += 1
                yield key, LEFT_OUT
            elif variable and key == "value":
                yield key, self._variable(str(found["name"]), str(value))
            else:
                yield key, self.value(value, key)

    def _variable(self, name: str, value: str) -> str:
        if value and (NAMES.search(words(name)) or INSIDE.search(words(name))):
            self.counts[SECRET] += 1
            return LEFT_OUT
        return self.text(value)

    def text(self, found: str) -> str:
        """A text, a log for example."""
        for pattern in VALUES:
            found, times = pattern.subn(LEFT_OUT, found)
            self.counts[SECRET] += times
        if not self.texts:
            found, times = QUOTES.subn(f"{LEFT_OUT} ", found)
            self.counts[QUOTE] += times
        return found


def words(name: str) -> str:
    """`HF_TOKEN`, `apiKey` -> `hf token`, `api key`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.sub(r"[^A-Za-z0-9]+", " ", spaced).strip().lower()
