"""Which verifier a data set has, as plain data: what the registry resolves, workers get and journals name.

Decides nothing. A specification is the same JSON on every process and after every restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["whole", "lastNumber", "boxed", "tag", "after", "auto"]


@dataclass(frozen=True)
class Extraction:
    """Which part of a response is the answer. `argument` is the tag's name or the text before the answer, else "".

    `auto` is what a verifier does by itself where the manifest says nothing; its file says what.
    """

    kind: Kind = "whole"
    argument: str = ""


@dataclass(frozen=True)
class VerifierSpec:
    """A verifier with its settings. `version` changes whenever the rules of the verifier do."""

    name: str
    version: str
    pure: bool = True
    extraction: Extraction = Extraction()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "pure": self.pure,
            "extraction": {"kind": self.extraction.kind, "argument": self.extraction.argument},
            "settings": dict(self.settings),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> VerifierSpec:
        return VerifierSpec(
            data["name"], data["version"], data["pure"], Extraction(**data["extraction"]), dict(data["settings"])
        )
