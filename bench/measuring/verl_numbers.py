"""verl's own functions on given inputs. Runs in verl's environment: reads {input: nested lists} as JSON from standard
input, prints {array: nested lists} as the last line of standard output. Names are those of `ratchet objective check`.

Decides what verl is called with. Everything is float64, so that differences are of formulas and not of rounding.
"""

import json
import os
import sys

os.environ["VERL_USE_EXTERNAL_PLUGINS"] = "none"

import numpy as np
import torch
import verl.utils.torch_functional as verl_F
from verl.trainer.ppo import core_algos as verl
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights
from verl.workers.config import ActorConfig

given = {name: torch.tensor(values, dtype=torch.float64) for name, values in json.load(sys.stdin).items()}
mask, index = given["mask"], given["group"].numpy().astype(np.int64)
rewards = torch.zeros_like(mask)
rewards[torch.arange(len(mask)), mask.sum(1).long() - 1] = given["rewards"]
# verl divides this sum by the number of responses since 2026, as TRL does. Ratchet does not, see docs/methods.md.
MORE = {"seq-mean-token-sum-norm": len(mask)}
SURROGATES = "ppo", "gspo", "cispo"
AGGREGATIONS = "token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"
NEVER = 1e6
"""A dual clip that nothing reaches: verl always has one."""
found = {}


def policy(surrogate, aggregation, low, high, dual=NEVER, weights=None, term=""):
    log_probs = given["log_probs"].clone().requires_grad_()
    config = ActorConfig(
        strategy="fsdp",
        ppo_micro_batch_size_per_gpu=1,
        rollout_n=1,
        clip_ratio=low,
        clip_ratio_low=low,
        clip_ratio_high=high,
        clip_ratio_c=dual,
    )
    loss, metrics = verl.get_policy_loss_fn("vanilla" if surrogate == "ppo" else surrogate)(
        old_log_prob=given["old_log_probs"],
        log_prob=log_probs,
        advantages=found["adv_grpo"],
        response_mask=mask,
        loss_agg_mode=aggregation,
        config=config,
        rollout_is_weights=weights,
    )
    loss = loss * MORE.get(aggregation, 1)
    name = f"{surrogate}|{aggregation}|{low}|{high}{term}"
    found[f"loss|{name}"] = loss
    (found[f"grad|{name}"],) = torch.autograd.grad(loss, log_probs)
    found[f"clipfrac|{name}"] = torch.tensor(metrics["actor/pg_clipfrac"])


found["adv_grpo"], _ = verl.compute_grpo_outcome_advantage(rewards, mask, index)
found["adv_grpo_no_std"], _ = verl.compute_grpo_outcome_advantage(rewards, mask, index, norm_adv_by_std_in_grpo=False)
found["adv_rloo"], _ = verl.compute_rloo_outcome_advantage(rewards, mask, index)
found["adv_reinforce_pp_baseline"], _ = verl.compute_reinforce_plus_plus_baseline_outcome_advantage(
    rewards, mask, index
)
found["gae_adv_whitened"], found["gae_returns"] = verl.compute_gae_advantage_return(
    rewards, given["values"], mask, 1.0, 0.95
)
for estimator in ("k1", "k2", "k3"):
    found[f"kl|{estimator}"] = verl.kl_penalty(given["log_probs"], given["ref_log_probs"], estimator)

log_ratio = given["old_log_probs"] - given["sampled_log_probs"]
weights, _ = compute_rollout_correction_weights(log_ratio, mask, "token", 2.0)
found["importance|2"] = weights
for surrogate in SURROGATES:
    low, high = (3e-4, 4e-4) if surrogate == "gspo" else (0.2, 0.28)
    for aggregation in AGGREGATIONS:
        policy(surrogate, aggregation, low, high)
policy("gspo", "seq-mean-token-mean", 0.2, 0.28)
policy("ppo", "token-mean", 0.2, 0.2, dual=1.3, term="|dual=1.3")
policy("ppo", "token-mean", 0.2, 0.28, weights=weights, term="|cap=2")
policy("cispo", "token-mean", 0.2, 0.28, weights=weights, term="|cap=2")

values = given["new_values"].clone().requires_grad_()
loss, _ = verl.compute_value_loss(values, found["gae_returns"], given["values"], mask, 0.2)
found["value_loss|0.2"] = loss
(found["value_grad|0.2"],) = torch.autograd.grad(loss, values)

logits = given["logits"].clone().requires_grad_()
log_prob = verl_F.logprobs_from_logits_naive(logits / 0.7, given["tokens"].long())
entropy = verl_F.entropy_from_logits(logits / 0.7)
found["log_prob|0.7"], found["entropy|0.7"] = log_prob, entropy
both = (given["values"] * log_prob + given["new_values"] * entropy).sum()
(found["logits_grad|0.7"],) = torch.autograd.grad(both, logits)

print(json.dumps({name: value.detach().double().tolist() for name, value in found.items()}))
