"""Models of others: their numbers come out, their folders are read in every form, and what does not fit is named."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.model.architecture import Architecture, Layer, Rope, RopeScaling
from ratchet_trainer.model.check import check, greedy, logits_of
from ratchet_trainer.model.export import COPIED, export
from ratchet_trainer.model.families import architecture
from ratchet_trainer.model.huggingface import Folder, nested
from ratchet_trainer.model.policy import Policy
from ratchet_trainer.model.tensor_names import parameters
from ratchet_trainer.step.state import flat_paths

GOLDEN = Path(__file__).parents[1] / "golden"
FAMILIES = ("qwen2-tied", "qwen3", "llama3-rope-scaled", "gemma3-text")
OTHERS = ("gemma2", "qwen2-window-yarn", "llama-biased")
"""Made as the former, by transformers 5.24: soft caps, windows of some layers, YaRN, biases, one head of keys."""
UNUSUAL = ("gemma3-multimodal", "llama-old-fields")
"""Likewise: bfloat16 in several files beside an encoder of images; float16, older fields, a copy of a tied head."""


def everywhere(path: str, shape: tuple[int, ...]) -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.devices()[0])


def copy(tmp_path: Path, family: str, **changes) -> Path:
    """A golden folder whose config is changed; None removes a field."""
    folder = tmp_path / family
    shutil.copytree(GOLDEN / family, folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


def same(one: Path, other: Path) -> None:
    """Both folders give the same parameters and the same architecture."""
    a, b = Folder(one), Folder(other)
    assert a.architecture == b.architecture
    left, right = a.load(everywhere), b.load(everywhere)
    assert left.keys() == right.keys()
    for path in left:
        np.testing.assert_array_equal(left[path], right[path], err_msg=path)


@pytest.mark.parametrize("family", FAMILIES + OTHERS + UNUSUAL)
def test_another_implementation_s_numbers_come_out(family):
    found = check(GOLDEN / family)
    assert found.keys() == {"logits", "left_padded_logits", "greedy_ids"}
    assert found["logits"] < 3e-5
    assert found["left_padded_logits"] < 3e-5
    assert found["greedy_ids"] == 0.0


OLD_FIELDS = {
    "qwen2-tied": {"rope_parameters": None, "rope_theta": 1000000.0},
    "qwen3": {"rope_parameters": None, "rope_theta": 1000000.0, "layer_types": None},
    "llama3-rope-scaled": {
        "rope_parameters": None,
        "rope_theta": 500000.0,
        "head_dim": None,
        "rope_scaling": {
            "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 64,
            "type": "llama3",
        },
    },
    "gemma3-text": {"rope_parameters": None, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_older_configs_mean_the_same(tmp_path, family):
    same(GOLDEN / family, copy(tmp_path, family, **OLD_FIELDS[family]))


def test_layers_of_gemma_3_follow_from_the_pattern_of_older_configs():
    config = json.loads((GOLDEN / "gemma3-text/config.json").read_text())
    config |= {"layer_types": None, "_sliding_window_pattern": None, "sliding_window_pattern": 3}
    windows = [layer.window for layer in architecture(config).layers]
    assert windows == [8, 8, None]
    del config["sliding_window_pattern"]
    assert [layer.window for layer in architecture(config | {"num_hidden_layers": 7}).layers] == [8] * 5 + [None, 8]


def test_sliding_windows_of_qwen_begin_where_the_config_says():
    config = json.loads((GOLDEN / "qwen2-tied/config.json").read_text()) | {"layer_types": None}
    config |= {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}
    assert [layer.window for layer in architecture(config).layers] == [None, 16, 16]


def test_what_a_multimodal_config_leaves_out_is_as_its_class_has_it():
    """As the published Gemma 3 4B says it."""
    said = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
    said |= {"model_type": "gemma3_text", "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}
    found = architecture({"model_type": "gemma3", "text_config": said})
    assert (found.vocabulary, found.heads, found.kv_heads, found.head_width) == (262_208, 8, 4, 256)
    assert (found.query_scale, found.tied, found.logit_cap) == (1 / 16, True, None)
    assert [layer.window for layer in found.layers].count(None) == 5


def test_yarn_grows_cosine_and_sine_as_the_config_says():
    config = json.loads((GOLDEN / "qwen2-window-yarn/config.json").read_text())
    attention = lambda **said: architecture(config | {"rope_scaling": said}).layers[0].rope.attention  # noqa: E731
    assert attention() == pytest.approx(0.1 * np.log(4) + 1)
    assert attention(attention_factor=1.25) == 1.25
    assert attention(mscale=1.0, mscale_all_dim=1.0) == 1.0


def test_scaling_of_a_multimodal_gemma_is_of_its_global_layers_only():
    inner = json.loads((GOLDEN / "gemma3-text/config.json").read_text())
    inner |= OLD_FIELDS["gemma3-text"] | {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}}
    found = architecture({"model_type": "gemma3", "text_config": inner})
    assert found.layers[0].rope == Rope(10_000.0)
    assert found.layers[2].rope == Rope(1_000_000.0, RopeScaling("linear", 8.0))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba' is not known; known are gemma2"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_act": "relu"}, "activation 'relu'"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}, "rope type 'dynamic'"),
        ({"num_key_value_heads": 3}, "4 heads cannot share 3"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 entries for 3 layers"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config: only plain weights"),
        ({"head_dim": 15}, "a head width of 15 is odd"),
        ({"vocab_size": "320"}, "vocab_size is '320', not a whole number above 0"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused_with_its_field(tmp_path, changes, words):
    with pytest.raises(ConfigurationInvalid, match=words):
        Folder(copy(tmp_path, "qwen3", **changes))


def test_every_tensor_that_does_not_fit_is_named(tmp_path):
    folder = copy(tmp_path, "qwen3")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"], tensors["model.layers.1.mlp.up_proj.weight"]
    tensors["model.layers.0.self_attn.q_proj.bias"] = np.zeros(96, np.float32)
    tensors["model.layers.2.mlp.down_proj.weight"] = np.zeros((64, 8), np.float32)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ConfigurationInvalid) as error:
        Folder(folder).load(everywhere)
    assert "missing: model.layers.1.mlp.up_proj.weight, model.norm.weight" in str(error.value)
    assert "left over: model.layers.0.self_attn.q_proj.bias" in str(error.value)
    assert "model.layers.2.mlp.down_proj.weight is F32 [64, 8], not [64, 160]" in str(error.value)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "neither model.safetensors nor"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"torn"), "model.safetensors: "),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: not JSON"),
        (lambda folder: (folder / "config.json").unlink(), "config.json: No such file"),
        (
            lambda folder: (
                (folder / "model.safetensors")
                .rename(folder / "model.safetensors.index.json")
                .write_text('{"weight_map": {"a": "b.safetensors"}}')
            ),
            "names files that are not there: b.safetensors",
        ),
    ],
)
def test_a_folder_that_cannot_be_read_is_named(tmp_path, spoil, words):
    folder = copy(tmp_path, "qwen3")
    spoil(folder)
    with pytest.raises(ConfigurationInvalid, match=words):
        Folder(folder).load(everywhere)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": ["qwen3"]}, r"model_type \['qwen3'\] is not known"),
        ({"vocab_size": None}, "vocab_size is None, not a whole number"),
        ({"vocab_size": True}, "vocab_size is True, not a whole number"),
        ({"hidden_size": "64"}, "hidden_size is '64', not a whole number"),
        ({"hidden_size": 10**30}, "hidden_size is 1000000000000000000000000000000, more than 2147483647"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers is 1000000000000, more than 10000"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small', not a number above 0"),
        ({"rms_norm_eps": math.nan}, "rms_norm_eps is nan, not a number above 0"),
        ({"rope_theta": [1]}, r"rope_theta is \[1\], not a number above 0"),
        ({"rope_scaling": "x" * 50}, r"rope_scaling is 'x{36}\.\.\., not an object"),
        ({"rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": [3]}}, "config.json: "),
        ({"rope_scaling": {"rope_type": "linear", "factor": "x"}}, "could not convert string to float: 'x'"),
        ({"sliding_window": "wide"}, "sliding_window is 'wide', not a whole number"),
        ({"layer_types": 5}, "config.json: "),
        ({"hidden_act": ["silu"]}, "config.json: "),
    ],
)
def test_a_value_that_nothing_can_be_computed_with_is_named(changes, words):
    config = json.loads((GOLDEN / "qwen3/config.json").read_text()) | changes
    with pytest.raises(ConfigurationInvalid, match=words) as error:
        architecture(config)
    assert "\n" not in str(error.value)


def test_several_files_are_one_model(tmp_path):
    folder = copy(tmp_path, "qwen3")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {name: f"model-{i % 2 + 1:05}-of-00002.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(names.values()):
        save_file({n: t for n, t in tensors.items() if names[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    same(GOLDEN / "qwen3", folder)


@pytest.mark.parametrize("other", [False, True])
def test_a_head_that_a_config_denies(tmp_path, other):
    """A copy of the embedding is passed over; another head is one, as in transformers 5."""
    folder = copy(tmp_path, "qwen2-tied")
    tensors = load_file(folder / "model.safetensors")
    head = tensors["model.embed_tokens.weight"].copy()
    head[-1, -1] += other
    save_file(tensors | {"lm_head.weight": head}, folder / "model.safetensors")
    if not other:
        same(GOLDEN / "qwen2-tied", folder)
        return
    found = Folder(folder)
    assert not found.architecture.tied
    np.testing.assert_array_equal(found.load(everywhere)["head"], head.T)


def test_tensors_of_a_model_without_its_head_are_found(tmp_path):
    folder = copy(tmp_path, "qwen2-tied")
    tensors = load_file(folder / "model.safetensors")
    save_file({name.removeprefix("model."): t for name, t in tensors.items()}, folder / "model.safetensors")
    same(GOLDEN / "qwen2-tied", folder)


BOTH = {"rope_parameters": {"full_attention": {}, "sliding_attention": {}}}


@pytest.mark.parametrize(
    ("said", "far", "near"),
    [
        ({}, Rope(1e6), Rope(1e4)),
        ({"rope_theta": 3e5, "rope_local_base_freq": 2e4}, Rope(3e5), Rope(2e4)),
        (BOTH | {"rope_theta": 3e5, "rope_local_base_freq": 2e4}, Rope(3e5), Rope(2e4)),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 5e5}, "sliding_attention": {"rope_theta": 3e4}}},
            Rope(5e5),
            Rope(3e4),
        ),
        (
            BOTH | {"rope_scaling": {"type": "linear", "factor": 8}},
            Rope(1e6, RopeScaling("linear", 8.0)),
            Rope(1e4),
        ),
    ],
)  # fmt: skip
def test_positions_of_gemma_3_in_old_and_new_fields(said, far, near):
    """As transformers 5.24 reads them."""
    config = json.loads((GOLDEN / "gemma3-text/config.json").read_text()) | {"rope_parameters": None} | said
    found = architecture(config).layers
    assert {layer.rope for layer in found if layer.window is None} == {far}
    assert {layer.rope for layer in found if layer.window is not None} == {near}


def test_yarn_without_a_factor_grows_to_the_longest_length():
    config = json.loads((GOLDEN / "qwen2-window-yarn/config.json").read_text())
    said = {"rope_type": "yarn", "original_max_position_embeddings": 16}
    found = architecture(config | {"rope_parameters": said, "max_position_embeddings": 128}).layers[0].rope.scaling
    assert found.factor == 8.0


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_the_text_half_of_a_multimodal_model_is_found(tmp_path, prefix):
    folder = copy(tmp_path, "gemma3-text")
    tensors = load_file(folder / "model.safetensors")
    renamed = {prefix + name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(renamed | {"vision_tower.patch.weight": np.zeros((2, 2), np.float32)}, folder / "model.safetensors")
    inner = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": inner}))
    same(GOLDEN / "gemma3-text", folder)


@pytest.mark.parametrize("family", FAMILIES + OTHERS)
def test_what_is_exported_is_what_was_read(tmp_path, family):
    read = {path: np.asarray(leaf) for path, leaf in Folder(GOLDEN / family).load(everywhere).items()}
    export(GOLDEN / family, tmp_path / "out", read)
    before, after = load_file(GOLDEN / family / "model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        if (GOLDEN / family / name).exists():
            of = json.loads if name == "config.json" else str
            assert of((tmp_path / "out" / name).read_text()) == of((GOLDEN / family / name).read_text())
    modes = {file.stat().st_mode for file in (tmp_path / "out").iterdir() if file.name not in COPIED}
    assert len(modes) == 1, "whoever may read the config may read the weights"
    with pytest.raises(FileExistsError, match="out exists"):
        export(GOLDEN / family, tmp_path / "out", read)


@pytest.mark.parametrize("family", UNUSUAL)
def test_what_is_unusual_is_exported_too(tmp_path, family):
    read = {path: np.asarray(leaf) for path, leaf in Folder(GOLDEN / family).load(everywhere).items()}
    export(GOLDEN / family, tmp_path / "out", read)
    same(GOLDEN / family, tmp_path / "out")
    before, after = Folder(GOLDEN / family), Folder(tmp_path / "out")
    assert set(before.rest()) - set(after.rest()) <= {"lm_head.weight"}
    assert {after.dtype(name) for name in after.files} == {before.dtype(name) for name in before.files}


def test_any_part_of_a_parameter_is_read_by_itself():
    """As the devices of a mesh ask for them; parts may end inside one of the tensors that lie side by side."""
    folder = Folder(GOLDEN / "qwen2-tied")
    for path, parameter in parameters(folder.architecture).items():
        whole = folder.read(parameter)
        rows, *others = (size // 4 for size in whole.shape)
        for i in range(4):
            for part in [(slice(i * rows, (i + 1) * rows), *(slice(None) for _ in others))] + [
                (slice(None), slice(i * width, (i + 1) * width)) for width in others
            ]:
                np.testing.assert_array_equal(folder.read(parameter, part), whole[part], err_msg=path)


def test_the_other_half_of_a_multimodal_model_is_exported_as_it_was(tmp_path):
    folder = copy(tmp_path, "gemma3-text")
    tensors = {
        f"language_{name}".replace("language_model.", "language_model.model."): t
        for name, t in load_file(folder / "model.safetensors").items()
    } | {"vision_tower.patch.weight": np.arange(4, dtype=np.float16)}
    save_file(tensors, folder / "model.safetensors")
    inner = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": inner}))
    read = {path: np.asarray(leaf) + 1 for path, leaf in Folder(folder).load(everywhere).items()}
    export(folder, tmp_path / "out", read)
    after = load_file(tmp_path / "out/model.safetensors")
    assert after.keys() == tensors.keys()
    np.testing.assert_array_equal(after["vision_tower.patch.weight"], tensors["vision_tower.patch.weight"])
    same_name = "language_model.model.norm.weight"
    np.testing.assert_array_equal(after[same_name], tensors[same_name] + 1)


def test_large_models_are_exported_in_several_files(tmp_path):
    read = {path: np.asarray(leaf) for path, leaf in Folder(GOLDEN / "qwen3").load(everywhere).items()}
    export(GOLDEN / "qwen3", tmp_path / "out", read, "bfloat16", file_bytes=100_000)
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 3
    rounded = {path: np.asarray(leaf) for path, leaf in Folder(tmp_path / "out").load(everywhere).items()}
    for path in read:
        np.testing.assert_allclose(rounded[path], read[path], rtol=2**-8, atol=1e-6, err_msg=path)
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"
    export(tmp_path / "out", tmp_path / "again", rounded)
    assert Folder(tmp_path / "again").dtype("model.norm.weight") == "BF16", "each tensor stays what it was"
    same(tmp_path / "out", tmp_path / "again")


def test_the_digest_of_a_folder_changes_with_its_weights_shape_and_config(tmp_path):
    folder = copy(tmp_path, "qwen3")
    assert Folder(folder).digest != Folder(GOLDEN / "qwen3").digest, "config.json was written anew"
    before = Folder(folder).digest
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", metadata={"made": "again"})
    assert Folder(folder).digest != before


def test_parameters_and_the_decoder_agree_on_every_path():
    """Every choice of the architecture at once."""
    a = Architecture(
        vocabulary=32, width=16, heads=4, kv_heads=2, head_width=6, hidden=24, layers=(Layer(),) * 2, tied=False,
        attention_bias=(True, True), mlp_bias=True, head_norms=True, post_norms=True,
    )  # fmt: skip
    wanted = {path: leaf.shape for path, leaf in flat_paths(Policy(a).abstract).items()}
    assert {path: p.shape for path, p in parameters(a).items()} == wanted


GEMMA2 = {
    "model_type": "gemma2", "vocab_size": 48, "hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "intermediate_size": 40, "num_hidden_layers": 3, "sliding_window": 5, "query_pre_attn_scalar": 12,
    "attn_logit_softcapping": 2.0, "final_logit_softcapping": 1.5, "hidden_activation": "gelu_pytorch_tanh",
}  # fmt: skip


def test_gemma_2_is_what_its_formulas_say():
    """Against float64 loops over heads: soft caps, window, offset norms on both sides, grouped heads, decoding."""
    a = architecture(GEMMA2)
    policy = Policy(a)
    draw = np.random.default_rng(0)
    flat = {path: draw.normal(size=leaf.shape) * 0.4 for path, leaf in flat_paths(policy.abstract).items()}
    params = nested({path: np.float32(leaf) for path, leaf in flat.items()})
    ids = draw.integers(0, 48, (2, 17))
    expected = np.stack([gemma2_logits(flat, row) for row in ids])
    np.testing.assert_allclose(logits_of(policy, params, ids), expected, atol=2e-5)
    prompt = tuple(ids[0, :9].tolist())
    tokens = list(prompt)
    for _ in range(12):
        tokens.append(int(gemma2_logits(flat, np.array(tokens))[-1].argmax()))
    assert greedy(policy, params, [prompt], 12)[0].tolist() == tokens[9:]


def gemma2_logits(w, ids):
    norm = lambda x, scale: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * (1 + scale)  # noqa: E731
    gelu = lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))  # noqa: E731
    x = w["embedding"][ids] * np.sqrt(24)
    places = np.arange(len(ids))
    for i in range(3):
        b = {path.removeprefix(f"blocks/{i}/"): leaf for path, leaf in w.items() if path.startswith(f"blocks/{i}/")}
        mixed = norm(x, b["attention_norm/scale"]) @ b["attention/input"]
        query, key, value = np.split(mixed, [32, 48], -1)
        heads = []
        for head in range(4):
            q, k, v = (
                part[:, at * 8 : at * 8 + 8] for part, at in ((query, head), (key, head // 2), (value, head // 2))
            )
            turned = []
            for part in (q, k):
                angle = places[:, None] * 10000.0 ** (-np.arange(4) / 4)
                one, two = part[:, :4], part[:, 4:]
                turned.append(
                    np.concatenate(
                        [one * np.cos(angle) - two * np.sin(angle), two * np.cos(angle) + one * np.sin(angle)], -1
                    )
                )
            scores = 2.0 * np.tanh(turned[0] @ turned[1].T * 12**-0.5 / 2.0)
            apart = places[:, None] - places
            seen = (apart >= 0) & ((apart < 5) if i % 2 == 0 else True)
            weights = np.where(seen, np.exp(scores), 0.0)
            heads.append(weights / weights.sum(-1, keepdims=True) @ v)
        x = x + norm(np.concatenate(heads, -1) @ b["attention/output"], b["attention_post_norm/scale"])
        gate, up = np.split(norm(x, b["mlp_norm/scale"]) @ b["mlp/input"], 2, -1)
        x = x + norm((gelu(gate) * up) @ b["mlp/output"], b["mlp_post_norm/scale"])
    return 1.5 * np.tanh(norm(x, w["norm/scale"]) @ w["embedding"].T / 1.5)
