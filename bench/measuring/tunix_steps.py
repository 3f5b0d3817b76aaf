"""The same work through Tunix: a program for an environment that has it; see `bench/tunix.py`.

    python tunix_steps.py MODEL WORK

WORK is a JSON object, see there. Prints one: seconds of each generation and of each step, and those for which
threads ran in a step. Its fastest settings for
this work: the whole batch at once, no reference model, no gradient accumulation, a cache no longer than needed, no
metrics, no checkpoints. Its update runs on while the next generation is prepared; so generation is timed by itself,
after the steps.
"""

import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path

os.environ |= {"TQDM_DISABLE": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "JAX_PLATFORMS": "cpu"}

import grain
import jax
import optax
from tokenizers import Tokenizer
from tunix.models.llama3.model import ModelConfig
from tunix.models.llama3.params import create_model_from_safe_tensors
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rl_cluster import ClusterConfig, RLCluster, RLTrainingConfig, Role
from tunix.rl.rollout.base_rollout import RolloutConfig

FOLDER, WORK = Path(sys.argv[1]), json.loads(sys.argv[2])
CONFIG = json.loads((FOLDER / "config.json").read_text())


class Words:
    """The folder's tokenizer, as Tunix wants one. Its end token is never drawn, so it can fill what is short."""

    def __init__(self):
        self._tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))

    def encode(self, text, **_):
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, tokens, **_):
        return self._tokenizer.decode(list(tokens), skip_special_tokens=False)

    def bos_id(self):
        return 0  # none is put before a prompt

    def eos_id(self):
        return CONFIG["eos_token_id"]

    pad_id = eos_id


class Moments:
    """A source that keeps when each batch was asked for, and for how long threads had run then."""

    def __init__(self, batches):
        self.batches, self.at = batches, []

    def __iter__(self):
        for batch in self.batches:
            self.at.append((time.perf_counter(), time.process_time()))
            yield batch


def verified(prompts, completions, answer, **_):
    """1 for a response that is the answer but for white space, as the verifier `exact` judges."""
    return [float(c.strip() == str(a).strip()) for c, a in zip(completions, answer, strict=True)]


def model(mesh):
    config = ModelConfig(
        num_layers=CONFIG["num_hidden_layers"],
        vocab_size=CONFIG["vocab_size"],
        embed_dim=CONFIG["hidden_size"],
        hidden_dim=CONFIG["intermediate_size"],
        num_heads=CONFIG["num_attention_heads"],
        num_kv_heads=CONFIG["num_key_value_heads"],
        head_dim=CONFIG["head_dim"],
        rope_theta=int(CONFIG["rope_theta"]),
        norm_eps=CONFIG["rms_norm_eps"],
        weight_tying=True,
    )
    return create_model_from_safe_tensors(str(FOLDER), config, mesh, jax.numpy.float32)


def cluster(mesh):
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(WORK["learningRate"], weight_decay=0.0))
    rollout = RolloutConfig(
        max_tokens_to_generate=WORK["responseTokens"],
        max_prompt_length=WORK["promptTokens"],
        kv_cache_size=WORK["promptTokens"] + WORK["responseTokens"],
        temperature=1.0,
        top_p=1.0,
        top_k=None,
    )
    return RLCluster(
        actor=model(mesh),
        tokenizer=Words(),
        cluster_config=ClusterConfig(
            role_to_mesh=dict.fromkeys((Role.ACTOR, Role.REFERENCE, Role.ROLLOUT), mesh),
            rollout_engine="vanilla",
            training_config=RLTrainingConfig(
                actor_optimizer=optimizer, eval_every_n_steps=1 << 30, max_steps=WORK["steps"]
            ),
            rollout_config=rollout,
        ),
    )


def main():
    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    lines = [json.loads(line) for line in (FOLDER / "questions.jsonl").read_text().splitlines()]
    rows = [{"prompts": line["question"], "answer": line["answer"]} for line in lines]
    batches = Moments(grain.MapDataset.source(rows).repeat().batch(WORK["prompts"]))
    learned = cluster(mesh)
    learner = GRPOLearner(learned, GRPOConfig(num_generations=WORK["samples"], beta=0.0), verified)
    learner.train(batches)
    steps, processor = zip(*((b[0] - a[0], b[1] - a[1]) for a, b in pairwise(batches.at)), strict=True)
    prompts = [row["prompts"] for row in rows[: WORK["prompts"]] for _ in range(WORK["samples"])]
    seconds = []
    for _ in range(WORK["steps"]):
        began = time.perf_counter()
        found = learned.generate(prompts)
        seconds.append(time.perf_counter() - began)
        if any(len(tokens) != WORK["responseTokens"] for tokens in found.tokens):
            raise RuntimeError("not every response is as long as it should be")
    found = {"generate": seconds, "step": steps, "processor": processor}
    print(json.dumps({name: values[WORK["warmUp"] :] for name, values in found.items()}))


main()
