"""A GGUF file, llama.cpp's format, becomes a folder that `model.checkpoint` takes (the extra `[gguf]`):

    python -m tikmix_pipeline.lm.gguf model.gguf folder

transformers reads the file. Its quantised weights come out in float32, so the model is the one that llama.cpp runs, not
the one that was quantised. While it is converted it takes about eight bytes of memory a parameter, and four on disk.
"""

import contextlib
import importlib.util
import logging
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, replacing, require_space, sha256_of_file, write_json

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_logger = logging.getLogger(__name__)

SOURCE = "gguf.json"
"""Stands in the folder and says which file it came from."""

_EXTRA = ("gguf", "accelerate")
_BYTES_PER_WEIGHT = 4
_LONGEST_REASON = 200  # characters; transformers lists all that it knows

# how llama.cpp cuts text before it merges bytes (`tokenizer.ggml.pre`); transformers falls back to the way of GPT-2
_CUT_AT_DIGITS = frozenset({"codeshell", "command-r", "exaone", "minerva-7b", "refact", "smollm", "starcoder"})
_CUT_AS_GPT2 = frozenset({"default", "gpt-2", "granite-docling", "jais", "mpt", "olmo", "phi-2", "trillion"})


def require_converted(path: Path, parameter: str) -> None:
    """Refuse a GGUF file, or a folder with one and without a checkpoint, where a checkpoint's folder is expected.

    Raises:
        TikmixError: it names the `parameter` and the command that converts the file.
    """
    if path.is_file() and path.suffix.lower() == ".gguf":
        file = path
    elif (path / "config.json").is_file() or not (found := sorted(path.glob("*.gguf"))):
        return
    else:
        file = found[0]
    folder = file.with_suffix("")
    command = shlex.join(["python", "-m", "tikmix_pipeline.lm.gguf", str(file), str(folder)])
    raise TikmixError(
        f"{parameter}: {file} is a GGUF file, where a checkpoint's folder is expected. Convert it once, by `{command}` "
        f"in the project's folder, and give {folder}."
    )


def convert_gguf(file: Path, folder: Path) -> bool:
    """Write the model and the tokenizer of a GGUF file to a folder, whole or not at all.

    Returns:
        Whether anything was done: a folder that this very file was converted to is left as it is.

    Raises:
        TikmixError: the extra is not installed; the file is missing, damaged, of an architecture that transformers does
            not read, or without a tokenizer; the folder holds something else; or the disk is full.
    """
    _require_extra()
    metadata = _read_metadata(file)
    digest = sha256_of_file(file)
    if _is_converted(folder, file, digest):
        return False
    with TemporaryDirectory() as temporary:
        # by itself: transformers would also read what lies beside it
        alone = Path(temporary) / "model.gguf"
        alone.symlink_to(file.resolve())
        with _reading(file, f"model of the architecture '{metadata['general.architecture']}'"):
            config = _read_config(alone)
            model = _outline(config)
        weights = sum(parameter.numel() for parameter in model.parameters())
        require_space(folder, _BYTES_PER_WEIGHT * weights, "Weights in float32", "give a folder on another disk")
        with _reading(file, f"tokenizer ('{metadata['tokenizer.ggml.model']}')"):
            tokenizer = _read_tokenizer(alone, metadata)
        with _reading(file, "weights"):
            _fill(model, alone, config)
    with _writing(folder), replacing(folder) as unfinished:
        unfinished.mkdir()
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        write_json(unfinished / SOURCE, {"file": file.name, "sha256": digest})
    return True


def _require_extra() -> None:
    lacking = [module for module in _EXTRA if importlib.util.find_spec(module) is None]
    if lacking:
        raise TikmixError(
            f'Converting a GGUF file needs {" and ".join(lacking)}: run `pip install -e ".[gguf]"` in the project\'s '
            "folder. What is converted needs neither."
        )


def _read_metadata(file: Path) -> Mapping[str, Any]:
    """Return what the file says of itself, strings and numbers; of its arrays of strings only the lengths."""
    from transformers.integrations.gguf import GgufHeader, read_gguf_metadata

    if not file.is_file():
        raise TikmixError(f"There is no file {file}. Give a GGUF file, and then the folder to write.")
    try:
        metadata: dict[str, Any] = read_gguf_metadata(str(file))[0]
    except Exception as error:  # whatever bytes that are something else make the reader raise
        raise TikmixError(f"{file} is not a GGUF file, or not a whole one ({error}). Copy it again.") from error
    with contextlib.suppress(ValueError):  # a type of weights that only its other reader knows
        header = GgufHeader.from_file(str(file))
        expected = header.data_start + max((tensor.offset + tensor.nbytes for tensor in header.tensors), default=0)
        if file.stat().st_size < expected:
            raise TikmixError(f"{file} is truncated: {file.stat().st_size} of {expected} bytes. Copy it again.")
    if metadata.get("split.count", 1) > 1:
        raise TikmixError(f"{file} is one of {metadata['split.count']} parts. Join them (llama-gguf-split --merge).")
    if metadata.get("tokenizer.ggml.model", "none") in ("none", "no_vocab"):
        raise TikmixError(f"{file} holds no tokenizer. Take a file with one, or the checkpoint that it was made from.")
    return metadata


def _is_converted(folder: Path, file: Path, digest: str) -> bool:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    source = folder / SOURCE
    if source.is_file() and read_json(source).get("sha256") == digest and any(folder.glob("*.safetensors")):
        return True
    raise TikmixError(f"{folder} is there already, and is not what {file} was converted to. Give a new folder.")


def _read_config(file: Path) -> "PretrainedConfig":
    import transformers

    config: PretrainedConfig = transformers.AutoConfig.from_pretrained(
        file.parent, gguf_file=file.name, local_files_only=True
    )
    # a padding id freezes that token's embedding, and in most files it is the token that ends a document
    config.pad_token_id = None
    # the title of the file, where the path of a model is expected
    vars(config).pop("_model_name_or_path", None)
    return config


def _outline(config: "PretrainedConfig") -> "PreTrainedModel":
    """Return the model without weights: transformers does not save the one that it read, for it counts as quantised."""
    import torch
    import transformers

    with torch.device("meta"):
        model: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model


def _read_tokenizer(file: Path, metadata: Mapping[str, Any]) -> Any:
    import transformers
    from tokenizers import pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    cut = metadata.get("tokenizer.ggml.pre", "default")
    if metadata["tokenizer.ggml.model"] != "gpt2" or cut in _CUT_AS_GPT2 | GGUF_PRE_TOKENIZER_SPLITS.keys():
        return tokenizer
    if cut in _CUT_AT_DIGITS:
        backend = tokenizer.backend_tokenizer
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
    else:
        _logger.warning(
            f"The tokenizer cuts text by '{cut}', which transformers does not know: it is cut as GPT-2 does. Where the "
            "model's own tokenizer is at hand, give its folder as corpus.tokenizer.path."
        )
    return tokenizer


def _fill(model: "PreTrainedModel", file: Path, config: "PretrainedConfig") -> None:
    import torch
    import transformers

    read, loading = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        config=config,
        dtype=torch.float32,
        local_files_only=True,
        output_loading_info=True,
    )
    # transformers fills what is missing with random numbers and a warning
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ValueError(f"{len(missing)} of the model's weights are missing, {missing[0]} among them")
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()


@contextlib.contextmanager
def _reading(file: Path, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # transformers raises whatever the file makes it raise
        said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:_LONGEST_REASON]}"
        raise TikmixError(
            f"transformers cannot read the {what} of {file} ({said}). Take the checkpoint in Hugging Face's format "
            "that it was made from."
        ) from error


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise TikmixError(
            f"{folder} cannot be written ({error}). Make room there, or give a folder on another disk."
        ) from error


@click.command(help="Convert the GGUF FILE to a checkpoint in FOLDER, for model.checkpoint.")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def main(file: Path, folder: Path) -> None:
    """Convert from the command line."""
    try:
        done = convert_gguf(file, folder)
    except TikmixError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{folder} {'is' if done else 'was already'} the checkpoint of {file.name}: model.checkpoint={folder}")


if __name__ == "__main__":
    main()
