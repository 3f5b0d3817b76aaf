"""The work of `bench/trl.py`: a real model, SmolLM2-135M-Instruct, and sums to ask it, as a folder.

8 prompts of about 55 tokens a step with 8 responses of exactly 16 tokens each. So that no response ends early, in any
trainer that reads the folder, what ends one is a token that this model never draws; all else is as it was fetched.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ratchet_cluster.build import cache_folder

PROMPTS, SAMPLES, PROMPT_TOKENS, RESPONSE_TOKENS = 8, 8, 64, 16
TOKENS = PROMPTS * SAMPLES * RESPONSE_TOKENS
NEVER = "<issue_start>"
QUESTIONS = 512
LEARNING_RATE = "0.0000001"
"""So small that the policy stays what it was, and the last measured step does what the first one does."""


def write(folder: Path) -> Path:
    """The model, fetched into the user's cache folder if it is not there, and `questions.jsonl` beside its files."""
    from ratchet_trainer.tools.fetch_model import fetch

    model = cache_folder() / "models" / "smollm2"
    fetch("smollm2", model)
    folder.mkdir(parents=True)
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    words = json.loads((model / "tokenizer.json").read_text())["added_tokens"]
    end = next(word["id"] for word in words if word["content"] == NEVER)
    for name, changed in {
        "config.json": {"eos_token_id": end},
        "generation_config.json": {"eos_token_id": end},
        "tokenizer_config.json": {"eos_token": NEVER},
    }.items():
        content = json.loads((model / name).read_text()) | changed
        if "chat_template" in content:  # an answer of the template ends with that token, too; prompts stay as they are
            ending = f"('{NEVER}' if message['role'] == 'assistant' else '<|im_end|>')"
            content["chat_template"] = content["chat_template"].replace("+ '<|im_end|>' +", f"+ {ending} +")
        (folder / name).unlink()
        (folder / name).write_text(json.dumps(content))
    lines = [json.dumps(item) for item in sums()]
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def sums() -> list[dict[str, str]]:
    """Questions and answers of two or three terms of one digit: some responses are right in every step, so that every
    step has something to learn."""
    import reasoning_gym

    config = {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1}
    items = reasoning_gym.create_dataset("chain_sum", size=QUESTIONS, seed=0, **config)
    return [{"question": item["question"], "answer": item["answer"]} for item in items]


def stages(steps: int) -> list[dict[str, Any]]:
    """The stage of a manifest that does so many steps of the work."""
    rl = {
        "dataset": "questions",
        "method": "dr-grpo",
        "promptsPerStep": PROMPTS,
        "groupSize": SAMPLES,
        "maxPromptTokens": PROMPT_TOKENS,
        "maxResponseTokens": RESPONSE_TOKENS,
        "optimizer": {"learningRate": LEARNING_RATE},
    }
    return [{"name": "reason", "rl": rl, "advance": {"steps": steps}}]


def datasets(model: Path) -> list[dict[str, Any]]:
    """The data set of a manifest that the stage asks."""
    path = str(model / "questions.jsonl")
    return [{"name": "questions", "jsonl": {"path": path}, "verifier": "number"}]
