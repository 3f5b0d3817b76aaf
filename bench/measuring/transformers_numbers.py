"""What transformers makes of a model folder: a program for an environment that has it; see
`bench/export_in_transformers.py`.

    python transformers_numbers.py FOLDER TASK OUT

TASK is a JSON file: `conversations`, each a list of messages, and `tokens`, how many are decoded after each prompt. OUT
is an archive of arrays: for the i-th conversation `prompt-i` int64[C], its tokens, up to where the answer begins;
`tokens-i` int64[C + tokens], with the likeliest continuation; `logits-i` float32[C + tokens, V], at each of them. The
folder is opened with what is in it and nothing else, and prompts are not padded. A continuation does not end at an end.
Prints the versions of transformers and PyTorch and the model's class.
"""

import json
import os
import sys

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}

import numpy as np
import torch
import transformers

FOLDER, TASK, OUT = sys.argv[1:]
with open(TASK, encoding="utf-8") as file:
    task = json.load(file)
tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
model = transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
model.generation_config.eos_token_id = None
arrays = {}
for i, messages in enumerate(task["conversations"]):
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        tokens = model.generate(**asked, do_sample=False, max_new_tokens=task["tokens"], pad_token_id=0)
        logits = model(input_ids=tokens).logits
    arrays |= {f"prompt-{i}": asked["input_ids"][0], f"tokens-{i}": tokens[0], f"logits-{i}": logits[0]}
np.savez(OUT, **{name: array.numpy() for name, array in arrays.items()})
print(f"transformers {transformers.__version__}, torch {torch.__version__}, {type(model).__name__}")
