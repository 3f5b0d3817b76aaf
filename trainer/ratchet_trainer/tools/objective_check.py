"""Advantages, losses, gradients and KL of a file of golden numbers, recomputed with the trainer's own functions.

    python -m ratchet_trainer.tools.objective_check FILE     {array: {difference, largest}} as JSON on standard output

Decides what each array's name means. FILE is an archive of arrays (.npz), or JSON with nested lists in `arrays` and
anything else beside it, such as who made them. Inputs, for R sequences of at most T tokens: `log_probs`,
`old_log_probs`, `ref_log_probs`, `mask`, `values` [R, T], `rewards`, `group` [R]; where an output needs them also
`entropy`, `sampled_log_probs` (of the sampler), `new_values`, `tokens` [R, T], `logits` [R, T, V]. Outputs, of which a
file may have any:

    adv_grpo, adv_grpo_no_std, adv_rloo, adv_reinforce_pp_baseline     advantage by group
    gae_adv_whitened, gae_returns                                      gamma 1, lambda 0.95
    loss|KIND|AGG|LOW|HIGH, grad|..., clipfrac|...                     with `adv_grpo`; T is the longest response
    loss|KIND|AGG|LOW|HIGH|TERM=NUMBER, and so on                      with a term of TERMS: dual=3, k3=0.04, cap=2
    kl|k1, kl|k2, kl|k3
    importance|CAP                                                     old over sampled, at most CAP
    value_loss|CLIP, value_grad|CLIP                                   critic, `new_values` against `gae_returns`
    log_prob|TEMPERATURE, entropy|TEMPERATURE                          of `tokens` under `logits`, unmasked
    logits_grad|TEMPERATURE                                            by `logits`, of their sum weighted by `values`
                                                                       (log_prob) and `new_values` (entropy)
    adamw|RATE|DECAY|CLIP                                              `values` after three updates by the gradients
                                                                       log_probs, old_log_probs, ref_log_probs
    overlong|LIMIT|BUFFER                                              [R], DAPO's punishment of long responses
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
from ratchet_trainer.algorithm.objective.drift import Kl, estimate
from ratchet_trainer.algorithm.objective.policy_gradient import PolicyGradient
from ratchet_trainer.algorithm.objective.surrogate import importance
from ratchet_trainer.algorithm.rewards.length import overlong
from ratchet_trainer.algorithm.slots import Micro
from ratchet_trainer.learning import optimizer
from ratchet_trainer.learning.critic import value_loss
from ratchet_trainer.model.policy import log_prob_and_entropy

Arrays = Mapping[str, np.ndarray]

INPUTS = {"log_probs", "old_log_probs", "ref_log_probs", "mask", "rewards", "group", "values"}
SOME_INPUTS = {"entropy", "sampled_log_probs", "new_values", "tokens", "logits"}
OF_SEQUENCES = "rewards", "group"
FORMATS = {"rewards": np.float64, "group": np.int64, "tokens": np.int64}
"""Formats of arrays that are not float32."""
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
    for name in sorted(z.keys() - INPUTS - SOME_INPUTS):
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
    z = _of_json(file) if file.suffix == ".json" else _of_archive(file)
    if missing := INPUTS - z.keys():
        raise NotGolden(f"arrays {', '.join(sorted(missing))} are missing; inputs are {', '.join(sorted(INPUTS))}")
    shape = z["mask"].shape
    inputs = INPUTS | (SOME_INPUTS & z.keys())
    wanted = {name: shape[:1] if name in OF_SEQUENCES else shape for name in inputs}
    if "logits" in inputs:
        wanted["logits"] = (*shape, *z["logits"].shape[2:][:1])
    if len(shape) != 2 or any(z[name].shape != wanted[name] for name in inputs):
        raise NotGolden("mask must be [sequences, tokens], rewards and group [sequences], the other inputs as mask")
    lengths = (z["mask"] > 0).sum(1)
    if not (real_tokens(lengths, shape[1]) == (z["mask"] > 0)).all() or not lengths.all():
        raise NotGolden("mask must be 1 from each sequence's first token to its last, and 0 after it")
    if np.unique(z["group"], return_counts=True)[1].min() < 2:
        raise NotGolden("group must put two sequences or more into each group")
    if z.keys() == inputs:
        raise NotGolden("there is nothing to compare with: inputs only")
    return z


def _of_archive(file: Path) -> Arrays:
    try:
        with np.load(file, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, AttributeError) as error:
        raise NotGolden(f"no .npz archive of arrays: {error}") from error


def _of_json(file: Path) -> Arrays:
    try:
        arrays = json.loads(file.read_bytes())["arrays"]
        return {name: np.array(values, FORMATS.get(name, np.float32)) for name, values in arrays.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NotGolden(f"no JSON object with nested lists of numbers in `arrays`: {error!r}") from error


def _recompute(name: str, z: Arrays) -> Any:
    head, *rest = name.split("|")
    try:
        if name in FORMS:
            return _advantages(z, FORMS[name])
        return OUTPUTS[head](z, *rest)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, NotGolden):
            raise
        raise NotGolden(
            f"{name} is no array that this check knows: {error}; ratchet_trainer/tools/objective_check.py has the names"
        ) from error


def _given(z: Arrays, name: str, what: str) -> np.ndarray:
    if name not in z:
        raise NotGolden(f"there is {what} with {name}, which is missing")
    return z[name]


def _advantages(z: Arrays, form: str) -> np.ndarray:
    order = np.argsort(z["group"], kind="stable")  # a batch holds group after group
    groups = [z["rewards"][z["group"] == g].tolist() for g in np.unique(z["group"])]
    found = token_advantages(groups, _lengths(z)[order], z["mask"].shape[1], form, DELTA)
    return found[np.argsort(order)]


def _gae(z: Arrays) -> tuple[np.ndarray, np.ndarray]:
    rewards = np.zeros(z["mask"].shape)
    rewards[np.arange(len(rewards)), _lengths(z) - 1] = z["rewards"]
    return gae(rewards, z["values"].astype(np.float64), _lengths(z), 1.0, LAMBDA)


def _kl(z: Arrays, estimator: str) -> Any:
    return estimate(estimator, z["log_probs"], z["ref_log_probs"], Kl.of(estimator, 0.0, None).limit)


def _importance(z: Arrays, cap: str) -> Any:
    sampled = _given(z, "sampled_log_probs", "an importance")
    return importance(_floats(z["old_log_probs"]) - _floats(sampled), jnp.float32(float(cap)))


def _value_loss(z: Arrays, clip: str) -> tuple[Any, Any]:
    """The critic's loss, every token with the same weight, and its gradient by the new values [R, T]."""
    returns, new = (_given(z, name, "a value loss") for name in ("gae_returns", "new_values"))
    weight = (z["mask"] > 0) / _lengths(z).sum()
    old, expected, limit = (jnp.asarray(x, jnp.float32) for x in (z["values"], returns, float(clip)))
    of_values = jax.value_and_grad(lambda values: jnp.sum(weight * value_loss(values, old, expected, limit)))
    value, gradient = of_values(jnp.asarray(new))
    return value, gradient


def _of_logits(z: Arrays, temperature: str) -> tuple[Any, Any, Any]:
    """Log-probability and entropy [R, T] of given tokens, and a gradient of both by the logits [R, T, V]."""
    tokens, logits = (jnp.asarray(_given(z, name, "a log-probability")) for name in ("tokens", "logits"))
    weights = _floats(z["values"]), _floats(_given(z, "new_values", "a gradient by logits"))

    def weighted(logits: jax.Array) -> Any:
        found = log_prob_and_entropy(logits, tokens, jnp.float32(float(temperature)))
        return sum(jnp.sum(w * x) for w, x in zip(weights, found, strict=True)), found

    (_, (chosen, entropy)), gradient = jax.value_and_grad(weighted, has_aux=True)(logits)
    return chosen, entropy, gradient


def _adamw(z: Arrays, rate: str, decay: str, clip: str) -> Any:
    settings = {"learning_rate": rate, "weight_decay": decay, "clip_norm": clip}
    numbers = {name: jnp.float32(float(value)) for name, value in settings.items()}
    params: dict[str, Any] = {"matrix": _floats(z["values"])}
    state = optimizer.init(params)
    for gradient in (z["log_probs"], z["old_log_probs"], z["ref_log_probs"]):
        params, state, _ = optimizer.step({"matrix": _floats(gradient)}, jnp.float32(0), state, params, numbers)
    return params["matrix"]


def _overlong(z: Arrays, limit: str, buffer: str) -> np.ndarray:
    return np.array([overlong(int(length), int(limit), int(buffer)) for length in _lengths(z)])


OUTPUTS: dict[str, Callable[..., Any]] = {
    # first word of an array's name -> its numbers, from all arrays of a file and the other words
    "gae_returns": lambda z: _gae(z)[1],
    "gae_adv_whitened": lambda z: whitened(_gae(z)[0], z["mask"] > 0),
    "kl": _kl,
    "importance": _importance,
    "value_loss": lambda z, clip: _value_loss(z, clip)[0],
    "value_grad": lambda z, clip: _value_loss(z, clip)[1],
    "log_prob": lambda z, temperature: _of_logits(z, temperature)[0],
    "entropy": lambda z, temperature: _of_logits(z, temperature)[1],
    "logits_grad": lambda z, temperature: _of_logits(z, temperature)[2],
    "adamw": _adamw,
    "overlong": _overlong,
    "loss": lambda z, *words: _policy_loss(z, *words)[0],
    "grad": lambda z, *words: _policy_loss(z, *words)[1],
    "clipfrac": lambda z, *words: _policy_loss(z, *words)[2],
}
TERMS: dict[str, Callable[[float], dict[str, Any]]] = {
    # TERM of an array's name -> what its number changes of an objective
    "dual": lambda limit: {"dual_clip": limit},
    "cap": lambda cap: {"importance_cap": cap},
    "entropy": lambda coefficient: {"entropy": coefficient},
    "k1": lambda coefficient: {"kl": Kl.of("k1", coefficient, None), "penalized": True},
    "k2": lambda coefficient: {"kl": Kl.of("k2", coefficient, None), "penalized": True},
    "k3": lambda coefficient: {"kl": Kl.of("k3", coefficient, None), "penalized": True},
}


def _policy_loss(z: Arrays, kind: str, aggregation: str, low: str, high: str, *terms: str) -> tuple[Any, Any, Any]:
    """Loss, its gradient by the log-probabilities [R, T], and the share of tokens clipped."""
    slots = z["mask"].shape[1]
    changes: dict[str, Any] = {"kl": Kl.of("k3", 0.0, None)}
    for term in terms:
        name, _, number = term.partition("=")
        changes |= TERMS[name](float(number))
    objective = PolicyGradient(kind, aggregation, slots, float(low), float(high), **changes)
    weights = objective.weights(_lengths(z), slots)
    behaviour = _given(z, "sampled_log_probs", "a loss with a cap") if objective.importance_cap else None
    micro = Micro(
        advantages=_floats(_given(z, "adv_grpo", "a loss")),
        weight=_floats(weights),
        real=jnp.asarray(z["mask"] > 0),
        old=_floats(z["old_log_probs"]),
        reference=_floats(z["ref_log_probs"]) if objective.penalized else None,
        behaviour=None if behaviour is None else _floats(behaviour),
    )
    settings = {name: jnp.float32(value) for name, value in objective.settings().items()}
    entropy = _given(z, "entropy", "a loss with entropy") if objective.entropy else np.zeros_like(z["log_probs"])

    def loss(log_probs: jax.Array) -> Any:
        return objective.loss(log_probs, jnp.asarray(entropy), micro, settings)

    (value, sums), gradient = jax.value_and_grad(loss, has_aux=True)(z["log_probs"])
    return value, gradient, (sums["clipped_low"] + sums["clipped_high"]) / _lengths(z).sum()


def _floats(values: np.ndarray) -> jax.Array:
    return jnp.asarray(values, jnp.float32)


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
