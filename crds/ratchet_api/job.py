"""`RLTrainingJob`: the one kind of the API, its spec and the rules between its parts.

Decides the shape of a manifest. Status is in `status`; the semantic checks that need tables (TPU topologies,
reasoning-gym tasks) are in `validate`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field, field_validator

from ratchet_api.approvals import APPROVALS, Approval
from ratchet_api.base import LIST_MAP, ApiModel, Count, PositiveDecimal, Rule, StringMap, Whole, as_whole, whole
from ratchet_api.budgets import BUDGETS, Budget
from ratchet_api.datasets import Dataset
from ratchet_api.evaluations import EVALUATIONS, Evaluation, Export, Samples
from ratchet_api.kind import API_VERSION as API_VERSION
from ratchet_api.kind import GROUP as GROUP
from ratchet_api.kind import KIND as KIND
from ratchet_api.kind import PLURAL as PLURAL
from ratchet_api.kind import VERSION as VERSION
from ratchet_api.maintenance import MAINTENANCE, Maintenance
from ratchet_api.placements import PLACEMENTS, Placement
from ratchet_api.pod_template import PodTemplate
from ratchet_api.protocol import SLOW_PHASE_SECONDS, SLOW_PHASES
from ratchet_api.rewind import REWIND, Rewind
from ratchet_api.rollouts import Rollouts
from ratchet_api.stages import STAGES, RowsPerPass, Stage
from ratchet_api.status import Status
from ratchet_api.trackers import TRACKERS, Trackers

NAME_PATTERN = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
NAME_LENGTH = 39
FLEET_NAME_LENGTH = NAME_LENGTH - len("-w255")
"""Of a job with a fleet: its workers' JobSets are NAME-wI-aN, where a trainer's is NAME-aN."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGETS: tuple[Target, ...] = get_args(Target)


class Lora(ApiModel):
    """Low-rank adapters (arXiv 2106.09685): they are trained, the model's own weights stay as they are."""

    rank: Whole = whole("Inner width of an adapter.", ge=1, le=1024, default=16)
    alpha: PositiveDecimal = Field(
        default="32", description="What an adapter adds is multiplied by alpha / rank. A decimal string."
    )
    targets: list[Target] = Field(
        default=list(TARGETS),
        min_length=1,
        max_length=len(TARGETS),
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="Matrices that get an adapter, in every layer.",
    )

    @field_validator("targets")
    @classmethod
    def _each_once(cls, value: list[Target]) -> list[Target]:
        if len(set(value)) < len(value):
            raise ValueError("each target may be named once")
        return value


class Model(ApiModel):
    """The policy to train: a built-in one, or a folder in Hugging Face layout."""

    rules: ClassVar = (
        Rule(
            "has(self.preset) != has(self.path)",
            "give the model as a preset or as the path of a folder",
            lambda m: (m.preset is None) != (m.path is None),
        ),
        Rule(
            "has(self.path) || !(has(self.claimName) || has(self.chatTemplate) || has(self.systemPrompt))",
            "claimName, chatTemplate and systemPrompt are for a model with a path",
            lambda m: m.path is not None or (m.claim_name, m.chat_template, m.system_prompt) == (None, None, None),
        ),
        Rule(
            "!has(self.claimName) || self.path.startsWith('/')",
            "claimName is for a path; a bucket needs none",
            lambda m: m.claim_name is None or (m.path or "/").startswith("/"),
        ),
    )
    preset: Literal["tiny"] | None = Field(
        default=None, description="A small built-in decoder with random weights and a byte tokenizer: tiny."
    )
    path: str | None = Field(
        default=None,
        min_length=2,
        max_length=1024,
        pattern=r"^(/|(gs|s3)://[a-z0-9]).*$",
        description="Folder with config.json, safetensors and tokenizer.json: a path, as the trainer's pods see it, or "
        "gs:// or s3://, which each host copies to its disk. Families: Qwen2, Qwen3, Llama 3, Gemma 2, Gemma 3.",
    )
    claim_name: str | None = Field(
        default=None,
        max_length=253,
        pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
        description="PersistentVolumeClaim that holds the folder; it is mounted at the first component of `path`.",
    )
    chat_template: str | None = Field(
        default=None, min_length=1, max_length=65_536, description="Jinja template of prompts, instead of the folder's."
    )
    system_prompt: str | None = Field(
        default=None, max_length=16_384, description="What the system message of every prompt says; absent: none."
    )
    lora: Lora | None = Field(default=None, description="Train adapters instead of the weights; absent: the weights.")
    dtype: Literal["auto", "float32", "bfloat16"] | None = Field(
        default=None,
        description="Number format of activations and matrix products; weights and optimizer are float32 always. auto: "
        "bfloat16 where a measurement at the first start finds it faster, and so for the job's life. Absent: float32.",
    )
    activation_checkpointing: bool | None = Field(
        default=None,
        description="Whether an update keeps only what goes from layer to layer and computes the rest again for the "
        "gradient: far less memory, one forward pass more. Absent: no.",
    )


class Checkpoint(ApiModel):
    """Where and how often the state is made durable."""

    directory: str = Field(
        min_length=1,
        max_length=1024,
        pattern=r"^(/|(gs|s3)://[a-z0-9]).*$",
        description="Folder of this job's checkpoints: gs://BUCKET/PREFIX, s3://BUCKET/PREFIX, or an absolute path in "
        "the pods, on the volume of claimName.",
    )
    claim_name: str | None = Field(
        default=None,
        max_length=253,
        pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
        description="PersistentVolumeClaim mounted at the first component of `directory`.",
    )
    every_steps: Whole = whole(
        "Steps between two checkpoints: at most this much is lost without notice, nothing with notice.",
        ge=1,
        le=1_000_000,
        default=1,
    )
    keep: Whole = whole(
        "Newest checkpoints to keep, besides the last one of each stage, and the best one where that may be wanted.",
        ge=1,
        le=1000,
        default=2,
    )
    local_directory: str | None = Field(
        default=None,
        min_length=2,
        max_length=1024,
        pattern=r"^/.*$",
        description="Fast tier: a folder in the pods, on a disk of the node, where the newest checkpoints are kept "
        "too. A restart on the same node reads them there; what cannot be used is read from `directory`, which alone "
        "says what exists. The node's disk is named by the chart's value trainer.localDirectory. Absent: none.",
    )
    journal_seconds: Whole = whole(
        "Seconds between two writes of what is sampled for the step under way to localDirectory: so much sampling is "
        "done again after a kill without notice.",
        ge=1,
        le=3600,
        default=10,
    )
    existing: Literal["Resume", "Refuse"] | None = Field(
        default=None,
        description="What to do with checkpoints of another job in `directory`. "
        "Absent: resume if namespace, name and immutable spec agree, else refuse.",
    )

    rules: ClassVar = (
        Rule(
            "self.directory.startsWith('/') || !has(self.claimName)",
            "claimName is for a path; a bucket needs none",
            lambda c: c.directory.startswith("/") or c.claim_name is None,
            ".claimName",
        ),
    )


class Reproducibility(ApiModel):
    """Between which runs the bits are equal, and what that may cost."""

    rules: ClassVar = (
        Rule(
            f"!has(self.virtualShards) || self.virtualShards in {[2**i for i in range(9)]}",
            "virtualShards must be a power of two, at most 256",
            lambda r: r.virtual_shards in [2**i for i in range(9)],
            ".virtualShards",
        ),
        Rule(
            "!has(self.rowsPerShard) || (has(self.mode) && self.mode == 'Exact')",
            "rowsPerShard is for mode Exact",
            lambda r: r.mode == "Exact" or r.rows_per_shard is None,
            ".rowsPerShard",
        ),
    )
    mode: Literal["Exact", "PerTopology", "Off"] = Field(
        default="PerTopology",
        description="PerTopology: interrupted or not, equal bits as long as devices and versions stay; a change goes "
        "on and is recorded in status.exactSince. Exact: equal bits also on another number of devices, which is "
        "slower; a change of versions or of the kind of device is refused. Off: no promise.",
    )
    virtual_shards: Whole = whole(
        "Mode Exact: into how many equal parts every batch is cut, wherever it runs; a power of two that the devices "
        "of every placement divide.",
        ge=1,
        le=256,
        default=8,
    )
    rows_per_shard: RowsPerPass | None = Field(
        default=None,
        description="Mode Exact: responses of a virtual shard that are learned from at a time. Absent: all of them.",
    )

    @property
    def exact_shards(self) -> int | None:
        """The virtual shards in mode Exact, None in the others."""
        return self.virtual_shards if self.mode == "Exact" else None


MeshSize = Annotated[int, Field(ge=1, le=65_536), BeforeValidator(as_whole)]


class Parallelism(ApiModel):
    """How a model and its batches are shared among the devices of an attempt: a mesh of data x fsdp x tensor."""

    data: MeshSize | None = Field(
        default=None,
        description="Groups of devices that each hold the whole model. Absent: as many as the devices make, on every "
        "placement.",
    )
    fsdp: Whole = whole(
        "Devices of a group that share weights, gradients and optimizer state, and take rows of their own.",
        ge=1,
        le=65_536,
        default=1,
    )
    tensor: Whole = whole(
        "Devices that share the matrix products of the same rows; fast only where they are close to one another.",
        ge=1,
        le=65_536,
        default=1,
    )

    def data_on(self, devices: int, slices: int = 1) -> int | None:
        """The size of axis data on so many devices of so many equal slices; None if they do not fit. The other two stay
        within a slice: between slices is a slow network."""
        data, rest = divmod(devices, self.fsdp * self.tensor)
        return data if data and not rest and not data % slices and self.data in (None, data) else None


class Restart(ApiModel):
    """What disturbances and failures may cost."""

    failure_limit: Whole = whole("Failures after which the job is Failed.", ge=0, le=1000, default=3)
    healthy_steps: Whole = whole(
        "Steps made by one attempt after which earlier failures are forgiven.", ge=1, le=1_000_000, default=50
    )
    preemption_limit: Count | None = Field(
        default=None, description="Preemptions after which the job is Failed; absent means no limit."
    )
    progress_deadline_seconds: Whole = whole(
        "Seconds without a sign of life after which a trainer hangs and is ended, a failure; starting, restoring and "
        "compiling may take an hour. Larger than the slowest update.",
        ge=120,
        le=604_800,
        default=1800,
    )

    def patience(self, phase: str | None) -> int:
        """Seconds without a sign of life after which a trainer hangs in a phase of /progress."""
        slow = SLOW_PHASE_SECONDS if phase in SLOW_PHASES else 0
        return max(self.progress_deadline_seconds, slow)


class JobSetTemplate(ApiModel):
    """What the user may add to the JobSet of an attempt, for those who look at it: a queue, above all."""

    labels: StringMap = Field(
        default={}, max_length=32, description="Labels added to the JobSet, for example kueue.x-k8s.io/queue-name."
    )
    annotations: StringMap = Field(default={}, max_length=32, description="Annotations added to the JobSet.")


IMMUTABLE = ("model", "seed", "reproducibility", "parallelism")


def _immutable(field: str) -> Rule:
    # On `spec` and with has() on both sides: a rule on the field itself is bypassed by removing and adding it again.
    return Rule(
        f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
        f"{field} cannot change; create another job",
        path=f".{field}",
    )


class Spec(ApiModel):
    """What to train, how, and where."""

    rules: ClassVar = (
        Rule(
            "self.stages.all(s, !has(s.rl) || !has(s.rl.datasets) ? self.datasets.exists(d, d.name == "
            "(has(s.sft) ? s.sft.dataset : has(s.curate) ? s.curate.dataset : "
            "(has(s.rl) && has(s.rl.dataset) ? s.rl.dataset : ''))) : "
            "s.rl.datasets.all(w, self.datasets.exists(d, d.name == w.name)))",
            "a stage names a data set that is not in spec.datasets",
            lambda s: {n for t in s.stages for n in t.dataset_names} <= {d.name for d in s.datasets},
            ".stages",
        ),
        Rule(
            "!has(self.parallelism) || !has(self.reproducibility) || !has(self.reproducibility.mode) || "
            "self.reproducibility.mode != 'Exact' || ((!has(self.parallelism.fsdp) || self.parallelism.fsdp == 1) && "
            "(!has(self.parallelism.tensor) || self.parallelism.tensor == 1))",
            "mode Exact is for models that fit a device: parallelism.fsdp and tensor must be 1",
            lambda s: s.reproducibility.mode != "Exact" or s.parallelism.fsdp * s.parallelism.tensor == 1,
            ".parallelism",
        ),
        Rule(
            "!has(self.export) || has(self.model.path)",
            "export writes the layout of the model's own folder; a preset has none: leave it out, or give model.path",
            lambda s: s.export is None or s.model.path is not None,
            ".export",
        ),
        Rule(
            "!has(self.export) || (self.export.directory != self.checkpoint.directory && "
            "(!has(self.model.path) || self.export.directory != self.model.path))",
            "export.directory is a folder of its own, neither that of the checkpoints nor the model's",
            lambda s: s.export is None or s.export.directory not in (s.checkpoint.directory, s.model.path),
            ".export",
        ),
        *(_immutable(name) for name in IMMUTABLE),
        Rule(
            "self.checkpoint.directory == oldSelf.checkpoint.directory && "
            "has(self.checkpoint.claimName) == has(oldSelf.checkpoint.claimName) && "
            "(!has(self.checkpoint.claimName) || self.checkpoint.claimName == oldSelf.checkpoint.claimName)",
            "checkpoint.directory and claimName cannot change; create another job",
            path=".checkpoint",
        ),
        Rule(
            "!has(self.rewind) || self.stages.exists(s, s.name == self.rewind.stage)",
            "rewind.stage names no stage of spec.stages",
            lambda s: s.rewind is None or s.rewind.stage in [t.name for t in s.stages],
            ".rewind",
        ),
        Rule(
            "!has(oldSelf.rewind) || (has(self.rewind) && (self.rewind == oldSelf.rewind || "
            "self.rewind.id > oldSelf.rewind.id))",
            "rewind.id only grows; a new order has a larger one",
            path=".rewind",
        ),
        Rule(
            "!has(self.rollouts) || self.stages.exists(s, has(s.rl))",
            "rollouts is a fleet that samples for rl stages, and spec.stages has none; leave it out, or add a stage "
            "with rl",
            lambda s: s.rollouts is None or any(t.rl is not None for t in s.stages),
            ".rollouts",
        ),
        Rule(
            "!has(self.rollouts) || self.reproducibility.mode != 'Exact' || self.rollouts.placements.all(p, "
            "has(p.accelerator) == has(self.rollouts.placements[0].accelerator) && "
            "(!has(p.accelerator) || p.accelerator == self.rollouts.placements[0].accelerator))",
            "mode Exact has all workers sample on one kind of machine, and each goes down the ladder alone; give "
            "rollouts.placements one accelerator, or take reproducibility.mode PerTopology",
            lambda s: (
                s.rollouts is None
                or s.reproducibility.mode != "Exact"
                or len({p.accelerator for p in s.rollouts.placements}) == 1
            ),
            ".rollouts",
        ),
        Rule(
            "!has(self.rollouts) || !has(self.jobSetTemplate) || !has(self.jobSetTemplate.labels) || "
            f"!('{QUEUE_LABEL}' in self.jobSetTemplate.labels)",
            "a queue admits a JobSet at a time, and would hold single workers back while their trainer waits for them; "
            f"leave {QUEUE_LABEL} out of jobSetTemplate.labels, or rollouts",
            lambda s: s.rollouts is None or QUEUE_LABEL not in s.job_set_template.labels,
            ".jobSetTemplate",
        ),
        Rule(
            "self.suspend || has(self.rollouts) == has(oldSelf.rollouts)",
            "rollouts comes and goes only while the job is suspended (spec.suspend: true), since a running trainer "
            "knows whom to ask; workers.max changes at any time, and 0 lets the fleet rest",
            path=".rollouts",
        ),
        Rule(
            "self.suspend || "
            "(has(self.image) == has(oldSelf.image) && (!has(self.image) || self.image == oldSelf.image))",
            "image changes only while the job is suspended (spec.suspend: true)",
            path=".image",
        ),
    )
    model: Model = Field(description="The policy to train.")
    seed: Whole = whole("Seed of everything random in this job.", ge=0, le=2**53 - 1, default=0)
    image: str | None = Field(
        default=None, min_length=1, max_length=512, description="Trainer image; absent means the operator's default."
    )
    suspend: bool = Field(
        default=False, description="Whether the job is to rest: its pods are ended after a checkpoint, nothing is lost."
    )
    datasets: list[Dataset] = Field(
        min_length=1, max_length=64, json_schema_extra=LIST_MAP, description="Named data sets that stages refer to."
    )
    stages: list[Stage] = STAGES
    approvals: list[Approval] = APPROVALS
    rewind: Rewind | None = REWIND
    budgets: list[Budget] = BUDGETS
    evaluations: list[Evaluation] = EVALUATIONS
    export: Export | None = Field(
        default=None, description="Where trained weights are written for other tools; absent: nowhere."
    )
    samples: Samples = Field(default=Samples(), description="Rollouts that are kept to be read.")
    trackers: Trackers | None = TRACKERS
    checkpoint: Checkpoint = Field(description="Where and how often the state is made durable.")
    placements: list[Placement] = PLACEMENTS
    rollouts: Rollouts | None = Field(
        default=None,
        description="A fleet of workers that sample for the trainer, on capacity of their own; absent: the trainer "
        "samples itself.",
    )
    reproducibility: Reproducibility = Field(
        default=Reproducibility(), description="Between which runs the bits are equal, and what that may cost."
    )
    parallelism: Parallelism = Field(
        default=Parallelism(), description="How the model and its batches are shared among the devices."
    )
    restart: Restart = Field(default=Restart(), description="What disturbances and failures may cost.")
    maintenance: Maintenance = MAINTENANCE
    pod_template: PodTemplate = Field(default=PodTemplate(), description="What is added to the trainer's pods.")
    job_set_template: JobSetTemplate = Field(
        default=JobSetTemplate(), description="What is added to the JobSets of attempts."
    )

    def budget(self, stage: str) -> Budget | None:
        """What the stage of that name may cost; None: whatever it takes."""
        return next((b for b in self.budgets if b.stage == stage), None)

    def dataset(self, name: str) -> Dataset:
        """The data set of that name; validation has made sure that it exists."""
        return next(d for d in self.datasets if d.name == name)

    def origin(self, name: str) -> Dataset:
        """The data set whose items those of this one are: itself, unless a stage made it of another one."""
        found = self.dataset(name)
        for _ in self.stages:  # no longer than validation allows
            if found.from_stage is None:
                break
            maker = next(stage for stage in self.stages if stage.name == found.from_stage)
            assert maker.curate is not None, "validation has made sure"
            found = self.dataset(maker.curate.dataset)
        return found


class RLTrainingJob(ApiModel):
    """Reinforcement-learning training of a language model on capacity that can vanish at any moment.

    Apply one of these and watch it with `kubectl get rlj -w`. A preemption costs seconds, never progress.
    """

    model_config = ConfigDict(
        extra="ignore"
    )  # apiVersion, kind and metadata belong to Kubernetes; `validate` checks them

    rules: ClassVar = (
        Rule(
            f"self.metadata.name.matches('{NAME_PATTERN}') && size(self.metadata.name) <= {NAME_LENGTH}",
            "metadata.name: lower-case letters, digits and '-', beginning with a letter, "
            f"at most {NAME_LENGTH} characters",
        ),
        Rule(
            f"!has(self.spec.rollouts) || size(self.metadata.name) <= {FLEET_NAME_LENGTH}",
            f"metadata.name: at most {FLEET_NAME_LENGTH} characters for a job with spec.rollouts, whose workers are "
            "named after it and their number; shorten it",
        ),
        Rule(
            "!has(oldSelf.status) || !has(oldSelf.status.stage) || oldSelf.spec.stages.all(i, s, "
            "i > oldSelf.status.stage.index || (i < size(self.spec.stages) && self.spec.stages[i] == s) || "
            "(has(self.spec.rewind) && (!has(oldSelf.spec.rewind) || self.spec.rewind.id > oldSelf.spec.rewind.id) && "
            "oldSelf.spec.stages.exists(j, t, j <= i && t.name == self.spec.rewind.stage)))",
            "a stage that has begun cannot change; later stages can be edited, removed and appended, this one where "
            "spec.rewind begins it again",
        ),
    )
    spec: Spec = Field(description="What to train, how, and where.")
    status: Status | None = Field(
        default=None, description="What the operator has seen and decided; written by it alone."
    )


def parse_spec(data: dict[str, Any]) -> Spec:
    """`spec` as plain JSON data -> the typed spec, defaults filled in. Raises pydantic.ValidationError with paths."""
    return Spec.model_validate(data)
