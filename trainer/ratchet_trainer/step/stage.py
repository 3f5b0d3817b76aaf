"""What a stage works with: its data, method, shapes and compiled programs, made from its part of the manifest.

Decides how the manifest's numbers become shapes and what is compiled before the first step. What is done with it all is
`run`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import Mesh

from ratchet_api import expansion as expansions
from ratchet_api import stages as api
from ratchet_api.canonical import said, sha256
from ratchet_api.curation import Curate
from ratchet_api.default_learning_rate import peak_learning_rate
from ratchet_api.evaluations import Evaluation
from ratchet_api.job import Lora, Model, Reproducibility, Spec
from ratchet_api.method import has_critic
from ratchet_trainer.algorithm import keys
from ratchet_trainer.algorithm.methods import Method, resolve
from ratchet_trainer.algorithm.slots import DataFacts
from ratchet_trainer.algorithm.verifiers.registry import resolve as resolve_verifier
from ratchet_trainer.checkpoints import jitted
from ratchet_trainer.data.evaluation_items import held_out, that_fit
from ratchet_trainer.data.items import Source
from ratchet_trainer.data.mixture import Mixture, Part
from ratchet_trainer.data.tokenizer import BYTES, Tokenizer
from ratchet_trainer.learning import exact, host_memory, optimizer
from ratchet_trainer.learning.critic import Critic
from ratchet_trainer.learning.learner import Layout, Learner, Row
from ratchet_trainer.model.architecture import Adapters, Architecture
from ratchet_trainer.model.computation import Computation
from ratchet_trainer.model.lora import joined, split, trained
from ratchet_trainer.model.policy import Policy
from ratchet_trainer.model.presets import PRESETS
from ratchet_trainer.model.programs import Program, compile_each
from ratchet_trainer.model.sharding import of_parameter, of_parameters, shapes
from ratchet_trainer.rollout.engine import Engine, ProcessGroup, Shape, slots
from ratchet_trainer.rollout.rollout_journal import RolloutJournal
from ratchet_trainer.rollout.sampler import Sampler
from ratchet_trainer.rollout.truncation import Truncation
from ratchet_trainer.rollout.verification import Judges, Verification
from ratchet_trainer.step.judges import judges_of
from ratchet_trainer.step.stage_data import stage_source
from ratchet_trainer.step.stage_programs import cut_of, of_stage
from ratchet_trainer.storage.local_copy import local_copy

if TYPE_CHECKING:
    from ratchet_trainer.model.huggingface import Folder

MODEL = "the model's folder"
"""Name of an input."""


ROWS = 64
"""Responses of a sampling call of an evaluation in an sft stage."""


class Programs:
    """The policy and its programs, shared by all stages of a job, on one mesh."""

    def __init__(
        self,
        model: Model,
        mesh: Mesh,
        virtual_shards: int | None = None,
        dtype: str = "float32",
        absent: tuple[Architecture, tuple[int, ...]] | None = None,
    ):
        """`virtual_shards`: mode Exact, with so many; dtype: that the model is computed in. `absent`: of a model whose
        folder is not here its architecture and the tokens that end a response; its programs can be compiled, not run.

        Raises ConfigurationInvalid for a folder that cannot be used."""
        self.mesh = mesh
        self.tokenizer: Tokenizer = BYTES
        architecture, self.folder = architecture_of(model) if absent is None else (absent[0], None)
        if self.folder is not None:
            # Imported here: a preset needs none of it.
            from ratchet_trainer.data.huggingface_tokenizer import HuggingFaceTokenizer

            self.tokenizer = HuggingFaceTokenizer(
                self.folder.path, architecture.vocabulary, model.chat_template, model.system_prompt
            )
        if model.lora is not None:
            architecture = replace(architecture, adapters=adapters(model.lora))
        self.policy = Policy(architecture, Computation.on(mesh, dtype, bool(model.activation_checkpointing)))
        host_memory.tune_allocator(
            sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.policy.abstract))
        )
        ends = self.tokenizer.ends if absent is None else absent[1]
        self._shards = None if virtual_shards is None else exact.VirtualShards(mesh, virtual_shards)
        if self._shards is None:
            self.sampler = Sampler(self.policy, mesh, ends)
            self.learner = Learner(self.policy, mesh)
        else:
            self.sampler = exact.ExactSampler(self.policy, self._shards, ends)
            self.learner = exact.ExactLearner(self.policy, self._shards)

    def start(self, seed: int) -> tuple[Any, Any]:
        """The parameters that a run starts from, drawn or read, and a fresh optimizer state."""
        if self.folder is None:
            return self.learner.init(keys.seed_words(seed))
        params = self._read()
        if self.policy.architecture.adapters is not None:
            params = joined(self.learner.adapters(keys.seed_words(seed)), params)
        return params, self.learner.fresh_optimizer(params)

    def whole(self, params: Any, seed: int) -> Any:
        """All parameters of a policy, of which a checkpoint has those that are trained: the frozen rest is read or
        drawn again."""
        if self.policy.architecture.adapters is None:
            return params
        base = self._read() if self.folder is not None else split(self.learner.init(keys.seed_words(seed))[0])[1]
        return joined(params, base)

    def _read(self) -> Any:
        """The folder's parameters."""
        from ratchet_trainer.model.huggingface import nested

        assert self.folder is not None, "asked where there is one"
        return nested(self.folder.load(partial(of_parameter, self.mesh)))

    @cached_property
    def inputs(self) -> dict[str, str]:
        """What the policy is read from, and its digests: they must not change under a run. A frozen base is read again
        at every start, so every byte of it counts."""
        found = {"the tokenizer": self.tokenizer.digest}
        if self.folder is not None:
            frozen = self.policy.architecture.adapters is not None
            found[MODEL] = self.folder.digest_of_bytes if frozen else self.folder.digest
        return found

    @cached_property
    def critic(self) -> Critic:
        if self._shards is not None:
            return exact.ExactCritic(self.policy, self._shards)
        return Critic(self.policy, self.mesh)

    @cached_property
    def template(self) -> tuple[Any, Any]:
        """Shapes of (params, optimizer state), where they lie on the mesh."""
        state = jitted.shapes_of(optimizer.init, trained(self.policy.abstract))
        both = self.policy.abstract, state
        params, state = shapes(both, of_parameters(self.mesh, both))
        return params, state

    @property
    def parameters(self) -> int:
        """How many numbers the policy has, frozen ones too."""
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.policy.abstract))

    def arrays_of(self, stages: Sequence[api.Stage], index: int) -> dict[str, Any]:
        """Shapes of the arrays that a state in the middle or at the end of stage `index` has; see State.restored. A
        curate stage keeps the critic of the stage before it."""
        params, state = self.template
        rl = stages[index].rl
        method = resolve(rl) if rl is not None else None
        trains = next((stage for stage in reversed(stages[: index + 1]) if stage.curate is None), None)
        learns_values = trains is not None and trains.rl is not None and has_critic(trains.rl)
        return {
            "params": trained(params),
            "optimizer": state,
            "critic": self.critic.template if learns_values else None,
            "reference": method.reference.init(trained(params)) if method else None,
        }


def architecture_of(model: Model) -> tuple[Architecture, Folder | None]:
    """What a model is, and the folder that it is read from. Raises ConfigurationInvalid for one that cannot be used."""
    if model.preset is not None:
        return PRESETS[model.preset], None
    from ratchet_trainer.model.huggingface import Folder

    assert model.path is not None, "the type's rules"
    folder = Folder(local_copy(model.path, "spec.model.path"))
    return folder.architecture, folder


def adapters(lora: Lora) -> Adapters:
    """What the manifest's part of that name means."""
    return Adapters(tuple(sorted(lora.targets)), lora.rank, float(lora.alpha) / lora.rank)


def programs_of(
    model: Model, mesh: Mesh, reproducibility: Reproducibility | None = None, dtype: str = "float32"
) -> Programs:
    """The programs of a model on a mesh; asked again, the same with what is compiled."""
    shards = reproducibility.exact_shards if reproducibility is not None else None
    return _programs_of(model.model_dump_json(by_alias=True, exclude_none=True), mesh, shards, dtype)


@lru_cache(2)
def _programs_of(model: str, mesh: Mesh, virtual_shards: int | None, dtype: str) -> Programs:
    return Programs(Model.model_validate_json(model), mesh, virtual_shards, dtype)


@dataclass(frozen=True)
class Stage:
    """One stage, ready to run. `source` is None on processes other than 0."""

    index: int
    spec: api.Stage
    hash: str
    seed: int
    source: Source | None
    facts: DataFacts
    programs: Programs
    group: ProcessGroup = field(repr=False)
    job: Spec = field(repr=False)
    rows_per_shard: int | None = None
    evaluation_engines: dict[str, tuple[Engine, list[int]]] = field(default_factory=dict, repr=False)

    @cached_property
    def settings(self) -> api.Sft | api.Rl | Curate:
        return self.spec.settings

    @property
    def training(self) -> api.Sft | api.Rl:
        """The settings of a stage that trains."""
        found = self.spec.sft or self.spec.rl
        assert found is not None, "asked of stages that train"
        return found

    @cached_property
    def inputs(self) -> dict[str, str]:
        """What the stage reads, and its digests: they must not change under it."""
        found = {f"data set {'+'.join(self.spec.dataset_names)}": self.facts.digest, **self.programs.inputs}
        own = [*self.judges.verifiers, *self.judges.own.values()] if self.spec.sft is None else []
        return found | {f"the source of {v.settings['entrypoint']}": v.version for v in own if v.name == "python"}

    @property
    def rl(self) -> api.Rl:
        assert self.spec.rl is not None
        return self.spec.rl

    @property
    def curate(self) -> Curate:
        assert self.spec.curate is not None
        return self.spec.curate

    @property
    def steps(self) -> int:
        """Most steps that it has."""
        if self.spec.curate is not None:
            return -(-self.facts.size // self.curate.prompts_per_step)
        return self.spec.advance.steps

    @cached_property
    def method(self) -> Method:
        return resolve(self.rl)

    @cached_property
    def judges(self) -> Judges:
        """What is asked of every response. Raises ConfigurationInvalid."""
        return judges_of(self.job, self.spec)

    def verification(self, judges: Judges) -> Verification:
        return Verification(judges, self.group.directory, self.group.process, self.group.processes)

    @cached_property
    def shape(self) -> Shape:
        """The sizes of its sampling calls. Prompts are shared evenly among the devices."""
        settings, rl = self.spec.rl or self.curate, self.spec.rl
        in_flight = rl.prompts_in_flight if rl is not None else None
        of_call = rl.rollouts.prompts_per_call if rl is not None and rl.rollouts is not None else None
        return Shape(
            self._on_all_devices(in_flight or of_call or settings.prompts_per_step),
            settings.max_prompt_tokens,
            settings.max_response_tokens,
            refills=in_flight is not None,
            buckets=tuple((rl.prompt_buckets or ()) if rl is not None else ()),
            prefixes=rl is not None and bool(self.method.advantage.samples(rl)),
        )

    def _on_all_devices(self, prompts: int) -> int:
        """So many prompts, and dummies until each device has as many."""
        parts = self.programs.learner.parts
        return -(-prompts // parts) * parts

    @property
    def cut(self) -> Truncation | None:
        """Which tokens its responses are drawn from."""
        return Truncation.of((self.spec.rl or self.curate).sampling)

    @cached_property
    def engine(self) -> Engine:
        """Samples as this stage does."""
        return self.engine_with(self.verification(self.judges), self.group.rollouts)

    def engine_with(self, verification: Verification, journal: RolloutJournal | None) -> Engine:
        """The same for who has another judge, or keeps nothing over a restart."""
        settings, one = self.spec.rl or self.curate, self.programs
        return Engine(
            self.group,
            one.sampler,
            one.tokenizer,
            self.source,
            self.seed,
            self.shape,
            float(settings.temperature),
            journal,
            self.cut,
            settings.sampling.stop,
            verification,
        )

    def evaluation(self, evaluation: Evaluation) -> tuple[Engine, list[int]]:
        """What answers an evaluation as this stage samples, and the items that it answers. *Collective.* Raises
        ConfigurationInvalid if there are none that are held out."""
        if evaluation.name not in self.evaluation_engines:
            self.evaluation_engines[evaluation.name] = self._evaluation(evaluation)
        return self.evaluation_engines[evaluation.name]

    def _evaluation(self, evaluation: Evaluation) -> tuple[Engine, list[int]]:
        source = None
        if self.group.process == 0:
            dataset = self.job.dataset(evaluation.dataset)
            source = held_out(self.job, dataset.name, evaluation.items, self.group.data_cache)
            leave_out = dataset.overlong == "LeaveOut" or (dataset.overlong is None and dataset.file is None)
            longest = self.settings.max_prompt_tokens
            if self.programs.folder is not None:
                response = evaluation.max_response_tokens or self.settings.max_response_tokens
                longest = self.programs.folder.room_for_prompts(longest, response)
            source = that_fit(source, self.programs.tokenizer, longest, leave_out)
        items = self.group.broadcast(list(source.items) if source is not None else None)
        samples, greedy = self.spec.rl or self.spec.curate, cut_of(evaluation) is not None
        temperature = evaluation.temperature or (samples.temperature if samples is not None and not greedy else "1")
        engine = Engine(
            self.group,
            self.programs.sampler,
            self.programs.tokenizer,
            source,
            self.seed,
            self.evaluation_shape(evaluation, len(items)),
            float(temperature),
            self.group.rollouts,
            cut_of(evaluation),
            samples.sampling.stop if samples is not None else (),
            self.verification(Judges((resolve_verifier(self.job.dataset(evaluation.dataset)),))),
            f"{evaluation.name}/",
        )
        return engine, items

    def evaluation_shape(self, evaluation: Evaluation, items: int) -> Shape:
        """The sizes of an evaluation's sampling calls, if it has so many items."""
        prompts = self._on_all_devices(min(items, max(1, self.rows_at_a_time // evaluation.samples)))
        s = self.settings
        return Shape(prompts, s.max_prompt_tokens, evaluation.max_response_tokens or s.max_response_tokens)

    def close(self) -> None:
        """Ends the verifiers' processes, once the stage is over."""
        engines = [engine for engine, _ in self.evaluation_engines.values()]
        for engine in [*engines, *([self.engine] if "engine" in vars(self) else [])]:
            engine.verification.close()

    @property
    def sample_counts(self) -> list[int]:
        """How many responses of a prompt are sampled at a time: each number has programs of its own."""
        if self.spec.rl is None:
            return [] if self.spec.curate is None else [self.curate.samples]
        slots = self.method.selection, self.method.expansion, self.method.advantage
        of_prompt = expansions.responses_of_a_prompt(self.rl)
        return sorted({of_prompt, *(n for slot in slots for n in slot.samples(self.rl))})

    @property
    def rows_at_a_time(self) -> int:
        """Responses of one sampling call of an evaluation: as many as the stage itself samples at a time."""
        if self.spec.curate is not None:
            return self.curate.prompts_per_step * self.curate.samples
        rl = self.spec.rl
        return ROWS if rl is None else (rl.prompts_in_flight or rl.prompts_per_step) * rl.group_size

    @property
    def rows_per_update(self) -> int:
        """Rows of one update's mini-batch."""
        if self.spec.sft is not None:
            return self.spec.sft.batch_size
        return self.rl.prompts_per_step * self.rl.group_size // self.rl.updates_per_step

    @cached_property
    def layout(self) -> Layout:
        """How the rows of one update lie on the devices."""
        rl = self.spec.rl
        rows, group = self.rows_per_update, expansions.responses_of_a_prompt(rl) if rl is not None else 1
        s = self.training
        parts = self.programs.learner.parts
        at_a_time = self.rows_per_shard or s.rows_per_pass
        return Layout.of(rows, group, parts, slots(s.max_prompt_tokens), s.max_response_tokens, at_a_time)

    @property
    def layouts(self) -> list[Layout]:
        """Those that `layout_of` may give."""
        mixed = self.spec.rl is not None and expansions.kind(self.spec.rl) == "hints"
        return [self.layout, self.layout.one_by_one] if mixed and self.layout.samples > 1 else [self.layout]

    def layout_of(self, rows: list[Row]) -> Layout:
        """How a mini-batch lies on the devices: as `layout` has it, or, where an expansion made groups of several
        prompts or of another size, each row with its own prompt. Follows from the rows alone."""
        return self.layout if self.layout.first_misfit(rows) is None else self.layout.one_by_one

    @property
    def needs_old_logprobs(self) -> bool:
        """Whether the old policy's log-probabilities are computed. With one update a step the old policy is the new one
        itself, unless its drift is taken off the rewards or rollouts of steps before are trained on."""
        penalized = self.method.advantage.penalty is not None
        return self.rl.updates_per_step > 1 or penalized or expansions.carries(self.rl) or self.rl.lag > 0

    @cached_property
    def optimizer(self) -> api.Optimizer:
        """The settings of the optimizer, with the learning rate that an absent one stands for."""
        rate = peak_learning_rate(self.spec, self.job.model)
        return self.training.optimizer.model_copy(update={"learning_rate": rate})

    def critic_numbers(self, updates: int) -> dict[str, float]:
        """What the critic's optimizer needs at the update that follows `updates` of this stage."""
        critic = self.method.advantage.critic
        assert critic is not None, "asked where there is one"
        settings = self.optimizer
        if critic.learning_rate is not None:
            settings = settings.model_copy(update={"learning_rate": critic.learning_rate})
        return optimizer.numbers(settings, updates)

    def prepare(self) -> None:
        """Compiles, or takes from the cache, what the stage's steps run. Compilations go side by side."""
        items = lambda evaluation: len(self.evaluation(evaluation)[1])  # noqa: E731
        with ThreadPoolExecutor(2, "compile") as threads:
            compiling = [threads.submit(_compile, some) for some in of_stage(self, items)]
            for one in compiling:
                one.result()
        for samples in self.sample_counts:
            self.engine.refills(self.programs.template[0], samples)


def _compile(programs: Callable[[], Iterable[Program]]) -> None:
    compile_each(programs())


def open_stage(
    group: ProcessGroup, programs: Programs, spec: Spec, index: int, curated: Mapping[str, str] | None = None
) -> Stage:
    """Stage `index` of the job. `curated`: digests of the data sets that stages before it have made. *Collective.*
    Raises ConfigurationInvalid."""
    stage = spec.stages[index]
    source = stage_source(group, programs, spec, stage, curated or {}) if group.process == 0 else None
    parts = [vars(part) for part in source.parts] if isinstance(source, Mixture) else []
    told = group.broadcast([source.digest, source.size, parts] if source is not None else None)
    facts = DataFacts(told[0], told[1], tuple(Part(**part) for part in told[2]))
    rows = spec.reproducibility.rows_per_shard
    return Stage(index, stage, sha256(said(stage)), spec.seed, source, facts, programs, group, spec, rows)
