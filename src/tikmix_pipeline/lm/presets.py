"""The built-in model sizes. No tensors here, so that a misspelt name costs no import."""

from dataclasses import dataclass

from tikmix_pipeline.errors import TikmixError, nearest_name


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The shape of a Llama-style model; its parameter count also depends on the vocabulary."""

    width: int
    layers: int
    heads: int
    key_value_heads: int
    feed_forward: int
    tied_embeddings: bool

    def parameter_count(self, vocabulary: int) -> int:
        """Count the parameters of the model with so many token ids."""
        heads = self.width // self.heads * (self.heads + 2 * self.key_value_heads)
        block = self.width * (heads + self.width + 3 * self.feed_forward + 2)
        embeddings = vocabulary * self.width * (1 if self.tied_embeddings else 2)
        return self.layers * block + embeddings + self.width


PRESETS = {
    "llama-tiny": Preset(width=32, layers=2, heads=2, key_value_heads=1, feed_forward=96, tied_embeddings=False),
    "llama-1m": Preset(width=128, layers=4, heads=4, key_value_heads=2, feed_forward=352, tied_embeddings=False),
    "llama-3m": Preset(width=192, layers=6, heads=6, key_value_heads=2, feed_forward=512, tied_embeddings=False),
    "llama-10m": Preset(width=320, layers=8, heads=5, key_value_heads=5, feed_forward=864, tied_embeddings=False),
    "llama-50m": Preset(width=512, layers=12, heads=8, key_value_heads=4, feed_forward=1408, tied_embeddings=True),
    "llama-100m": Preset(width=768, layers=12, heads=12, key_value_heads=4, feed_forward=2048, tied_embeddings=True),
    "llama-300m": Preset(width=1024, layers=20, heads=16, key_value_heads=4, feed_forward=2816, tied_embeddings=True),
    "llama-1b": Preset(width=2048, layers=16, heads=32, key_value_heads=8, feed_forward=8192, tied_embeddings=True),
}


def find_preset(name: str) -> Preset:
    """Return a built-in size, or raise a TikmixError if there is none of that name."""
    if name not in PRESETS:
        raise TikmixError(f"model.preset: '{name}' is not a built-in size.{nearest_name(name, PRESETS)}")
    return PRESETS[name]
