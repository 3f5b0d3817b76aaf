"""The same work through TRL: a program for an environment that has it; see `bench/trl.py`.

    python trl_steps.py MODEL WORK

WORK is a JSON object, see there. Prints one: seconds of each generation and of each step, and those for which threads
ran in a step. Its fastest settings for this work on CPUs: the whole batch at once, no reference model, no gradient
checkpointing, no accumulation, no checkpoints, no log. `dtype: bfloat16` has weights and optimizer in it, too: mixed
precision, which casts every weight again at each use, is slower.
"""

import json
import os
import re
import sys
import tempfile
import time
from itertools import pairwise

os.environ |= {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TRANSFORMERS_VERBOSITY": "error",
}

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

FOLDER, WORK = sys.argv[1], json.loads(sys.argv[2])
NUMBER = re.compile(r"-?[0-9]+")


class Timed(GRPOTrainer):
    """Keeps what each generation took, and how many tokens it made."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.seconds, self.tokens = [], []

    def _generate_single_turn(self, *arguments, **settings):
        began = time.perf_counter()
        found = super()._generate_single_turn(*arguments, **settings)
        self.seconds.append(time.perf_counter() - began)
        self.tokens.append(sum(map(len, found[0])))
        return found


class Moments(TrainerCallback):
    """Keeps when each step ended, and for how long threads had run then."""

    def __init__(self):
        self.at = []

    def _now(self, *_, **__):
        self.at.append((time.perf_counter(), time.process_time()))

    on_train_begin = on_step_end = _now


def last_number(completions, answer, **_):
    """1 for a response whose last number is the answer."""
    found = [NUMBER.findall(completion[0]["content"]) for completion in completions]
    return [float(bool(f) and int(f[-1]) == int(a)) for f, a in zip(found, answer, strict=True)]


def main():
    torch.set_num_threads(WORK["threads"])
    with open(f"{FOLDER}/questions.jsonl") as lines:
        items = [json.loads(line) for line in lines]
    rows = [{"prompt": [{"role": "user", "content": i["question"]}], "answer": i["answer"]} for i in items]
    moments = Moments()
    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=WORK["prompts"] * WORK["samples"],
            num_generations=WORK["samples"],
            max_completion_length=WORK["responseTokens"],
            learning_rate=WORK["learningRate"],
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            loss_type="dr_grpo",
            scale_rewards="none",
            beta=0.0,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            max_steps=WORK["steps"],
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=0,
        )
        model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=getattr(torch, WORK["dtype"]))
        trainer = Timed(
            model=model,
            reward_funcs=last_number,
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(FOLDER),
            callbacks=[moments],
        )
        trainer.train()
    expected = WORK["prompts"] * WORK["samples"] * WORK["responseTokens"]
    if set(trainer.tokens) != {expected}:
        raise RuntimeError(f"not every response is as long as it should be: {trainer.tokens} tokens, not {expected}")
    steps, processor = zip(*((b[0] - a[0], b[1] - a[1]) for a, b in pairwise(moments.at)), strict=True)
    found = {"generate": trainer.seconds, "step": steps, "processor": processor}
    print(json.dumps({name: values[WORK["warmUp"] :] for name, values in found.items()}))


main()
