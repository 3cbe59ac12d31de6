"""The shape of a checkpoint's model, from its `config.json`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tikmix_pipeline.errors import TikmixError
from tools.capacity.shape import DecoderShape

Values = Mapping[str, Any]


def read_shape(path: Path) -> DecoderShape:
    """Read the shape of a model.

    Args:
        path: a checkpoint's folder in Hugging Face format, or its `config.json`.

    Raises:
        TikmixError: there is none, or the formulas do not know its family.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TikmixError(
            f"--config {path} cannot be read ({error}). Give a checkpoint's folder, or its config.json."
        ) from error
    return shape_of(values)


def shape_of(values: Values) -> DecoderShape:
    """Return the shape that a model's configuration describes.

    Raises:
        TikmixError: the formulas do not know its family, or it lacks a value.
    """
    kind = str(values.get("model_type"))
    if kind not in _FAMILIES:
        raise TikmixError(
            f"--config: model_type '{kind}' is none of {', '.join(_FAMILIES)}. Describe the model by --layers, "
            "--width, --feed-forward, --heads and --vocabulary instead."
        )
    try:
        return _FAMILIES[kind](values)
    except KeyError as error:
        raise TikmixError(
            f"--config: there is no {error} in it, which a {kind} needs. Give a whole config.json."
        ) from error


def _llama(values: Values) -> DecoderShape:
    is_qwen2 = values["model_type"] == "qwen2"
    biased = bool(values.get("attention_bias", False))
    return DecoderShape(
        layers=values["num_hidden_layers"],
        width=values["hidden_size"],
        feed_forward=values["intermediate_size"],
        heads=values["num_attention_heads"],
        key_value_heads=values.get("num_key_value_heads") or values["num_attention_heads"],
        head_width=values.get("head_dim"),
        vocabulary=values["vocab_size"],
        tied=bool(values.get("tie_word_embeddings", False)),
        query_bias=is_qwen2 or biased,
        output_bias=biased,
        feed_forward_bias=bool(values.get("mlp_bias", False)),
    )


def _gpt2(values: Values) -> DecoderShape:
    return DecoderShape(
        layers=values["n_layer"],
        width=values["n_embd"],
        feed_forward=values.get("n_inner") or 4 * values["n_embd"],
        heads=values["n_head"],
        key_value_heads=values["n_head"],
        vocabulary=values["vocab_size"],
        tied=bool(values.get("tie_word_embeddings", True)),
        gated=False,
        fused=True,
        query_bias=True,
        output_bias=True,
        feed_forward_bias=True,
        norm_bias=True,
        positions=values["n_positions"],
    )


def _gpt_neox(values: Values) -> DecoderShape:
    biased = bool(values.get("attention_bias", True))
    return DecoderShape(
        layers=values["num_hidden_layers"],
        width=values["hidden_size"],
        feed_forward=values["intermediate_size"],
        heads=values["num_attention_heads"],
        key_value_heads=values["num_attention_heads"],
        vocabulary=values["vocab_size"],
        tied=bool(values.get("tie_word_embeddings", False)),
        gated=False,
        fused=True,
        query_bias=biased,
        output_bias=biased,
        feed_forward_bias=True,
        norm_bias=True,
    )


_FAMILIES: Mapping[str, Callable[[Values], DecoderShape]] = {
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _llama,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
}
