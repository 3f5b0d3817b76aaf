"""What stages train on: their data sets opened, with items that fit the model and the stage's limits.

Decides that the data of later stages are looked at before the first step of the first one: what is wrong with them
should not be found out days later.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING

from ratchet_api import expansion
from ratchet_api import stages as api
from ratchet_api.curation import Curate
from ratchet_api.job import Spec
from ratchet_trainer.algorithm.expansion.edits import edits_of
from ratchet_trainer.data import curated_file
from ratchet_trainer.data.candidates import candidates
from ratchet_trainer.data.edited_lengths import check_edited
from ratchet_trainer.data.items import Source, needs_answer, open_source
from ratchet_trainer.data.lengths import Limits, check_lengths
from ratchet_trainer.data.mixture import Mixture
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.rollout.engine import ProcessGroup
from ratchet_trainer.rollout.verification import Verification
from ratchet_trainer.step import make_hints, preflight
from ratchet_trainer.step.judges import judges_of
from ratchet_trainer.storage import Location

if TYPE_CHECKING:
    from ratchet_trainer.step.stage import Programs


def stage_source(
    group: ProcessGroup, programs: Programs, spec: Spec, stage: api.Stage, curated: Mapping[str, str]
) -> Source:
    """What a stage trains on, or looks through. `curated`: digests of the data sets that stages have made. Raises
    ConfigurationInvalid."""
    if stage.curate is not None:
        source = _to_curate(group, spec, stage, stage.curate, curated)
        return candidates(
            source, programs.tokenizer, stage.curate, room(programs, stage), group.data_cache, group.alive
        )
    opened = [_checked(group, programs, spec, stage, name, curated) for name in stage.dataset_names]
    if stage.rl is None or stage.rl.datasets is None:
        return opened[0]
    return Mixture(opened, [part.weight for part in stage.rl.datasets])


def check_later_stages(group: ProcessGroup, programs: Programs, spec: Spec) -> None:
    """Looks at the data of all stages but the first, on process 0, and tries their expected answers. Raises
    ConfigurationInvalid that names the stage."""
    if group.process != 0:
        return
    seen = {(name, *_asks(spec.stages[0])) for name in spec.stages[0].dataset_names}
    for stage in spec.stages[1:]:
        try:
            opened = {}
            for place, name in enumerate(stage.dataset_names):
                if spec.dataset(name).from_stage is not None:
                    continue  # it is made by then
                if stage.curate is not None:
                    _to_curate(group, spec, stage, stage.curate, {})
                elif (key := (name, *_asks(stage))) not in seen:
                    seen.add(key)
                    opened[place] = _checked(group, programs, spec, stage, name, {})
            if stage.rl is not None:
                judges = judges_of(spec, stage)
                with closing(Verification(judges)) as verification:
                    preflight.of_sources(opened, judges, verification, programs.tokenizer, stage.rl, group.alive)
        except ConfigurationInvalid as error:
            raise ConfigurationInvalid(f"stage {stage.name}: {error}") from None


def room(programs: Programs, stage: api.Stage) -> int:
    """Most tokens that a prompt of a stage may have. Raises ConfigurationInvalid where its responses leave none."""
    prompt, _, response = _limits(stage)
    return prompt if programs.folder is None else programs.folder.room_for_prompts(prompt, response)


def _opened(group: ProcessGroup, spec: Spec, stage: api.Stage, name: str, curated: Mapping[str, str]) -> Source:
    """All items of a data set, those that a stage made included."""
    dataset = spec.dataset(name)
    if dataset.from_stage is None:
        answers = stage.sft is not None or needs_answer(dataset)
        return open_source(dataset, group.data_cache, answers=answers)
    maker = next(one for one in spec.stages if one.name == dataset.from_stage)
    assert maker.curate is not None, "validation has made sure"
    folder = curated_file.folder_of(Location.parse(spec.checkpoint.directory), maker.name)
    origin = _opened(group, spec, stage, maker.curate.dataset, curated)
    return curated_file.kept_of(origin, name, folder, curated.get(maker.name))


def _to_curate(
    group: ProcessGroup, spec: Spec, stage: api.Stage, settings: Curate, curated: Mapping[str, str]
) -> Source:
    source = _opened(group, spec, stage, settings.dataset, curated)
    if settings.hints is not None:
        make_hints.check(source, settings.hints)
    return source


def _checked(
    group: ProcessGroup, programs: Programs, spec: Spec, stage: api.Stage, name: str, curated: Mapping[str, str]
) -> Source:
    dataset, (prompt, answer, _) = spec.dataset(name), _limits(stage)
    source = _opened(group, spec, stage, name, curated)
    limits = Limits(room(programs, stage), answer, prompt)
    source = check_lengths(source, programs.tokenizer, limits, group.data_cache, dataset.overlong, group.alive)
    if stage.rl is not None and (edits := edits_of(stage.rl)) is not None:
        check_edited(source, programs.tokenizer, limits.prompt, edits, _asks(stage)[-1], group.data_cache, group.alive)
    return source


def _asks(stage: api.Stage) -> tuple[int, int | None, int, str]:
    """What a stage asks of its items: its limits, and what its expansion adds to prompts, as text."""
    own = stage.rl.expansion if stage.rl is not None else None
    kind = expansion.kind(stage.rl) if stage.rl is not None else ""
    return *_limits(stage), kind if own is None else f"{kind} {own.model_dump_json(exclude_none=True)}"


def _limits(stage: api.Stage) -> tuple[int, int | None, int]:
    """Most tokens of a prompt, of an answer that is learned (None: none is), and of a response."""
    settings = stage.settings
    response = settings.max_response_tokens
    return settings.max_prompt_tokens, response if stage.sft is not None else None, response
