"""What is looked at while a job trains: `spec.evaluations[]` and `spec.samples`.

Decides what a manifest may say. When an evaluation is due and what it reports is decided by the trainer
(`ratchet_trainer/step/evaluations.py`, `samples.py`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ratchet_api.base import LIST_MAP, ApiModel, Name, PositiveDecimal, Rule, Whole, as_whole, whole

K = Annotated[int, Field(ge=1, le=256), BeforeValidator(as_whole)]


class Evaluation(ApiModel):
    """A held-out data set that is answered now and then; metrics evaluation/NAME/accuracy, /pass_at_K and others."""

    rules: ClassVar = (
        Rule(
            "self.passAt.all(k, k <= self.samples)",
            "passAt has more answers than samples gives; raise samples",
            lambda e: all(k <= e.samples for k in e.pass_at),
            ".passAt",
        ),
    )
    name: Name = Field(description="Name of the evaluation, part of its metrics' names.")
    dataset: Name = Field(
        description="Data set to answer. Of a reasoningGym data set, held-out items are taken, which no stage trains "
        "on; of another, those whose question occurs in no data set that a stage trains on."
    )
    every_steps: Whole = whole(
        "Steps of a stage between two evaluations; the weights that a stage starts from and those that it ends with "
        "are evaluated, too.",
        ge=1,
        le=100_000_000,
        default=50,
    )
    items: Whole = whole("Items that are answered, the first of the data set.", ge=1, le=65_536, default=128)
    samples: Whole = whole("Answers to each item.", ge=1, le=256, default=1)
    pass_at: list[K] = Field(
        default=[1],
        min_length=1,
        max_length=8,
        description="For each k, the chance that one of k answers is right, unbiased (arXiv 2107.03374).",
    )
    temperature: PositiveDecimal | None = Field(
        default=None,
        description="Sampling temperature of the answers. Absent: the likeliest token each time where samples is 1, "
        "else the stage's temperature (1 in an sft stage).",
    )
    max_response_tokens: Annotated[int, Field(ge=1, le=131_072), BeforeValidator(as_whole)] | None = Field(
        default=None, description="Longest answer in tokens. Absent: as in the stage."
    )


EVALUATIONS: Any = Field(
    default=[],
    max_length=16,
    json_schema_extra=LIST_MAP,
    description="Held-out data sets that are answered every so many steps; rules and guards may watch what they say.",
)


class Samples(ApiModel):
    """Rollouts that are kept to be read: samples/ beside the checkpoints, `ratchet samples`."""

    every_steps: Whole = whole("Steps between two steps whose rollouts are kept.", ge=1, le=100_000_000, default=10)
    count: Whole = whole(
        "Prompts of such a step whose best and worst rollout are kept; 0 keeps none.", ge=0, le=256, default=8
    )


class Export(ApiModel):
    """The weights as a folder that opens in other tools, written when a stage is over."""

    rules: ClassVar = (
        Rule(
            "!self.directory.endsWith('/')",
            "directory is a folder's path without a slash at its end",
            lambda e: not e.directory.endswith("/"),
            ".directory",
        ),
    )
    directory: str = Field(
        min_length=1,
        max_length=1024,
        description="Folder that is written: a path, as the trainer's pods see it, gs:// or s3://; with when: "
        "EachStage, one folder a stage in it. A folder that holds something else is never overwritten.",
    )
    format: Literal["HuggingFace"] = Field(
        default="HuggingFace",
        description="HuggingFace: the layout of the folder that model.path names, which it needs.",
    )
    when: Literal["Completed", "EachStage"] = Field(
        default="Completed", description="Completed: the weights of the last stage; EachStage: those of each."
    )
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        default=None, description="Number format of the tensors. Absent: that of the folder that the model came from."
    )
