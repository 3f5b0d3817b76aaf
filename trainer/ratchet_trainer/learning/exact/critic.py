"""The critic in mode Exact: values and gradients of virtual shards, as the learner has them of the policy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ratchet_trainer.checkpoints import jitted
from ratchet_trainer.learning import critic, optimizer
from ratchet_trainer.learning.critic import Critic, State, value_loss
from ratchet_trainer.learning.exact.virtual_shards import Shard, VirtualShards
from ratchet_trainer.learning.learner import Layout, Row, Rows, on_host
from ratchet_trainer.learning.row_passes import Sums
from ratchet_trainer.model.policy import Policy
from ratchet_trainer.model.programs import CRITIC_UPDATE, VALUES, Program
from ratchet_trainer.model.sharding import Params


class ExactCritic(Critic):
    """A critic whose unit is the virtual shard."""

    def __init__(self, policy: Policy, shards: VirtualShards):
        self.policy, self.mesh, self._shards = policy, shards.mesh, shards
        self._init = jitted.jit(partial(critic._init, policy))
        self._expected = jitted.jit(partial(critic._expected, policy))
        self._gradient = jitted.jit(partial(_gradient, policy))
        self._step = jitted.jit(_step, donate_argnums=0)

    def init(self, params: Params) -> State:
        found: State = self._shards.spread(self._init(self._shards.on_each(params)[0]))
        return found

    def programs(self, layout: Layout, numbers: dict[str, float]) -> Iterator[Program]:
        shards, rows = self._shards, layout.prompts // (self._shards.count * layout.passes)
        settings = {name: np.float32(1) for name in (*numbers, "clip")}
        for device in range(len(shards.devices)):
            own = shards.shapes(self.template, device)
            floats = shards.shapes(layout.per_token([]), device, rows)
            laid_out = shards.shapes(layout.rows([]), device, rows)
            yield VALUES, self._expected.lower(own["params"], laid_out)
            gradient = self._gradient.lower(own["params"], laid_out, floats, floats, floats, settings)
            yield f"{CRITIC_UPDATE}, gradient", gradient
            yield (
                f"{CRITIC_UPDATE}, optimizer",
                self._step.lower(own, shards.shapes(gradient.out_info, device), settings),
            )

    def values(self, state: State, layout: Layout, rows: list[Row]) -> np.ndarray:
        own, laid_out, shards = self._shards.on_each(state["params"]), layout.rows(rows), self._shards
        found = shards.by_device(
            lambda p: self._expected(own[p.device], shards.take(laid_out, p)), layout.prompts, layout.passes
        )
        return layout.of_rows(np.asarray(shards.everywhere(shards.joined(found))), rows)

    def apply(
        self, state: State, layout: Layout, rows: Any, arrays: list[np.ndarray], settings: dict[str, np.float32]
    ) -> tuple[State, dict[str, float]]:
        shards, own = self._shards, self._shards.on_each(state)

        def of_part(part: Shard) -> Any:
            return self._gradient(own[part.device]["params"], *shards.take((rows, *arrays), part), settings)

        sums = shards.added(shards.by_device(of_part, layout.prompts, layout.passes), layout.passes)
        stepped = [self._step(*each, settings) for each in zip(own, sums, strict=True)]
        return shards.equal([one[0] for one in stepped]), on_host(stepped[0][1])


def _gradient(
    policy: Policy,
    params: Params,
    rows: Rows,
    weight: jax.Array,
    old: jax.Array,
    returns: jax.Array,
    settings: Sums,
) -> tuple[Params, Sums]:
    """Of one part: (gradient, sums)."""

    def loss(p: Params) -> jax.Array:
        expected = critic._expected(policy, p, rows)
        return jnp.sum(weight * value_loss(expected, old, returns, settings["clip"]))

    value, gradient = jax.value_and_grad(loss)(params)
    return gradient, {"loss": value}


def _step(state: State, found: tuple[Params, Sums], settings: Sums) -> tuple[State, Sums]:
    gradient, sums = found
    params, moments, norm = optimizer.step(gradient, sums["loss"], state["optimizer"], state["params"], settings)
    return {"params": params, "optimizer": moments}, sums | {"gradient_norm": norm}
