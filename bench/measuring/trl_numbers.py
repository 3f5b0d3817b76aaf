"""TRL's own functions on given inputs. Runs in TRL's environment: reads {input: nested lists} as JSON from standard
input, prints {array: nested lists} as the last line of standard output. Names are those of `ratchet objective check`.

Decides what TRL is called with. Its loss is a method of its trainer, so it is called on an object that has what the
method looks at: settings, and the given log-probabilities in place of a model's. Everything is float64.
"""

import json
import sys
from collections import defaultdict
from types import SimpleNamespace

import torch
from trl import GRPOTrainer
from trl.rewards import get_soft_overlong_punishment
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

given = {name: torch.tensor(values, dtype=torch.float64) for name, values in json.load(sys.stdin).items()}
mask = given["mask"]
rows, longest = mask.shape
found = {}


class Alone:
    """An accelerator of one process."""

    num_processes, sync_gradients = 1, False
    gather = staticmethod(lambda x: x)
    gather_for_metrics = staticmethod(lambda x: x)
    reduce = staticmethod(lambda x, reduction: x)


def policy(name, loss_type, low, high, *, times=1, level="token", delta=None, kl=0.0, entropy=0.0, cap=None):
    log_probs = given["log_probs"].clone().requires_grad_()
    settings = {
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "importance_sampling_level": level,
        "beta": kl,
        "loss_type": loss_type,
        "epsilon_low": low,
        "epsilon_high": high,
        "use_vllm": cap is not None,
        "vllm_importance_sampling_correction": cap is not None,
        "max_completion_length": longest,
        "current_gradient_accumulation_steps": 1,
        "aux_loss_enabled": False,
        "_entropy_bonus_enabled": entropy != 0.0,
        "use_adaptive_entropy": False,
        "entropy_coef": entropy,
        "accelerator": Alone(),
        "model": SimpleNamespace(training=True),
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "args": SimpleNamespace(delta=delta, use_bias_correction_kl=False, steps_per_generation=1),
        "_get_per_token_logps_and_entropies": lambda *_, **__: (log_probs, given["entropy"], None),
    }
    tokens = torch.zeros_like(mask, dtype=torch.long)
    inputs = {
        "prompt_ids": tokens,
        "prompt_mask": tokens,
        "completion_ids": tokens,
        "completion_mask": mask,
        "advantages": given["adv_grpo"],
        "old_per_token_logps": given["old_log_probs"],
        "ref_per_token_logps": given["ref_log_probs"],
        "num_items_in_batch": mask.sum(),
    }
    if cap is not None:
        ratio = (given["old_log_probs"] - given["sampled_log_probs"]).exp()
        inputs["importance_sampling_ratio"] = ratio.clamp(max=cap)
    loss = times * GRPOTrainer._compute_loss(SimpleNamespace(**settings), None, inputs)
    found[f"loss|{name}"] = loss
    (found[f"grad|{name}"],) = torch.autograd.grad(loss, log_probs)


policy("ppo|seq-mean-token-mean|0.2|0.2", "grpo", 0.2, 0.2)
policy("ppo|token-mean|0.2|0.28", "bnpo", 0.2, 0.28)
policy("ppo|token-mean|0.2|0.2", "dapo", 0.2, 0.2)
# TRL divides by the number of responses, too. Ratchet does not, see docs/methods.md.
policy("ppo|seq-mean-token-sum-norm|0.2|0.2", "dr_grpo", 0.2, 0.2, times=rows)
policy("gspo|seq-mean-token-mean|0.0003|0.0004", "grpo", 3e-4, 4e-4, level="sequence")
# TRL's `epsilon_high` is the bound itself, and there is no lower one.
policy("cispo|token-mean|1.0|0.28", "cispo", 0.0, 1.28)
# TRL's `delta` bounds the ratio where the advantage is negative, which bounds the gain by delta A.
policy("ppo|token-mean|0.2|0.2|dual=1.3", "dapo", 0.2, 0.2, delta=1.3)
policy("ppo|seq-mean-token-mean|0.2|0.2|k3=0.04", "grpo", 0.2, 0.2, kl=0.04)
policy("ppo|token-mean|0.2|0.2|entropy=0.01", "dapo", 0.2, 0.2, entropy=0.01)
policy("ppo|token-mean|0.2|0.2|cap=2", "dapo", 0.2, 0.2, cap=2.0)

# TRL's trainers leave the optimizer to torch, and so does verl.
for rate, decay, clip in (("0.01", "0.1", "1"), ("0.01", "0", "100")):
    weights = given["values"].clone().requires_grad_()
    adamw = torch.optim.AdamW([weights], lr=float(rate), betas=(0.9, 0.999), eps=1e-8, weight_decay=float(decay))
    for name in ("log_probs", "old_log_probs", "ref_log_probs"):
        weights.grad = given[name].clone()
        torch.nn.utils.clip_grad_norm_([weights], float(clip))
        adamw.step()
    found[f"adamw|{rate}|{decay}|{clip}"] = weights

tokens = [[0] * int(length) for length in mask.sum(1)]
for buffer in (5, longest):
    punished = get_soft_overlong_punishment(longest, buffer)(completion_ids=tokens)
    found[f"overlong|{longest}|{buffer}"] = torch.tensor(punished)
found[f"overlong|{longest - 2}|4"] = torch.tensor(get_soft_overlong_punishment(longest - 2, 4)(completion_ids=tokens))

logits = given["logits"].clone().requires_grad_()
log_prob = selective_log_softmax(logits / 0.7, given["tokens"].long())
entropy = entropy_from_logits(logits / 0.7)
found["log_prob|0.7"], found["entropy|0.7"] = log_prob, entropy
both = (given["values"] * log_prob + given["new_values"] * entropy).sum()
(found["logits_grad|0.7"],) = torch.autograd.grad(both, logits)

print(json.dumps({name: value.detach().double().tolist() for name, value in found.items()}))
