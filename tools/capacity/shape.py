"""The shape of a decoder: which matrices it has, how large they are, and which of them read the same.

A shape is a preset, follows from a number of parameters, or is read from a checkpoint's `config.json`.

Axes of a matrix: i inputs, o outputs.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tikmix_pipeline.errors import TikmixError

_HEAD_WIDTH = 128
_FEED_FORWARD = 8 / 3
_MULTIPLE = 128
_LEAST_PARAMETERS = 1e6

_Values = Mapping[str, Any]
"""What a `config.json` holds."""


class Matrix(NamedTuple):
    """One linear layer.

    Attributes:
        inputs: i, without the one that a bias adds.
        outputs: o.
        bias: it has one.
        is_first_reader: no layer before it reads the same; those that do share the covariance of the inputs.
    """

    inputs: int
    outputs: int
    bias: bool
    is_first_reader: bool

    @property
    def columns(self) -> int:
        """Columns of its block: inputs, and the bias."""
        return self.inputs + self.bias

    @property
    def size(self) -> int:
        """Scalar parameters."""
        return self.columns * self.outputs


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """A decoder-only transformer.

    Attributes:
        layers: blocks of attention and feed-forward.
        width: of the residual stream.
        feed_forward: inner width.
        heads: of the queries.
        key_value_heads: of keys and values.
        vocabulary: rows of the embedding.
        head_width: of one head; None for `width / heads`.
        tied: embedding and output head share their weight.
        gated: the feed-forward has a gate beside its inner layer, as in Llama.
        fused: queries, keys and values are one matrix, as in GPT-2 and GPT-NeoX.
        query_bias: queries, keys and values have biases.
        output_bias: the attention's output has one.
        feed_forward_bias: the feed-forward's layers have biases.
        norm_bias: norms have biases, as LayerNorm does.
        positions: learned ones; 0 for rotary.
    """

    layers: int
    width: int
    feed_forward: int
    heads: int
    key_value_heads: int
    vocabulary: int
    head_width: int | None = None
    tied: bool = False
    gated: bool = True
    fused: bool = False
    query_bias: bool = False
    output_bias: bool = False
    feed_forward_bias: bool = False
    norm_bias: bool = False
    positions: int = 0

    def __post_init__(self) -> None:
        for name in ("layers", "width", "feed_forward", "heads", "key_value_heads", "vocabulary"):
            if getattr(self, name) < 1:
                raise TikmixError(f"--{name.replace('_', '-')} ({getattr(self, name)}) must be at least 1.")
        if self.head_width is None and self.width % self.heads:
            raise TikmixError(
                f"--width ({self.width}) is no multiple of --heads ({self.heads}). Change one of the two."
            )
        if self.heads % self.key_value_heads:
            raise TikmixError(
                f"--heads ({self.heads}) is no multiple of --key-value-heads ({self.key_value_heads}): each of these "
                "serves equally many queries. Change one of the two."
            )

    @property
    def attention_width(self) -> int:
        """Width of all heads together."""
        return self.heads * (self.head_width or self.width // self.heads)

    def matrices(self) -> Iterator[Matrix]:
        """Yield the linear layers of one block, in the order of its forward pass."""
        inner, keys = self.attention_width, self.attention_width // self.heads * self.key_value_heads
        if self.fused:
            yield Matrix(self.width, inner + 2 * keys, self.query_bias, True)
        else:
            yield Matrix(self.width, inner, self.query_bias, True)
            yield from [Matrix(self.width, keys, self.query_bias, False)] * 2
        yield Matrix(inner, self.width, self.output_bias, True)
        yield Matrix(self.width, self.feed_forward, self.feed_forward_bias, True)
        if self.gated:
            yield Matrix(self.width, self.feed_forward, self.feed_forward_bias, False)
        yield Matrix(self.feed_forward, self.width, self.feed_forward_bias, True)

    def tables(self) -> list[int]:
        """Return the rows of the matrices that have the vocabulary or the positions on one side, each once."""
        rows = [self.vocabulary] if self.tied else [self.vocabulary, self.vocabulary]
        return [*rows, self.positions] if self.positions else rows

    @property
    def layer_parameters(self) -> int:
        """Scalar parameters of one block."""
        return sum(matrix.size for matrix in self.matrices()) + 2 * self.width * (1 + self.norm_bias)

    @property
    def parameters(self) -> int:
        """Scalar parameters, a shared weight once."""
        norm = self.width * (1 + self.norm_bias)
        return self.layers * self.layer_parameters + norm + sum(self.tables()) * self.width


SHAPES = {
    "135M": DecoderShape(
        layers=30, width=576, feed_forward=1536, heads=9, key_value_heads=3, vocabulary=49_152, tied=True
    ),
    "1B": DecoderShape(
        layers=16, width=2048, feed_forward=8192, heads=32, key_value_heads=8, vocabulary=128_256, tied=True
    ),
    "7B": DecoderShape(layers=32, width=4096, feed_forward=11_008, heads=32, key_value_heads=32, vocabulary=32_000),
    "8B": DecoderShape(layers=32, width=4096, feed_forward=14_336, heads=32, key_value_heads=8, vocabulary=128_256),
    "70B": DecoderShape(layers=80, width=8192, feed_forward=28_672, heads=64, key_value_heads=8, vocabulary=128_256),
}
"""The shapes of SmolLM2 135M, Llama 3.2 1B, Llama 2 7B, Llama 3.1 8B and Llama 3 70B."""


def shape_with_parameters(parameters: float, vocabulary: int) -> DecoderShape:
    """Return a Llama-like shape of about so many parameters: heads of 128, about one layer for every 128 of width.

    Args:
        parameters: all of them, embedding and head included.
        vocabulary: rows of the embedding.

    Raises:
        TikmixError: there are too few.
    """
    if parameters < _LEAST_PARAMETERS:
        raise TikmixError(
            f"--parameters ({parameters:g}) is below {_LEAST_PARAMETERS:g}. Write a number such as 7e9, or describe "
            "the model by --layers, --width and --heads."
        )
    shapes = [_of_width(width, parameters, vocabulary) for width in range(_MULTIPLE, 1 << 15, _MULTIPLE)]
    # a block has about 12 width², so depth grows with width where the two stand in a fixed ratio
    return min(shapes, key=lambda shape: abs(shape.layers - shape.width / _HEAD_WIDTH))


def _of_width(width: int, parameters: float, vocabulary: int) -> DecoderShape:
    inner = round(_FEED_FORWARD * width / _MULTIPLE) * _MULTIPLE
    one = DecoderShape(
        layers=1,
        width=width,
        feed_forward=inner,
        heads=width // _HEAD_WIDTH,
        key_value_heads=width // _HEAD_WIDTH,
        vocabulary=vocabulary,
    )
    rest = parameters - (one.parameters - one.layer_parameters)
    layers = max(1, round(rest / one.layer_parameters))
    return DecoderShape(**{**vars(one), "layers": layers})


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


def shape_of(values: _Values) -> DecoderShape:
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


def _llama(values: _Values) -> DecoderShape:
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


def _gpt2(values: _Values) -> DecoderShape:
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


def _gpt_neox(values: _Values) -> DecoderShape:
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


_FAMILIES: Mapping[str, Callable[[_Values], DecoderShape]] = {
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _llama,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
}
