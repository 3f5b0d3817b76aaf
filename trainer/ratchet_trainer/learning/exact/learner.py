"""Learning in mode Exact: gradients of virtual shards, each computed by itself, added by a fixed tree."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from ratchet_trainer.algorithm.slots import Micro
from ratchet_trainer.checkpoints import jitted
from ratchet_trainer.learning import learner, optimizer
from ratchet_trainer.learning.exact.virtual_shards import Shard, VirtualShards
from ratchet_trainer.learning.learner import LaidOut, Layout, Learner, Row, Rows, on_host
from ratchet_trainer.learning.row_passes import Sums
from ratchet_trainer.model import lora
from ratchet_trainer.model.policy import Policy
from ratchet_trainer.model.programs import LOG_PROBS, UPDATE, Program
from ratchet_trainer.model.sharding import Params, replicated


class ExactLearner(Learner):
    """A learner whose unit is the virtual shard; the optimizer runs on every device, on equal numbers."""

    def __init__(self, policy: Policy, shards: VirtualShards):
        self.policy, self.mesh, self._shards = policy, shards.mesh, shards
        self._init = jitted.jit(partial(learner._init, policy))
        self._adapters = jitted.jit(partial(learner._adapters, policy))
        self._log_probs = jitted.jit(partial(learner.log_probs_of, policy))
        self._gradient = jitted.jit(partial(_gradient, policy), static_argnames="loss")
        self._step = jitted.jit(_step, donate_argnums=(0, 1))
        self._copy = jitted.jit(learner.copies, out_shardings=replicated(shards.mesh))
        self._whole = jitted.jit(lambda x: x, out_shardings=replicated(shards.mesh))

    @property
    def parts(self) -> int:
        return self._shards.count

    def init(self, seed: np.ndarray) -> tuple[Params, Any]:
        found: tuple[Params, Any] = self._shards.spread(self._init(seed))
        return found

    def adapters(self, seed: np.ndarray) -> Params:
        found: Params = self._shards.spread(self._adapters(seed))
        return found

    def lowered(
        self, params: Params, state: Any, batch: LaidOut, numbers: dict[str, np.float32], *, judges: bool
    ) -> Iterator[Program]:
        shards = self._shards
        size = batch.layout.prompts // (shards.count * batch.layout.passes)
        for device in range(len(shards.devices)):
            own, moments = shards.shapes(params, device), shards.shapes(state, device)
            rows, micro = shards.shapes((batch.rows, batch.micro), device, size)
            if judges:
                yield LOG_PROBS, self._log_probs.lower(own, rows, batch.temperature)
            gradient = self._gradient.lower(own, rows, micro, batch.temperature, batch.settings, loss=batch.loss)
            yield f"{UPDATE}, gradient", gradient
            sums = shards.shapes(gradient.out_info[0], device)
            yield f"{UPDATE}, optimizer", self._step.lower(own, moments, sums, numbers)

    def log_probs(self, params: Params, layout: Layout, rows: list[Row], temperature: float) -> jax.Array:
        own, laid_out, shards = self._shards.on_each(params), layout.rows(rows), self._shards
        return shards.joined(
            shards.by_device(
                lambda p: self._log_probs(own[p.device], shards.take(laid_out, p), np.float32(temperature)),
                layout.prompts,
                layout.passes,
            )
        )

    def apply(
        self, params: Params, state: Any, batch: LaidOut, numbers: dict[str, np.float32]
    ) -> tuple[Params, Any, dict[str, float]]:
        shards, own, layout = self._shards, self._shards.on_each(params), batch.layout

        def of_part(part: Shard) -> Any:
            mine = shards.take((batch.rows, batch.micro), part)
            return self._gradient(own[part.device], *mine, batch.temperature, batch.settings, loss=batch.loss)

        found = shards.by_device(of_part, layout.prompts, layout.passes)
        sums = shards.added([[part[0] for part in some] for some in found], layout.passes)
        peaks = shards.largest([[part[1] for part in some] for some in found])
        moments = shards.on_each(state)
        stepped = [self._step(*each, numbers) for each in zip(own, moments, sums, strict=True)]
        params, state = (shards.equal([one[i] for one in stepped]) for i in (0, 1))
        return params, state, on_host(stepped[0][2]) | peaks


def _gradient(
    policy: Policy, params: Params, rows: Rows, micro: Micro, temperature: jax.Array, settings: Sums, loss: Any
) -> tuple[tuple[Params, Sums], Sums]:
    """Of one part: ((gradient, sums), largest)."""
    part, frozen = lora.split(params)
    share = learner.of_rows(policy, loss, temperature, settings)

    def whole(p: Params) -> tuple[jax.Array, tuple[Sums, Sums]]:
        found: tuple[jax.Array, tuple[Sums, Sums]] = share(lora.joined(p, frozen), rows, micro)
        return found

    (value, (sums, largest)), gradient = jax.value_and_grad(whole, has_aux=True)(part)
    return (gradient, sums | {"loss": value}), largest


def _step(params: Params, state: Any, found: tuple[Params, Sums], numbers: Sums) -> tuple[Params, Any, Sums]:
    gradient, sums = found
    part, frozen = lora.split(params)
    part, state, norm = optimizer.step(gradient, sums["loss"], state, part, numbers)
    return lora.joined(part, frozen), state, sums | {"gradient_norm": norm}
