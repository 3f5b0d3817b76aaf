"""Chat templates of others: what they may use, which of a folder's counts, and how they fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ratchet_trainer.data.chat_template import ChatTemplate, of_folder
from ratchet_trainer.errors import ConfigurationInvalid

USER = [{"role": "user", "content": "1+1"}]


def rendered(text: str, messages: list = USER, ask: bool = True, **special: str) -> str:
    return ChatTemplate(text, "it", special).render(messages, ask)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{% for m in messages %}{{ m.role }}{% if true %}{% break %}{% endif %}{% endfor %}", "user"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "1+1!"),
        ("{{ messages[0] | tojson(sort_keys=true, separators=(',', ':')) }}", '{"content":"1+1","role":"user"}'),
        ("{{ messages | tojson(indent=1, ensure_ascii=false) }}", json.dumps(USER, indent=1)),
        ("{% if tools is not none %}tools{% endif %}{% if documents %}documents{% endif %}-", "-"),
        ("{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}26 Jul 2024{% endif %}", "26 Jul 2024"),
        ("{%- set ns = namespace(n=0) %}{%- set ns.n = ns.n + 1 %}{{ ns.n }}", "1"),
        ("  {% if add_generation_prompt %}\n<ask>\n  {% endif %}\n", "<ask>\n"),
        ("{{ bos_token }}{{ mask_token }}", "<s>"),
    ],
)
def test_a_template_has_what_others_give_it(text: str, said: str) -> None:
    assert rendered(text, bos_token="<s>") == said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ raise_exception('System role not supported') }}", "it fails for messages of user: System role not supp"),
        ("{{ strftime_now('%Y') }}", "'strftime_now' is undefined; there is no clock here"),
        ("{{ messages.append(1) }}", "fails"),
        ("{{ ''.__class__.__mro__ }}{{ messages[9].content.x }}", "fails"),
        ("{% for i in range(999999999) %}{% endfor %}", "fails"),
    ],
)
def test_a_template_that_fails_or_reaches_out_is_named(text: str, words: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=words):
        rendered(text)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"chat_template.jinja": "a", "tokenizer_config.json": {"chat_template": "b"}}, "a"),
        ({"tokenizer_config.json": {"chat_template": "b"}, "chat_template.json": {"chat_template": "c"}}, "b"),
        ({"chat_template.json": {"chat_template": "c"}}, "c"),
        ({"tokenizer_config.json": {"chat_template": [{"name": "tool_use", "template": "d"}]}}, "d"),
        (
            {"tokenizer_config.json": {"chat_template": [{"name": n, "template": n} for n in ("rag", "default")]}},
            "default",
        ),
        ({"tokenizer_config.json": {"chat_template": {"default": "e", "rag": "f"}}}, "e"),
    ],
)
def test_which_of_a_folder_s_templates_counts(tmp_path: Path, files: dict[str, Any], found: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    assert of_folder(tmp_path, files.get("tokenizer_config.json", {})) == found


def test_without_a_template_the_way_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match=r"no chat template.*set spec.model.chatTemplate.*bos_token"):
        of_folder(tmp_path, {})
    several = {"chat_template": [{"name": "rag", "template": "x"}, {"name": "tool_use", "template": "y"}]}
    with pytest.raises(ConfigurationInvalid, match="none of the chat templates rag, tool_use is called default"):
        of_folder(tmp_path, several)
    (tmp_path / "chat_template.json").write_text("{")
    with pytest.raises(ConfigurationInvalid, match=r"chat_template.json: not JSON"):
        of_folder(tmp_path, {})
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ConfigurationInvalid, match=r"chat_template.jinja: .*decode"):
        of_folder(tmp_path, {})
    with pytest.raises(ConfigurationInvalid, match="it is no template"):
        rendered("{% for %}")
