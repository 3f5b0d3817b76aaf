"""What stages train on: their data sets opened, with items that fit the model and the stage's limits.

Decides that the data of later stages are looked at before the first step of the first one: what is wrong with them
should not be found out days later.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from ratchet_api import stages as api
from ratchet_api.job import Spec
from ratchet_trainer.algorithm.expansion.edits import edits_of
from ratchet_trainer.data.edited_lengths import check_edited
from ratchet_trainer.data.items import Source, needs_answer, open_source
from ratchet_trainer.data.lengths import Limits, check_lengths
from ratchet_trainer.data.mixture import Mixture
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.rollout.engine import ProcessGroup
from ratchet_trainer.rollout.verification import Verification
from ratchet_trainer.step import preflight
from ratchet_trainer.step.judges import judges_of

if TYPE_CHECKING:
    from ratchet_trainer.step.stage import Programs


def stage_source(group: ProcessGroup, programs: Programs, spec: Spec, stage: api.Stage) -> Source:
    """What a stage trains on. Raises ConfigurationInvalid."""
    opened = [_checked(group, programs, spec, stage, name) for name in stage.dataset_names]
    if stage.rl is None or stage.rl.datasets is None:
        return opened[0]
    return Mixture(opened, [part.weight for part in stage.rl.datasets])


def check_later_stages(group: ProcessGroup, programs: Programs, spec: Spec) -> None:
    """Looks at the data of all stages but the first, on process 0, and tries their expected answers. Raises
    ConfigurationInvalid that names the stage."""
    if group.process != 0:
        return
    seen = {(name, *_limits(spec.stages[0])) for name in spec.stages[0].dataset_names}
    for stage in spec.stages[1:]:
        try:
            opened = {}
            for place, name in enumerate(stage.dataset_names):
                if (key := (name, *_limits(stage))) not in seen:
                    seen.add(key)
                    opened[place] = _checked(group, programs, spec, stage, name)
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


def _checked(group: ProcessGroup, programs: Programs, spec: Spec, stage: api.Stage, name: str) -> Source:
    dataset, (prompt, answer, _) = spec.dataset(name), _limits(stage)
    source = open_source(dataset, group.data_cache, answers=stage.sft is not None or needs_answer(dataset))
    limits = Limits(room(programs, stage), answer, prompt)
    source = check_lengths(source, programs.tokenizer, limits, group.data_cache, dataset.overlong, group.alive)
    if stage.rl is not None and (edits := edits_of(stage.rl)) is not None:
        said = stage.rl.expansion.model_dump_json() if stage.rl.expansion is not None else ""
        check_edited(source, programs.tokenizer, limits.prompt, edits, said, group.data_cache, group.alive)
    return source


def _limits(stage: api.Stage) -> tuple[int, int | None, int]:
    """Most tokens of a prompt, of an answer that is learned (None: none is), and of a response."""
    settings = stage.sft or stage.rl
    assert settings is not None, "the type's rules"
    response = settings.max_response_tokens
    return settings.max_prompt_tokens, response if stage.sft is not None else None, response
