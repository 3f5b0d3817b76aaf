"""Tokenizers and chat templates of models of others, and a whole run with one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ratchet_trainer.data.huggingface_tokenizer import HuggingFaceTokenizer
from ratchet_trainer.data.items import Item, prompt_of
from ratchet_trainer.errors import ConfigurationInvalid, Drain
from ratchet_trainer.run import run

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen3"
PLAIN = "{{ messages[-1]['content'] }}"
CHAT = """{%- for message in messages %}
<|{{ message.role }}|>{{ message.content }}{{ eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}<think>{% endif %}"""


def folder(tmp_path: Path, **files: Any) -> Path:
    """The golden folder with some files replaced (`__` stands for the dot); None removes one."""
    copy = tmp_path / "model"
    shutil.copytree(GOLDEN, copy)
    for name, content in files.items():
        path = copy / name.replace("__", ".")
        if content is None:
            path.unlink()
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    return copy


def test_text_becomes_tokens_and_text_again() -> None:
    tokenizer = HuggingFaceTokenizer(GOLDEN, 320, PLAIN)
    for text in ("12 + 7 =", "Grüße, 世界\n", "<answer> 3 </answer>", ""):
        assert tokenizer.decode(tokenizer.encode_prompt(text)) == text
        answer = tokenizer.encode_answer(text)
        assert answer[-1] == 2
        assert tokenizer.decode([*answer, 100, 101]) == text, "what comes after the end is no part of it"
    assert tokenizer.encode_prompt("<answer>")[0] == 5, "tags are tokens of their own"


def test_prompts_are_what_the_chat_template_makes(tmp_path: Path) -> None:
    path = folder(tmp_path, chat_template__jinja=CHAT)
    tokenizer = HuggingFaceTokenizer(path, 320, system="Add.")
    said = tokenizer.decode([0 if token == 2 else token for token in tokenizer.encode_prompt("1+1")])
    assert said == "<|system|>Add.<pad><|user|>1+1<pad><think>"
    config = json.loads((GOLDEN / "tokenizer_config.json").read_text())
    for template in (CHAT, [{"name": "tool", "template": "x"}, {"name": "default", "template": CHAT}]):
        (path / "chat_template.jinja").unlink(missing_ok=True)
        (path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
        other = HuggingFaceTokenizer(path, 320, system="Add.")
        assert other.encode_prompt("1+1") == tokenizer.encode_prompt("1+1")
        assert other.digest == tokenizer.digest
    assert HuggingFaceTokenizer(path, 320).digest != tokenizer.digest, "the system prompt counts"


@pytest.mark.parametrize(
    ("files", "ends"),
    [
        ({}, (2,)),
        ({"generation_config__json": {"eos_token_id": [2, 7]}}, (2, 7)),
        ({"generation_config__json": None}, (2,)),
        ({"generation_config__json": None, "config__json": {}}, (2,)),
        ({"generation_config__json": {}, "config__json": {"eos_token_id": [7, 2]}}, (7, 2)),
        ({"generation_config__json": None, "config__json": {"text_config": {"eos_token_id": 7}}}, (7,)),
    ],
)
def test_what_ends_a_response(tmp_path: Path, files: dict, ends: tuple[int, ...]) -> None:
    assert HuggingFaceTokenizer(folder(tmp_path, **files), 320, PLAIN).ends == ends


@pytest.mark.parametrize(
    ("files", "template", "words"),
    [
        ({}, None, "no chat template.*set spec.model.chatTemplate"),
        ({"tokenizer__json": None}, PLAIN, "tokenizer.json: No such file.*save_pretrained"),
        ({"tokenizer__json": "{}"}, PLAIN, "tokenizer.json: no tokenizer can be made of it"),
        ({"tokenizer_config__json": "{"}, PLAIN, "tokenizer_config.json"),
        ({}, "{% for %}", "spec.model.chatTemplate is no template"),
        ({"generation_config__json": {"eos_token_id": ["</s>"]}}, PLAIN, "eos_token_id '</s>' is no token"),
        ({"generation_config__json": None, "config__json": {}, "tokenizer_config__json": {}}, PLAIN, "no eos_token_id"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, files: dict, template: str | None, words: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=words):
        HuggingFaceTokenizer(folder(tmp_path, **files), 320, template)


def test_a_tokenizer_of_another_model_is_refused() -> None:
    with pytest.raises(ConfigurationInvalid, match="vocabulary ends at 99"):
        HuggingFaceTokenizer(GOLDEN, 100, PLAIN)


def with_added(tmp_path: Path, **tokens: int) -> Path:
    """The golden folder whose tokenizer has more tokens; a number beyond the model's vocabulary included."""
    content = json.loads((GOLDEN / "tokenizer.json").read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    content["added_tokens"] += [{"id": number, "content": f"<{name}>"} | flags for name, number in tokens.items()]
    return folder(tmp_path, tokenizer__json=content)


def test_an_added_token_that_the_model_lacks_is_refused_where_it_is_used(tmp_path: Path) -> None:
    """Gemma 3 1B has one for images, which texts do not use."""
    size = len(json.loads((GOLDEN / "tokenizer.json").read_text())["model"]["vocab"])
    path = with_added(tmp_path, image=size)
    tokenizer = HuggingFaceTokenizer(path, size, PLAIN)
    assert tokenizer.encode_prompt("1+1")
    with pytest.raises(ConfigurationInvalid, match=rf"'<image>' is token {size}, the model's vocabulary ends at"):
        tokenizer.encode_prompt("<image>")
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, size]}))
    assert HuggingFaceTokenizer(path, size, PLAIN).ends == (2,)
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [size]}))
    with pytest.raises(ConfigurationInvalid, match=rf"generation_config.json: eos_token_id {size} is no token"):
        HuggingFaceTokenizer(path, size, PLAIN)


def test_nothing_is_put_before_what_the_template_says(tmp_path: Path) -> None:
    """Many tokenizers begin every text with a token that templates also write: it must not be there twice."""
    content = json.loads((GOLDEN / "tokenizer.json").read_text())
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [1], "tokens": ["<bos>"]}},
    }
    path = folder(tmp_path, tokenizer__json=content, special_tokens_map__json={"bos_token": {"content": "<bos>"}})
    config = json.loads((path / "tokenizer_config.json").read_text())
    config.pop("bos_token", None)
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    said = HuggingFaceTokenizer(path, 320, "{{ bos_token }}{{ messages[-1]['content'] }}").encode_prompt("1+1")
    assert said.count(1) == 1
    assert said[0] == 1
    assert 1 not in HuggingFaceTokenizer(path, 320, PLAIN).encode_answer("1+1")


def test_lengths_that_somebody_once_encoded_with_are_not_ours(tmp_path: Path) -> None:
    content = json.loads((GOLDEN / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 64}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<pad>",
    }  # fmt: skip
    tokenizer = HuggingFaceTokenizer(folder(tmp_path, tokenizer__json=content), 320, PLAIN)
    text = "12 + 7 = ?"
    assert tokenizer.encode_prompt(text) == HuggingFaceTokenizer(GOLDEN, 320, PLAIN).encode_prompt(text)


def test_a_prompt_of_nothing_is_refused_with_its_item() -> None:
    source = SimpleNamespace(name="d", item=lambda index: Item("", "2"))
    for template in (PLAIN, "{{ '' }}"):
        with pytest.raises(ConfigurationInvalid, match="data set d, item 3: the prompt has no tokens"):
            prompt_of(source, HuggingFaceTokenizer(GOLDEN, 320, template), 3, 8)
    begun = HuggingFaceTokenizer(GOLDEN, 320, "{{ bos_token }}" + PLAIN)
    assert prompt_of(source, begun, 3, 8).tokens == (1,)
    with pytest.raises(ConfigurationInvalid, match="the prompt has 1 tokens, maxPromptTokens is 0"):
        prompt_of(source, begun, 3, 0)


TURNS = """{% for m in messages -%}
<{{ m.role }}>{{ m.content }}{{ '<turn>' if m.role == 'assistant' else '<pad>' }}
{%- endfor %}"""


@pytest.mark.parametrize(
    ("ends", "template", "last"),
    [
        ([2, 320], TURNS, 320),  # as Gemma and Llama 3 have it: the turn's end is not the first
        ([320, 2], PLAIN, 2),  # no end in the template: the tokenizer's own
        ([320], PLAIN, 320),
        ([2, 320], TURNS.replace("{% for", "{{ raise_exception('no') if messages | length > 1 }}{% for"), 2),
    ],
)
def test_a_learned_answer_ends_as_the_template_ends_it(tmp_path: Path, ends: list, template: str, last: int) -> None:
    path = with_added(tmp_path, turn=320)
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    tokenizer = HuggingFaceTokenizer(path, 321, template)
    answer = tokenizer.encode_answer("2")
    assert answer[-1] == last
    assert tokenizer.decode(answer) == "2"


def test_a_token_that_only_the_model_has_never_makes_a_right_answer() -> None:
    tokenizer = HuggingFaceTokenizer(GOLDEN, 400, PLAIN)
    assert tokenizer.decode([399, *tokenizer.encode_answer("12")]) == "\N{REPLACEMENT CHARACTER}12"


def test_a_model_of_others_trains_and_goes_on_after_a_kill(tmp_path: Path, memory_runtime: Any) -> None:
    data = tmp_path / "sums.jsonl"
    data.write_text("".join(json.dumps({"question": f"{a}+1=", "answer": str(a + 1)}) + "\n" for a in range(8)))
    lengths = {"maxPromptTokens": 16, "maxResponseTokens": 5}
    rl = {"dataset": "sums", "promptsPerStep": 2, "groupSize": 3, **lengths}
    spec = {
        "model": {"path": str(GOLDEN), "chatTemplate": PLAIN},
        "datasets": [{"name": "sums", "jsonl": {"path": str(data)}}],
        "stages": [
            {"name": "a", "sft": {"dataset": "sums", "batchSize": 4, **lengths}, "advance": {"steps": 2}},
            {"name": "b", "rl": rl, "advance": {"steps": 2}},
        ],
        "checkpoint": {"directory": "/checkpoints/x"},
        "placements": [{"name": "cpu", "cpu": {"hosts": 1}}],
    }
    straight = memory_runtime(spec)
    run(straight)
    step, arrays, control, *_ = straight.commits[-1]
    assert step == 4
    first = memory_runtime(spec, drain_at=5)
    with pytest.raises(Drain):
        run(first)
    second = memory_runtime(spec, commits=first.commits)
    run(second)
    _, again, found, *_ = second.commits[-1]
    assert found == control
    for path, leaf in arrays.items():
        np.testing.assert_array_equal(again[path], leaf, err_msg=path)
    # Under its feet the folder is another, or prompts are.
    other = folder(tmp_path, config__json=json.loads((GOLDEN / "config.json").read_text()) | {"rms_norm_eps": 1e-5})
    for model, words in (
        ({"path": str(other), "chatTemplate": PLAIN}, "the model's folder of stage b changed since step 2"),
        ({"path": str(GOLDEN), "chatTemplate": PLAIN + "!"}, "the tokenizer of stage b changed since step 2"),
    ):
        with pytest.raises(ConfigurationInvalid, match=words):
            run(memory_runtime(spec | {"model": model}, commits=first.commits[:]))
