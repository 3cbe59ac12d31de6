"""The model: a built-in Llama-style size, or any checkpoint that `AutoModelForCausalLM` reads.

Every built-in size is a plain `LlamaConfig`, so that what is trained here loads anywhere. A transformer's blocks,
whatever its family, are the unit that is sharded, recomputed and compiled.
"""

import contextlib
import logging
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import nn

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.gguf import require_converted
from tikmix_pipeline.lm.presets import find_preset
from tikmix_pipeline.lm.weights import checkpoint_config, require_loadable, saved_shapes, weight_files
from tikmix_pipeline.parameters.training import ConfigParameters, LoadParameters, ModelParameters, ProcessParameters

_logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_NUMBER = re.compile(r"\d+")
_LONGEST_REASON = 300  # characters; transformers lists all that it knows


def _import_transformers() -> Any:
    """Import transformers without its own progress bars, which would flicker between ours."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return transformers


def build_model(parameters: ModelParameters, *, vocabulary_size: int, context: int, seed: int) -> "PreTrainedModel":
    """Build a preset with seeded initial weights, in float32 on the CPU, or raise a TikmixError if there is none."""
    preset = find_preset(parameters.preset)
    transformers = _import_transformers()
    config = transformers.LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=preset.width,
        num_hidden_layers=preset.layers,
        num_attention_heads=preset.heads,
        num_key_value_heads=preset.key_value_heads,
        intermediate_size=preset.feed_forward,
        max_position_embeddings=context,
        tie_word_embeddings=preset.tied_embeddings,
        # the tokenizer beside the model knows its special tokens; a padding id would freeze that token's embedding
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        use_cache=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation=parameters.attention
        )
    return model.float()


def load_model(folder: Path, parameters: LoadParameters, *, dtype: torch.dtype = torch.float32) -> "PreTrainedModel":
    """Load a checkpoint folder in Hugging Face format; weights only from safetensors.

    A folder without a readable checkpoint that has all of the model's weights raises a TikmixError.
    """
    require_converted(folder, "model.checkpoint")
    require_loadable(folder)
    _require_causal_type(folder)
    model: PreTrainedModel
    with _reading(folder, parameters):
        model, loading = _import_transformers().AutoModelForCausalLM.from_pretrained(
            folder,
            attn_implementation=parameters.attention,
            dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=parameters.trust_remote_code,
            use_safetensors=True,
        )
    _require_same_weights(model, folder, missing=loading["missing_keys"], unexpected=loading["unexpected_keys"])
    model.config.use_cache = False
    _let_padding_learn(model)
    return model


def _require_same_weights(
    model: "PreTrainedModel", folder: Path, *, missing: Collection[str], unexpected: Collection[str]
) -> None:
    """Refuse what transformers only warns of: it fills missing weights with random numbers, and drops layers."""
    if missing:
        raise TikmixError(
            f"The checkpoint in {_given(folder)} lacks {len(missing)} of the model's weights, {min(missing)} among "
            "them. Save it again as the architecture that its config.json names."
        )
    of_one_layer = {_NUMBER.sub("0", name) for name, _ in model.named_parameters(remove_duplicate=False)}
    further = sorted(name for name in unexpected if _NUMBER.sub("0", name) in of_one_layer)
    if further:
        raise TikmixError(
            f"The checkpoint in {_given(folder)} has {len(further)} weights of layers that its config.json does not "
            f"count, {further[0]} among them. Copy the configuration that belongs to it."
        )
    if unexpected:
        _logger.warning(
            "the checkpoint in %s has %d weights that its architecture does not use, %s among them",
            *(_given(folder), len(unexpected), min(unexpected)),
        )


def outline_model(folder: Path, parameters: LoadParameters) -> "PreTrainedModel":
    """Return the model of a checkpoint folder without its weights: names and shapes, on the `meta` device.

    What `load_model` shares between layers is shared here too. Errors are those of `load_model`, as far as they show.
    """
    config, attention, trust = read_config(folder, parameters), parameters.attention, parameters.trust_remote_code
    with _reading(folder, parameters), torch.device("meta"):
        model: PreTrainedModel = _import_transformers().AutoModelForCausalLM.from_config(
            config, attn_implementation=attention, dtype=torch.float32, trust_remote_code=trust
        )
    _part_saved_apart(model, folder)
    _let_padding_learn(model)
    return model


def _part_saved_apart(model: "PreTrainedModel", folder: Path) -> None:
    """Undo the ties of a configuration between weights that are saved twice and differ, as loading them does.

    Of what is saved under other names than the model's own, nothing is known.
    """
    saved = saved_shapes(folder)
    for target, source in model.get_expanded_tied_weights_keys(all_submodels=True).items():
        if target in saved and source in saved and not _equal_tensors(folder, target, source):
            module, _, name = target.rpartition(".")
            parameter = nn.Parameter(torch.empty_like(model.get_parameter(target)))
            setattr(model.get_submodule(module), name, parameter)


def _equal_tensors(folder: Path, *names: str) -> bool:
    found: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in names if name in file.keys()}  # noqa: SIM118
    first, second = found.values()
    return first.shape == second.shape and torch.equal(first, second)


def _let_padding_learn(model: "PreTrainedModel") -> None:
    """Undo that a padding id in the configuration freezes the embedding of a token, often the one that ends a text."""
    embedding = model.get_input_embeddings()
    if isinstance(embedding, nn.Embedding):
        embedding.padding_idx = None


def read_config(folder: Path, parameters: ConfigParameters) -> "PretrainedConfig":
    """Read the configuration of a checkpoint folder, or raise a TikmixError."""
    require_converted(folder, "model.checkpoint")
    require_loadable(folder)
    _require_causal_type(folder)
    with _reading(folder, parameters):
        config: PretrainedConfig = _import_transformers().AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=parameters.trust_remote_code
        )
    return config


def _require_causal_type(folder: Path) -> None:
    transformers, config = _import_transformers(), checkpoint_config(folder)
    kind = config.get("model_type")
    is_known = kind is None or (isinstance(kind, str) and kind in transformers.CONFIG_MAPPING)
    if not is_known and "auto_map" not in config:
        raise TikmixError(
            f"model.checkpoint: the model in {_given(folder)} is of the type {kind!r} (config.json), which "
            f"transformers {transformers.__version__} does not know. Install one that does (pip install --upgrade "
            "transformers)."
        )
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    reads_ahead = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if reads_ahead and not (config.get("is_decoder") or config.get("causal")):
        raise TikmixError(
            f"model.checkpoint: the model in {_given(folder)} is of the type {kind!r} (config.json), which sees the "
            "text behind a token when it predicts that. Give a causal language model, such as a Llama, or set "
            "is_decoder in its config.json if it was trained as one."
        )


def _given(folder: Path) -> Path:
    """Return the folder that a user gave: of an adopted checkpoint, whose links are absolute, the one they lead to."""
    config = folder / "config.json"
    target = config.readlink() if config.is_symlink() else config
    return target.parent if target.is_absolute() else folder


@contextlib.contextmanager
def _reading(folder: Path, parameters: ConfigParameters) -> Iterator[None]:
    """Turn what transformers raises in the body, which is whatever the files make it raise, into a TikmixError."""
    try:
        yield
    except (TikmixError, MemoryError):
        raise
    except Exception as error:
        said = str(error).strip().partition("\n")[0][:_LONGEST_REASON]
        remedy = "Copy or save it again, or check model.checkpoint."
        if 'attn_implementation="eager"' in str(error):
            said = f"model.attention={getattr(parameters, 'attention', 'sdpa')} is not for this architecture"
            remedy = "Set model.attention=eager."
        elif "trust_remote_code" in str(error):
            remedy = "If you trust the code that comes with it, set model.trust_remote_code=true."
        raise TikmixError(f"The checkpoint in {_given(folder)} cannot be read ({said}). {remedy}") from error


def compute_in_bfloat16(model: nn.Module) -> None:
    """Make a model's forward and backward passes, from now on, run their matrix products in bfloat16."""
    device = next(model.parameters()).device.type
    model.forward = torch.autocast(device, torch.bfloat16)(model.forward)


def parameter_count(model: nn.Module) -> int:
    """Count trainable parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def blocks_of(model: "PreTrainedModel") -> list[nn.Module]:
    """Return the modules that the architecture says must not be split, in their order; none where it says nothing."""
    kinds = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in kinds]


def prepare_blocks(model: "PreTrainedModel", train: ProcessParameters) -> None:
    """Recompute and compile block by block where the parameters ask for it; names of parameters stay as they are.

    Raises:
        TikmixError: the architecture cannot do it.
    """
    if train.activation_checkpointing:
        try:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        except ValueError as error:
            raise TikmixError(
                f"train.activation_checkpointing: {type(model).__name__} has no blocks to recompute ({error}). "
                "Set it to false."
            ) from error
    if train.compile_blocks:
        blocks = blocks_of(model)
        if not blocks:
            raise TikmixError(
                f"train.compile_blocks: {type(model).__name__} names no blocks (_no_split_modules). Set it to false."
            )
        for block in blocks:
            block.compile()
