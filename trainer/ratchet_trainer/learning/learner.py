"""The learner: the compiled programs that change weights, and how a step's rows become their fixed shapes.

Decides layout (which rows share a prompt's keys and values, what fills up a batch) and the order loss, gradient,
update. What the loss is, the objective slot says; how a gradient is applied, `optimizer`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import gcd
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ratchet_trainer.algorithm import keys
from ratchet_trainer.algorithm.slots import Micro, Objective
from ratchet_trainer.checkpoints import jitted
from ratchet_trainer.data.tokenizer import FILLER
from ratchet_trainer.learning import optimizer
from ratchet_trainer.learning.row_passes import Sums, row_gradient, row_values
from ratchet_trainer.model import lora
from ratchet_trainer.model.policy import Policy, Prompts, lay_out_prompts
from ratchet_trainer.model.programs import LOG_PROBS, UPDATE, Program
from ratchet_trainer.model.sharding import Params, by_rows, of_parameters, place, replicated, row_parts, shapes


@dataclass(frozen=True)
class Row:
    """One response to learn from: its prompt's tokens, its own, and what the sampler said of them (None for sft). The
    first `forced` tokens are seen, not trained on."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    behaviour: np.ndarray | None = None
    forced: int = 0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rows:
    """A mini-batch at a fixed shape: P prompts with G responses int32[P, G, T] of `length` [P, G] tokens (0 =
    dummy)."""

    prompts: Prompts
    responses: jax.Array
    length: jax.Array


@dataclass(frozen=True)
class Layout:
    """How `rows` responses, of which `group` in a row share a prompt, lie on `parts` devices: [prompts, samples]. Each
    device takes its own in `passes` equal parts."""

    prompts: int
    samples: int
    prompt_slots: int
    response_slots: int
    passes: int = 1

    @classmethod
    def of(
        cls,
        rows: int,
        group: int,
        parts: int,
        prompt_slots: int,
        response_slots: int,
        rows_per_pass: int | None = None,
    ) -> Layout:
        """The layout whose passes hold at most `rows_per_pass` rows (None: one pass)."""
        each = -(-rows // parts)  # dummies fill what cannot be shared evenly
        width = min(each, rows_per_pass or each)
        passes = -(-each // width)
        samples = gcd(width, group) if rows % parts == 0 else 1
        return cls(passes * width * parts // samples, samples, prompt_slots, response_slots, passes)

    def first_misfit(self, rows: list[Row]) -> int | None:
        """The first row with another prompt than the one that it is to share; None if all fit."""
        return next((i for i, row in enumerate(rows) if row.prompt != rows[i - i % self.samples].prompt), None)

    @property
    def one_by_one(self) -> Layout:
        """The layout of as many rows, each with a prompt of its own."""
        return replace(self, prompts=self.prompts * self.samples, samples=1)

    def fill(self, values: np.ndarray) -> np.ndarray:
        """Values [R, ...] as [P, G, ...]; dummies get zeros."""
        out = np.zeros((self.prompts * self.samples, *values.shape[1:]), values.dtype)
        out[: len(values)] = values
        return out.reshape(self.prompts, self.samples, *values.shape[1:])

    def rows(self, rows: list[Row]) -> Rows:
        """The rows at this shape. Raises ValueError where one place for a prompt would get rows of two."""
        if len(rows) > self.prompts * self.samples:
            raise ValueError(f"{len(rows)} rows do not fit a layout of {self.prompts} prompts x {self.samples} rows")
        if (i := self.first_misfit(rows)) is not None:
            raise ValueError(
                f"row {i} has another prompt than row {i - i % self.samples}, beside which it lies: {self.samples} "
                "rows in turn share one prompt here; order rows by their prompt, or lay them out one by one"
            )
        tokens = np.full((self.prompts * self.samples, self.response_slots), FILLER, np.int32)
        for i, row in enumerate(rows):
            tokens[i, : len(row.response)] = row.response
        prompts = [row.prompt for row in rows[:: self.samples]]
        return Rows(
            lay_out_prompts(prompts, self.prompts, self.prompt_slots),
            # On the host, until they are placed.
            tokens.reshape(self.prompts, self.samples, -1),  # type: ignore[arg-type]
            self.fill(np.array([len(row.response) for row in rows], np.int32)),  # type: ignore[arg-type]
        )

    def per_token(self, rows: list[np.ndarray]) -> np.ndarray:
        """Values of each row's tokens as float32[P, G, T]; 0 elsewhere."""
        out = np.zeros((len(rows), self.response_slots), np.float32)
        for i, values in enumerate(rows):
            out[i, : len(values)] = values
        return self.fill(out)

    def of_rows(self, values: np.ndarray, rows: list[Row]) -> np.ndarray:
        """What programs say of the rows, [P, G, T], as float64[R, T]; 0 where no token is."""
        lengths = np.array([len(row.response) for row in rows])
        found = np.asarray(values, np.float64).reshape(-1, self.response_slots)[: len(rows)]
        return np.where(np.arange(self.response_slots) < lengths[:, None], found, 0.0)


@dataclass(frozen=True)
class LaidOut:
    """A mini-batch at its fixed shape, on the host but for what global programs said of it (`Micro.old`,
    `Micro.reference`), and what is asked of it."""

    layout: Layout
    rows: Rows
    micro: Micro
    temperature: np.float32
    loss: Any  # the objective's, a function that shapes the program
    settings: dict[str, np.float32]  # its numbers


class Learner:
    """Compiled programs of one policy on one mesh; new shapes compile on first use. Parameters and optimizer state that
    are handed to an update are used up by it."""

    def __init__(self, policy: Policy, mesh: Mesh):
        self.policy, self.mesh = policy, mesh
        start = of_parameters(mesh, jitted.shapes_of(partial(_init, policy), keys.seed_words(0)))
        part = lora.trained(start[0])
        self._init = jitted.jit(partial(_init, policy), out_shardings=start)
        self._adapters = jitted.jit(partial(_adapters, policy), out_shardings=part)
        self._judge = jitted.jit(partial(_judge, policy, mesh), static_argnames="passes", out_shardings=by_rows(mesh))
        self._copy = jitted.jit(copies, out_shardings=part)
        self._whole = jitted.jit(lambda x: x, out_shardings=replicated(mesh))
        self._update = jitted.jit(
            partial(_update, policy, mesh),
            static_argnames=("loss", "passes"),
            donate_argnums=(0, 1),
            out_shardings=(*start, replicated(mesh)),
        )

    @property
    def parts(self) -> int:
        return row_parts(self.mesh)

    def init(self, seed: np.ndarray) -> tuple[Params, Any]:
        """Fresh parameters and optimizer state from a raw key."""
        found: tuple[Params, Any] = self._init(seed)
        return found

    def programs(
        self,
        params: Params,
        state: Any,
        layout: Layout,
        objective: Objective,
        numbers: dict[str, float],
        sampled: bool,
        old: bool,
        reference: bool,
    ) -> Iterator[Program]:
        """What `update` runs for this layout, each lowered when it is asked for; `params` and `state` may be shapes.
        `sampled`: rows say what the sampler said of them; `old`, `reference`: so do the step's first weights and the
        reference's, and `log_probs` is needed too."""
        floats = layout.per_token([])
        others = {"old": old, "reference": reference, "behaviour": sampled}
        shaped = {name: floats if there else None for name, there in others.items()}
        # On the host; `real` is made within the program.
        micro = Micro(floats, floats, None, **shaped)  # type: ignore[arg-type]
        settings = _float32(objective.settings())
        batch = LaidOut(layout, layout.rows([]), micro, np.float32(1), objective.loss, settings)
        yield from self.lowered(params, state, batch, _float32(numbers), judges=old or reference)

    def lowered(
        self, params: Params, state: Any, batch: LaidOut, numbers: dict[str, np.float32], *, judges: bool
    ) -> Iterator[Program]:
        """What `apply`, and with `judges` `log_probs`, runs for batches of this shape."""
        rows, micro = shapes((batch.rows, batch.micro), by_rows(self.mesh))
        passes = batch.layout.passes
        if judges:
            yield LOG_PROBS, self._judge.lower(params, rows, batch.temperature, passes=passes)
        of_batch = rows, micro, batch.temperature, batch.settings, numbers
        yield UPDATE, self._update.lower(params, state, *of_batch, loss=batch.loss, passes=passes)

    def adapters(self, seed: np.ndarray) -> Params:
        """Fresh adapters alone, from a raw key."""
        found: Params = self._adapters(seed)
        return found

    def fresh_optimizer(self, params: Params) -> Any:
        shapes = jitted.shapes_of(optimizer.init, lora.trained(self.policy.abstract))
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        return place(zeros, of_parameters(self.mesh, zeros))

    def copied(self, params: Params) -> Params:
        """The same weights in buffers of their own, which no update uses up."""
        copy: Params = self._copy(params)
        return copy

    def log_probs(self, params: Params, layout: Layout, rows: list[Row], temperature: float) -> jax.Array:
        """Log-probabilities [P, G, T] of the rows under the given weights, left on the devices."""
        laid_out = place(layout.rows(rows), by_rows(self.mesh))
        found: jax.Array = self._judge(params, laid_out, np.float32(temperature), passes=layout.passes)
        return found

    def on_host(self, values: jax.Array, layout: Layout, rows: list[Row]) -> np.ndarray:
        """Values [P, G, T] of the rows as float64[R, T] on every process. *Collective.*"""
        return layout.of_rows(np.asarray(self._whole(values)), rows)

    def update(
        self,
        params: Params,
        state: Any,
        layout: Layout,
        rows: list[Row],
        advantages: np.ndarray,
        old: jax.Array | np.ndarray | None,
        temperature: float,
        objective: Objective,
        numbers: dict[str, float],
        reference: jax.Array | np.ndarray | None = None,
    ) -> tuple[Params, Any, dict[str, float]]:
        """One optimizer call on a mini-batch. advantages: float64[R, T]; old, reference: as `log_probs` gives them.

        Returns new parameters, new optimizer state and metrics: `loss`, `gradient_norm`, `old_gap` = max |new - old| /
        max(1, |old|), `sampler_gap` likewise of old against behaviour; summed over tokens, `mismatch` = |old -
        behaviour|, `importance` = old / behaviour probability, and the objective's. Without `old`, new is taken for
        it. Where loss or norm is no number, parameters and state are the old ones.
        """
        weight = layout.fill(token_weights(objective, rows, layout.response_slots).astype(np.float32))
        sampled = [row.behaviour for row in rows if row.behaviour is not None]
        assert len(sampled) in (0, len(rows)), "all rows of a mini-batch were sampled, or none"
        behaviour = layout.per_token(sampled) if sampled else None
        gain = layout.fill(advantages.astype(np.float32))
        # On the host but for `old` and `reference`; `real` is made within the program.
        micro = Micro(gain, weight, None, old, reference, behaviour)  # type: ignore[arg-type]
        settings = _float32(objective.settings())
        batch = LaidOut(layout, layout.rows(rows), micro, np.float32(temperature), objective.loss, settings)
        return self.apply(params, state, batch, _float32(numbers))

    def apply(
        self, params: Params, state: Any, batch: LaidOut, numbers: dict[str, np.float32]
    ) -> tuple[Params, Any, dict[str, float]]:
        """`update` of a batch that is laid out."""
        rows, micro = place((batch.rows, batch.micro), by_rows(self.mesh))
        params, state, metrics = self._update(
            params, state, rows, micro, batch.temperature, batch.settings, numbers,
            loss=batch.loss, passes=batch.layout.passes,
        )  # fmt: skip
        return params, state, on_host(metrics)


def token_weights(objective: Objective, rows: list[Row], slots: int) -> np.ndarray:
    """The share of each token in the loss, float64[R, slots]. What was forced on a row has none, and counts in no
    denominator: a row weighs as if its response began after it."""
    free = np.array([len(row.response) - row.forced for row in rows])
    weights = objective.weights(free, slots)
    for i, row in enumerate(rows):
        if row.forced:
            weights[i] = np.concatenate([np.zeros(row.forced), weights[i, : slots - row.forced]])
    return weights


def on_host(metrics: dict[str, jax.Array]) -> dict[str, float]:
    """What an update reports, as numbers."""
    return {k: float(v) for k, v in jax.device_get(metrics).items()}


def _float32(numbers: dict[str, float]) -> dict[str, np.float32]:
    return {k: np.float32(v) for k, v in numbers.items()}


def copies(params: Params) -> Params:
    copied: Params = jax.tree.map(jnp.copy, params)
    return copied


def _init(policy: Policy, seed: jax.Array) -> tuple[Params, Any]:
    params = policy.init(seed)
    return params, optimizer.init(lora.trained(params))


def _adapters(policy: Policy, seed: jax.Array) -> Params:
    adapters: Params = lora.trained(policy.init(seed))
    return adapters


def log_probs_of(policy: Policy, params: Params, rows: Rows, temperature: jax.Array) -> jax.Array:
    """Log-probability of every token of the rows, float32[P, G, T]."""
    return policy.judge(params, rows.prompts, rows.responses, temperature)[0]


def _judge(policy: Policy, mesh: Mesh, params: Params, rows: Rows, temperature: jax.Array, passes: int) -> jax.Array:
    log_probs = lambda params, rows: log_probs_of(policy, params, rows, temperature)  # noqa: E731
    return row_values(mesh, log_probs, params, rows, passes)


def of_rows(policy: Policy, loss: Any, temperature: jax.Array, settings: Any) -> Any:
    """(params, rows, micro) -> the rows' share of the loss, (sums, largest): what is differentiated, and what is said
    of it."""

    def found(p: Params, rows: Rows, micro: Micro) -> Any:
        # A token without weight is a forced one: it is seen, and nothing is learned from it or said of it.
        real = (jnp.arange(rows.responses.shape[-1]) < rows.length[..., None]) & (micro.weight > 0)
        log_probs, entropy = policy.judge(p, rows.prompts, rows.responses, temperature)
        value, sums = loss(log_probs, entropy, replace(micro, real=real), settings)
        # What the trainer says under the weights that sampled each row: not the new ones, where it was carried over.
        sampled_by = log_probs if micro.old is None else micro.old
        if micro.behaviour is not None:
            gap = jnp.where(real, sampled_by - micro.behaviour, 0.0)
            sums |= {"mismatch": jnp.sum(jnp.abs(gap)), "importance": jnp.sum(jnp.where(real, jnp.exp(gap), 0.0))}
        gaps = {
            name: jnp.max(jnp.where(real, jnp.abs(said - other) / jnp.maximum(1.0, jnp.abs(other)), 0.0))
            for name, said, other in (
                ("old_gap", log_probs, micro.old),
                ("sampler_gap", sampled_by, micro.behaviour),
            )
            if other is not None
        }
        return value, (sums, gaps)

    return found


def _update(
    policy: Policy,
    mesh: Mesh,
    params: Params,
    state: Any,
    rows: Rows,
    micro: Micro,
    temperature: jax.Array,
    settings: Sums,
    numbers: Sums,
    loss: Any,
    passes: int,
) -> tuple[Params, Any, Sums]:
    part, frozen = lora.split(params)
    loss_of = of_rows(policy, loss, temperature, settings)
    gradient, found = row_gradient(mesh, loss_of, part, (rows, micro), passes, frozen)
    part, state, norm = optimizer.step(gradient, found["loss"], state, part, numbers)
    return lora.joined(part, frozen), state, found | {"gradient_norm": norm}
