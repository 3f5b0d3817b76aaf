"""The trainer's process, with what it says of values written down beside what they are, for its first steps.

What a state is worth can be computed where only one response is right: the probability of the rest of it under the
present policy, or 0 after a wrong token. Writes `values.jsonl` to the checkpoint directory, a line a step:

    {"step": 1, "states": [[done, estimate, value, rows], ...]}

with every state before a token of an answer once, and the `rows` that are in it: `done` tokens of the response are
there and right (-1: one is wrong), `estimate` is the critic's or the mean of the continuations. Where a response ends
is no state: `vine` has none there. Needs one process.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ratchet_trainer import app

STEPS = 20
"""Steps that are written down."""


def run(runtime: Any) -> None:
    import numpy as np

    from ratchet_trainer.algorithm.advantage.steps import step_starts
    from ratchet_trainer.algorithm.advantage.vine import Vine
    from ratchet_trainer.data.items import answer_tokens
    from ratchet_trainer.learning.learner import Layout, Row
    from ratchet_trainer.rollout.engine import slots
    from ratchet_trainer.run import Run

    sampled: dict[tuple[int, tuple[int, ...]], float | None] = {}
    value_of = Vine.value

    def value(self: Vine, group: Any, ctx: Any) -> float | None:
        request = group.rollouts[0].request
        sampled[request.draw.item, request.prefix] = found = value_of(self, group, ctx)
        return found

    def exact(stage: Any, params: Any, rollouts: Any) -> dict[int, tuple[tuple[int, ...], np.ndarray]]:
        """Of each item its right response, and float64[T + 1]: what a state with so many of its tokens is worth."""
        rl, one = stage.rl, stage.programs
        prompts = {r.request.draw.item: r.trained_prompt for r in rollouts}
        rows = [
            Row(p.tokens, tuple(answer_tokens(stage.source, one.tokenizer, item, p.answer, rl.max_response_tokens)))
            for item, p in prompts.items()
        ]
        layout = Layout.of(rl.prompts_per_step, 1, 1, slots(rl.max_prompt_tokens), rl.max_response_tokens)
        said = one.learner.log_probs(params, layout, rows, float(rl.temperature))
        log_probs = one.learner.on_host(said, layout, rows)
        return {
            item: (row.response, np.exp([of_row[at : len(row.response)].sum() for at in range(len(row.response) + 1)]))
            for item, row, of_row in zip(prompts, rows, log_probs, strict=True)
        }

    class Watched(Run):
        def batch(self, state: Any, ctx: Any) -> Any:
            sampled.clear()
            pending = super().batch(state, ctx)
            if ctx.step <= STEPS:
                rollouts, values = pending.batch.rollouts, pending.batch.values
                known, states = exact(self.stage, state.params, rollouts), {}
                for row, rollout in enumerate(rollouts):
                    item = rollout.request.draw.item
                    right, worth = known[item]
                    for at in step_starts(rollout.response, 0, "tokens", 1, len(rollout.response), ctx.decode):
                        so_far = rollout.response[:at]
                        estimate = sampled.get((item, so_far)) if values is None else float(values[row, at])
                        good = so_far == right[:at]
                        if estimate is not None:
                            found = [at if good else -1, estimate, float(worth[at]) if good else 0.0, 0]
                            states.setdefault((item, so_far), found)[-1] += 1
                with open(Path(runtime.job.spec.checkpoint.directory) / "values.jsonl", "a") as file:
                    file.write(json.dumps({"step": ctx.step, "states": [*states.values()]}) + "\n")
            return pending

    Vine.value = value  # type: ignore[method-assign]
    Watched(runtime).to_the_end()


if __name__ == "__main__":
    app.main(run)
