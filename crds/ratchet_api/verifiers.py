"""How an answer is verified: what a data set says of its answers.

Decides what a manifest may say: which part of a response is the answer (`answer`), what compares it with the expected
one (`verifier`), and the settings of those verifiers that have some (`python`, `http`, `code`). `Dataset` takes the
fields and rules from here:

    class Dataset(ApiModel):
        rules: ClassVar = (..., *RULES)
        answer: Answer | None = ANSWER
        verifier: VerifierName | None = VERIFIER
        python: PythonVerifier | None = PYTHON
        http: HttpVerifier | None = HTTP
        code: CodeVerifier | None = CODE

Doing it is the trainer's matter (`ratchet_trainer/algorithm/verifiers`).
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from ratchet_api.base import ApiModel, Rule, Whole, refuse, whole

VerifierName = Literal["exact", "number", "math", "reasoningGym", "choice", "python", "http", "code"]

CONFIG_MAP_FOLDER = "/etc/ratchet/verifiers"
"""Where a pod sees the ConfigMap NAME of a `python` verifier: in the folder NAME of this one."""
ENV_CONFIG_MAP_FOLDER = "RATCHET_VERIFIERS_FOLDER"
"""Replaces CONFIG_MAP_FOLDER outside Kubernetes."""
ENV_SECRET = "RATCHET_VERIFIER_SECRET_"
"""Prefix of the variable that holds the secret of a data set's `http` verifier."""
ENV_REWARD_SECRET = "RATCHET_REWARD_SECRET_"
"""Prefix of the variable that holds the secret of an endpoint that a reward asks."""

_OBJECT_NAME = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"


def secret_variable(dataset: str) -> str:
    """The environment variable of a pod that holds the secret of this data set's `http` verifier."""
    return ENV_SECRET + dataset.upper().replace("-", "_")


def reward_secret_variable(stage: int, reward: str) -> str:
    """The environment variable of a pod that holds the secret of an endpoint that a reward asks. `stage`: its index,
    since names of stages and rewards have hyphens, so that two pairs could come to the same variable."""
    return f"{ENV_REWARD_SECRET}{stage}_{reward.upper().replace('-', '_')}"


def config_map_folder(name: str) -> str:
    """The folder in which a pod sees the files of the ConfigMap `name` of a `python` verifier."""
    return f"{os.environ.get(ENV_CONFIG_MAP_FOLDER, CONFIG_MAP_FOLDER)}/{name}"


class Answer(ApiModel):
    """Which part of a response is the answer."""

    rules: ClassVar = (
        Rule(
            "has(self.tag) == (self.extract == 'tag')",
            "tag is the name of the tag, and belongs to extract: tag, and only to it",
            lambda a: (a.tag is not None) == (a.extract == "tag"),
            ".tag",
        ),
        Rule(
            "has(self.after) == (self.extract == 'after')",
            "after is the text before the answer, and belongs to extract: after, and only to it",
            lambda a: (a.after is not None) == (a.extract == "after"),
            ".after",
        ),
    )
    extract: Literal["whole", "lastNumber", "boxed", "tag", "after"] = Field(
        description="whole: all of the response. lastNumber: the last number in it. boxed: what the last \\boxed{} "
        "holds. tag: what the last closed <tag>...</tag> holds. after: what follows the last occurrence of a text, up "
        "to the end of that line."
    )
    tag: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z][-_A-Za-z0-9]*$",
        max_length=64,
        description="Name of the tag, for example answer for <answer>5</answer>.",
    )
    after: str | None = Field(
        default=None, min_length=1, max_length=64, description='The text before the answer, for example "####".'
    )


class PythonVerifier(ApiModel):
    """A function of the user's own that scores a response."""

    entrypoint: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$",
        max_length=256,
        description="module:function. The function gets a case (item, prompt, response, finish, extracted) and returns "
        "a score, or a mapping with score and parts.",
    )
    config_map: str | None = Field(
        default=None,
        max_length=253,
        pattern=_OBJECT_NAME,
        description="ConfigMap whose files are put on the module path; without it, the module is one of the image.",
    )
    pure: bool = Field(
        default=True,
        description="Whether the same case always gets the same score. If not, outcomes are kept in the outcome "
        "journal, and a replay reads them there.",
    )
    timeout_seconds: Whole = whole(
        "Seconds that one case takes at most. A case that takes ten times as long is given up.", ge=1, le=600, default=1
    )
    memory_mi_b: Whole = whole(
        "Memory of a verifier process in MiB, address space included.", ge=64, le=1024 * 1024, default=4096
    )


class SecretKey(ApiModel):
    """One key of a Secret in the namespace of the job."""

    name: str = Field(pattern=_OBJECT_NAME, max_length=253, description="Name of the Secret.")
    key: str = Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253, description="Key in its data.")


_LABEL = "[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?"
_PORT = "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
URL = rf"^https?://({_LABEL}([.]{_LABEL})*[.]?|\[[0-9A-Fa-f:.]+\])(:({_PORT}))?([/?][!-~]*)?$"
"""An address that can be asked: a host name or number, a port from 1 to 65535, and a path of ASCII."""


def _askable(url: str) -> str:
    if re.fullmatch(URL, url) is None:
        refuse(
            "no address that can be asked: write http:// or https://, a host, a port from 1 to 65535 if it has one, "
            "and a path, without credentials; other letters than ASCII as %XX in the path, as xn-- in the host"
        )
    return url


class HttpVerifier(ApiModel):
    """An endpoint that scores responses."""

    url: Annotated[str, AfterValidator(_askable)] = Field(
        max_length=2048,
        json_schema_extra={"pattern": URL},  # by a rule it would cost an API server too much
        description="Gets a POST of {question, prompt, response, extracted, answer, ...} and answers {score: 0 to 1}. "
        "Credentials do not belong into it; use secret.",
    )
    secret: SecretKey | None = Field(
        default=None, description="Its value is sent as `Authorization: Bearer VALUE`; redirects are not followed."
    )
    timeout_seconds: Whole = whole("Seconds that one answer may take, retries not counted.", ge=1, le=600, default=30)
    retries: Whole = whole(
        "How often a request is sent again that got no answer, or one of 408, 425, 429, 500, 502, 503, 504.",
        ge=0,
        le=20,
        default=4,
    )


class CodeVerifier(ApiModel):
    """Unit tests that the program in a response must pass."""

    timeout_seconds: Whole = whole("Seconds of processor time for all tests of a response.", ge=1, le=600, default=4)
    memory_mi_b: Whole = whole("Memory of the program in MiB, beyond Python's own.", ge=16, le=65_536, default=256)
    tests: str = Field(
        default="tests",
        min_length=1,
        max_length=64,
        description="Key of the item's unit tests: Python text with asserts, a list of such texts, or a list of "
        "{input, output} for a program that reads and prints.",
    )
    sandbox: Literal["Required", "Unsandboxed"] = Field(
        default="Required",
        description="Required: programs run without network, files and processes, or the job is refused where the "
        "node's kernel cannot take these away. Unsandboxed: they run with the trainer's own rights.",
    )


ANSWER: Any = Field(
    default=None,
    description="Which part of a response is the answer. Without it: the last number for verifier number and for tasks "
    "of reasoning-gym that are answered by a number, what is boxed for math, else all of the response.",
)
VERIFIER: Any = Field(
    default=None,
    description="How the answer is compared with the expected one. exact: equal text after trimming white space. "
    "number: equal as numbers (5, 5.0, 1,000, $5, 1/2). math: equal as mathematics. reasoningGym: by the task's own "
    "rules. choice: the same option of a multiple-choice question. python, http, code: see these fields. Without it: "
    "reasoningGym for items of reasoning-gym, exact for others.",
)
PYTHON: Any = Field(default=None, description="Settings of verifier python.")
HTTP: Any = Field(default=None, description="Settings of verifier http.")
CODE: Any = Field(default=None, description="Settings of verifier code; without it, its defaults.")

RULES: tuple[Rule, ...] = (
    Rule(
        "has(self.python) == (has(self.verifier) && self.verifier == 'python')",
        "python belongs to verifier: python, and only to it; say both or neither",
        lambda d: (d.python is not None) == (d.verifier == "python"),
        ".verifier",
    ),
    Rule(
        "has(self.http) == (has(self.verifier) && self.verifier == 'http')",
        "http belongs to verifier: http, and only to it; say both or neither",
        lambda d: (d.http is not None) == (d.verifier == "http"),
        ".verifier",
    ),
    Rule(
        "!has(self.code) || (has(self.verifier) && self.verifier == 'code')",
        "code belongs to verifier: code, and only to it; say verifier: code or leave code out",
        lambda d: d.code is None or d.verifier == "code",
        ".verifier",
    ),
    Rule(
        "!has(self.verifier) || self.verifier != 'reasoningGym' || has(self.reasoningGym)",
        "verifier: reasoningGym needs the items of a reasoningGym data set; choose another verifier",
        lambda d: d.verifier != "reasoningGym" or d.reasoning_gym is not None,
        ".verifier",
    ),
)
"""Rules of a data set: settings and verifier belong together."""
