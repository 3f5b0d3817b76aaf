"""Advantages, losses, gradients and KL of a file of golden numbers, recomputed with the trainer's own functions.

    python -m ratchet_trainer.tools.objective_check FILE     {array: {difference, largest}} as JSON on standard output

Decides what each array's name means. Inputs, for R sequences of at most T tokens: `log_probs`, `old_log_probs`,
`ref_log_probs`, `mask`, `values` [R, T], `rewards`, `group` [R]. Outputs, of which a file may have any:

    adv_grpo, adv_grpo_no_std, adv_rloo, adv_reinforce_pp_baseline     advantage by group
    gae_adv_whitened, gae_returns                                      gamma 1, lambda 0.95
    loss|KIND|AGG|LOW|HIGH, grad|..., clipfrac|...                     with `adv_grpo`; T is the longest response
    kl|k1, kl|k2, kl|k3
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ratchet_trainer.algorithm.advantage.gae import gae
from ratchet_trainer.algorithm.advantage.group import DELTA, token_advantages
from ratchet_trainer.algorithm.advantage.statistics import real_tokens, whitened
from ratchet_trainer.algorithm.objective.aggregation import AGGREGATIONS
from ratchet_trainer.algorithm.objective.drift import Kl, estimate
from ratchet_trainer.algorithm.objective.policy_gradient import PolicyGradient
from ratchet_trainer.algorithm.objective.surrogate import SURROGATES
from ratchet_trainer.algorithm.slots import Micro

Arrays = Mapping[str, np.ndarray]

INPUTS = {"log_probs", "old_log_probs", "ref_log_probs", "mask", "rewards", "group", "values"}
FORMS = {
    # array -> form of advantage
    "adv_grpo": "mean-std",
    "adv_grpo_no_std": "mean",
    "adv_rloo": "leave-one-out",
    "adv_reinforce_pp_baseline": "batch-whitened",
}
LAMBDA = 0.95


class NotGolden(ValueError):
    """The file is not one of golden numbers; the message names what is wrong and what would be right."""


def differences(file: Path) -> dict[str, dict[str, float]]:
    """For each output in the file: the largest `difference` over its tokens, and the `largest` value there.

    Raises NotGolden, or OSError if the file cannot be read.
    """
    z = _read(file)
    real = z["mask"] > 0
    found = {}
    for name in sorted(z.keys() - INPUTS):
        if not np.isfinite(z[name]).all():
            raise NotGolden(f"{name} holds values that are not finite; make the file anew")
        mine = np.asarray(_recompute(name, z), np.float64)
        if mine.shape != z[name].shape:
            raise NotGolden(f"{name} has shape {z[name].shape}, which should be {mine.shape}")
        theirs = z[name].astype(np.float64)
        if mine.shape == real.shape:
            mine, theirs = mine[real], theirs[real]
        found[name] = {"difference": float(np.abs(mine - theirs).max()), "largest": float(np.abs(theirs).max())}
    return found


def _read(file: Path) -> Arrays:
    try:
        with np.load(file, allow_pickle=False) as loaded:
            z = {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, AttributeError) as error:
        raise NotGolden(f"no .npz archive of arrays: {error}") from error
    if missing := INPUTS - z.keys():
        raise NotGolden(f"arrays {', '.join(sorted(missing))} are missing; inputs are {', '.join(sorted(INPUTS))}")
    shape = z["mask"].shape
    wanted = {name: shape[:1] if name in ("rewards", "group") else shape for name in INPUTS}
    if len(shape) != 2 or any(z[name].shape != wanted[name] for name in INPUTS):
        raise NotGolden("mask must be [sequences, tokens], rewards and group [sequences], the other inputs as mask")
    lengths = (z["mask"] > 0).sum(1)
    if not (real_tokens(lengths, shape[1]) == (z["mask"] > 0)).all() or not lengths.all():
        raise NotGolden("mask must be 1 from each sequence's first token to its last, and 0 after it")
    if np.unique(z["group"], return_counts=True)[1].min() < 2:
        raise NotGolden("group must put two sequences or more into each group")
    if z.keys() == INPUTS:
        raise NotGolden("there is nothing to compare with: inputs only")
    return z


def _recompute(name: str, z: Arrays) -> Any:
    head, *rest = name.split("|")
    if name in FORMS:
        order = np.argsort(z["group"], kind="stable")  # a batch holds group after group
        groups = [z["rewards"][z["group"] == g].tolist() for g in np.unique(z["group"])]
        found = token_advantages(groups, _lengths(z)[order], z["mask"].shape[1], FORMS[name], DELTA)
        return found[np.argsort(order)]
    if name in ("gae_adv_whitened", "gae_returns"):
        rewards = np.zeros(z["mask"].shape)
        rewards[np.arange(len(rewards)), _lengths(z) - 1] = z["rewards"]
        advantages, returns = gae(rewards, z["values"].astype(np.float64), _lengths(z), 1.0, LAMBDA)
        return returns if name == "gae_returns" else whitened(advantages, z["mask"] > 0)
    if head == "kl" and rest and rest[0] in ("k1", "k2", "k3"):
        return estimate(rest[0], z["log_probs"], z["ref_log_probs"], Kl.of(rest[0], 0.0, None).limit)
    if head in POLICY and len(rest) == 4 and rest[0] in SURROGATES and rest[1] in AGGREGATIONS:
        if "adv_grpo" not in z:
            raise NotGolden(f"{name} is a loss with adv_grpo, which is missing")
        return POLICY[head](*_policy_loss(z, rest[0], rest[1], float(rest[2]), float(rest[3])))
    raise NotGolden(
        f"{name} is no array that this check knows; see ratchet_trainer/tools/objective_check.py for the names"
    )


POLICY: dict[str, Callable[..., Any]] = {
    "loss": lambda loss, gradient, clipped: loss,
    "grad": lambda loss, gradient, clipped: gradient,
    "clipfrac": lambda loss, gradient, clipped: clipped,
}


def _policy_loss(z: Arrays, kind: str, aggregation: str, low: float, high: float) -> tuple[Any, Any, Any]:
    """Loss, its gradient by the log-probabilities [R, T], and the share of tokens clipped."""
    slots = z["mask"].shape[1]
    objective = PolicyGradient(kind, aggregation, slots, low, high, Kl.of("k3", 0.0, None))
    weights = objective.weights(_lengths(z), slots)
    advantages, weight, old = (jnp.asarray(x, jnp.float32) for x in (z["adv_grpo"], weights, z["old_log_probs"]))
    micro = Micro(advantages, weight, jnp.asarray(z["mask"] > 0), old, None, None)
    settings = {name: jnp.float32(value) for name, value in objective.settings().items()}

    def loss(log_probs: jax.Array) -> Any:
        return objective.loss(log_probs, jnp.zeros_like(z["log_probs"]), micro, settings)

    (value, sums), gradient = jax.value_and_grad(loss, has_aux=True)(z["log_probs"])
    return value, gradient, (sums["clipped_low"] + sums["clipped_high"]) / _lengths(z).sum()


def _lengths(z: Arrays) -> np.ndarray:
    lengths: np.ndarray = (z["mask"] > 0).sum(1)
    return lengths


def main(arguments: list[str]) -> None:
    """The command line above. Exits with 66 for a file that cannot be read, 65 for one that is not golden."""
    if len(arguments) != 1:
        sys.exit(__doc__)
    try:
        print(json.dumps(differences(Path(arguments[0]))))
    except OSError as error:
        print(error, file=sys.stderr)
        sys.exit(66)
    except NotGolden as error:
        print(error, file=sys.stderr)
        sys.exit(65)


if __name__ == "__main__":
    main(sys.argv[1:])
