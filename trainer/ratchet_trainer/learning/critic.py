"""The critic: what it expects of a response before each of its tokens, and how it learns.

A decoder of its own, of the policy's architecture, with one number for a head. Decides its start (the policy's weights,
a head of zeros: it expects nothing), its loss and its update. What its values are good for is `gae`'s matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ratchet_trainer.algorithm.objective.aggregation import token_weights
from ratchet_trainer.checkpoints import jitted
from ratchet_trainer.learning import optimizer
from ratchet_trainer.learning.learner import Layout, Row, Rows, on_host
from ratchet_trainer.learning.row_passes import Sums, row_gradient, row_values
from ratchet_trainer.model.policy import Policy
from ratchet_trainer.model.programs import CRITIC_UPDATE, VALUES, Program
from ratchet_trainer.model.sharding import Params, by_rows, of_parameters, place, replicated, shapes

State = dict[str, Any]
"""`params` {trunk, head [width]} and `optimizer` of a critic."""


def value_loss(values: jax.Array, old: jax.Array, returns: jax.Array, clip: jax.Array) -> jax.Array:
    """Half the larger of two squared errors at each token, elementwise: of the new value, and of the new value kept
    within `clip` of the old one (PPO's clipped value loss)."""
    kept = old + jnp.clip(values - old, -clip, clip)
    return 0.5 * jnp.maximum((values - returns) ** 2, (kept - returns) ** 2)


class Critic:
    """Compiled programs of critics of one policy's architecture on one mesh. A state that is handed to an update is
    used up by it."""

    def __init__(self, policy: Policy, mesh: Mesh):
        self.policy, self.mesh = policy, mesh
        everywhere, state = replicated(mesh), jax.tree.map(lambda x: x.sharding, self.template)
        self._init = jitted.jit(partial(_init, policy), out_shardings=state)
        self._values = jitted.jit(partial(_values, policy, mesh), static_argnames="passes", out_shardings=everywhere)
        self._update = jitted.jit(
            partial(_update, policy, mesh),
            static_argnames="passes",
            donate_argnums=0,
            out_shardings=(state, everywhere),
        )

    @property
    def template(self) -> State:
        """Shapes of a critic's state, where it lies on the mesh."""
        found = jitted.shapes_of(partial(_init, self.policy), self.policy.abstract)
        template: State = shapes(found, of_parameters(self.mesh, found))
        return template

    def init(self, params: Params) -> State:
        """A critic that starts from the policy's weights, in buffers of its own."""
        state: State = self._init(params)
        return state

    def programs(self, layout: Layout, numbers: dict[str, float]) -> Iterator[Program]:
        """What `values` and `update` run for this layout, each lowered when it is asked for."""
        rows = by_rows(self.mesh)
        laid_out, floats = shapes(layout.rows([]), rows), shapes(layout.per_token([]), rows)
        yield VALUES, self._values.lower(self.template["params"], laid_out, passes=layout.passes)
        settings = {name: np.float32(1) for name in (*numbers, "clip")}
        of_batch = laid_out, floats, floats, floats, settings
        yield CRITIC_UPDATE, self._update.lower(self.template, *of_batch, passes=layout.passes)

    def values(self, state: State, layout: Layout, rows: list[Row]) -> np.ndarray:
        """What the critic expects before each token of the rows, float64[R, T] on every process; 0 where no token
        is."""
        laid_out = place(layout.rows(rows), by_rows(self.mesh))
        found = self._values(state["params"], laid_out, passes=layout.passes)
        return layout.of_rows(np.asarray(found), rows)

    def update(
        self,
        state: State,
        layout: Layout,
        rows: list[Row],
        values: np.ndarray,
        returns: np.ndarray,
        clip: float,
        numbers: dict[str, float],
    ) -> tuple[State, dict[str, float]]:
        """One optimizer call on a mini-batch; `values` (before the step) and `returns` float64[R, T]. Every token
        weighs the same. Returns the new state and `loss`, `gradient_norm`; where one is no number, the old state."""
        lengths = np.array([len(row.response) for row in rows])
        weight = token_weights("token-mean", lengths, layout.response_slots, layout.response_slots)
        arrays = [layout.fill(x.astype(np.float32)) for x in (weight, values, returns)]
        settings = {name: np.float32(value) for name, value in (numbers | {"clip": clip}).items()}
        return self.apply(state, layout, layout.rows(rows), arrays, settings)

    def apply(
        self, state: State, layout: Layout, rows: Rows, arrays: list[np.ndarray], settings: dict[str, np.float32]
    ) -> tuple[State, dict[str, float]]:
        """`update` of what lies on the host, laid out: weights, values, returns."""
        sharding = by_rows(self.mesh)
        state, found = self._update(
            state, place(rows, sharding), *place(arrays, sharding), settings, passes=layout.passes
        )
        return state, on_host(found)


def _init(policy: Policy, params: Params) -> State:
    width = jax.eval_shape(policy.hidden, params, *_one_row()).shape[-1]
    own = {"trunk": jax.tree.map(jnp.copy, params), "head": jnp.zeros((width,), jnp.float32)}
    return {"params": own, "optimizer": optimizer.init(own)}


def _one_row() -> tuple[Any, Any]:
    rows = Layout(1, 1, 1, 1).rows([])
    return rows.prompts, rows.responses


def _expected(policy: Policy, params: Params, rows: Rows) -> jax.Array:
    values: jax.Array = policy.hidden(params["trunk"], rows.prompts, rows.responses) @ params["head"]
    return values


def _values(policy: Policy, mesh: Mesh, params: Params, rows: Rows, passes: int) -> jax.Array:
    return row_values(mesh, partial(_expected, policy), params, rows, passes)


def _update(
    policy: Policy,
    mesh: Mesh,
    state: State,
    rows: Rows,
    weight: jax.Array,
    old: jax.Array,
    returns: jax.Array,
    settings: Sums,
    passes: int,
) -> tuple[State, Sums]:
    def loss(
        p: Params, rows: Rows, weight: jax.Array, old: jax.Array, returns: jax.Array
    ) -> tuple[jax.Array, tuple[Sums, Sums]]:
        return jnp.sum(weight * value_loss(_expected(policy, p, rows), old, returns, settings["clip"])), ({}, {})

    gradient, found = row_gradient(mesh, loss, state["params"], (rows, weight, old, returns), passes)
    params, moments, norm = optimizer.step(gradient, found["loss"], state["optimizer"], state["params"], settings)
    return {"params": params, "optimizer": moments}, found | {"gradient_norm": norm}
