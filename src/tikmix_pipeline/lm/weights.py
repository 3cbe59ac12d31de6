"""Which files of a checkpoint's folder hold its weights, and what their headers tell; no weight is read, no code run.

They are those that transformers loads: `model.safetensors` where there is one, else the files that
`model.safetensors.index.json` names. A folder may hold others beside them, such as the same weights once more under
other names, shards of an earlier save, or an optimiser's state.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json_object

_WHOLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_ADAPTER = "adapter_config.json"
_QUANTISED = ("quantization_config", "compression_config")
_AGAIN = "Copy or save the checkpoint again."
_MERGE = "Merge it once (peft: merge_and_unload, save_pretrained) and give the merged model's folder"


def require_loadable(folder: Path) -> None:
    """Refuse what the files themselves show not to be a checkpoint that can be measured or trained.

    Raises:
        TikmixError: there is no configuration, or one of quantised weights; an adapter lies beside the weights; or a
            file of weights is missing, damaged or elsewhere.
    """
    adapter = folder / _ADAPTER
    if not (folder / "config.json").is_file():
        if adapter.is_file():
            raise TikmixError(
                f"model.checkpoint: {folder} holds an adapter without its model ({_ADAPTER}, no config.json). {_MERGE}."
            )
        raise TikmixError(
            f"model.checkpoint: {folder} holds no config.json, and so no checkpoint. Give a folder that "
            "save_pretrained wrote."
        )
    if adapter.is_file():
        raise TikmixError(
            f"model.checkpoint: an adapter lies beside the model ({adapter}), and would take no part. {_MERGE}; or, if "
            f"the model without it is meant, move {_ADAPTER} elsewhere."
        )
    _require_full_precision(folder)
    saved_shapes(folder)


def _require_full_precision(folder: Path) -> None:
    config = checkpoint_config(folder)
    groups = [values for values in (config, config.get("text_config")) if isinstance(values, Mapping)]
    for values in groups:
        for name in _QUANTISED:
            if about := values.get(name):
                method = about.get("quant_method") if isinstance(about, Mapping) else None
                raise TikmixError(
                    f"model.checkpoint: the weights in {folder} are quantised ({name} in config.json: "
                    f"{method or 'of no name'}), and have no gradients. Give the checkpoint that they were quantised "
                    "from; or load this one once where the library for it is, and save it in full precision "
                    "(model.dequantize(), save_pretrained)."
                )


def checkpoint_config(folder: Path) -> Mapping[str, Any]:
    """Read `config.json` as it stands. One that is missing, damaged or no JSON object raises TikmixError."""
    return read_json_object(folder / "config.json", _AGAIN, source="model.checkpoint: ")


def weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers would load the weights of a checkpoint from, sorted by name.

    Raises:
        TikmixError: there are none, or one that is named is missing or lies outside the folder.
    """
    config = checkpoint_config(folder) if (folder / "config.json").is_file() else {}
    # a configuration may name the file
    named = config.get("transformers_weights") or (_WHOLE if (folder / _WHOLE).is_file() else _INDEX)
    first = folder / _plain(named, folder / "config.json", "transformers_weights")
    if not first.is_file():
        found = (path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.safetensors") for path in folder.glob(pattern))
        others = ", ".join(sorted(found)[:3])
        raise TikmixError(
            f"model.checkpoint: {folder} holds no {_WHOLE} and no {_INDEX}{f', but {others}' if others else ''}. Files "
            "of other names and formats are not read, and may run code: load the model once and save it by "
            "save_pretrained."
        )
    if first.suffix != ".json":
        return [first]
    names = read_json_object(first, _AGAIN, source="model.checkpoint: ").get("weight_map")
    if not isinstance(names, dict) or not names:
        raise TikmixError(f"model.checkpoint: {first} has no `weight_map` of tensors and their files. {_AGAIN}")
    files = sorted(folder / name for name in {_plain(name, first, "weight_map") for name in names.values()})
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise TikmixError(
            f"model.checkpoint: {missing[0]} is missing ({len(missing)} of the {len(files)} files that {first.name} "
            f"names are). {_AGAIN}"
        )
    return files


def _plain(name: Any, source: Path, field: str) -> str:
    """Return a file's name, or raise a TikmixError for a path: a checkpoint may be a stranger's."""
    if not isinstance(name, str) or name != Path(name).name or not name.endswith((".safetensors", ".index.json")):
        raise TikmixError(
            f"model.checkpoint: {source} names {name!r} (`{field}`), and only safetensors files in the same folder are "
            "read. Save the checkpoint again by save_pretrained."
        )
    return name


def saved_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that is saved for the weights, by its name there, from headers alone.

    Raises:
        TikmixError: as `weight_files`, or a file's header or its length shows that it is damaged.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="np") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise TikmixError(
                f"model.checkpoint: {path} is no safetensors file, or a damaged one ({error}). {_AGAIN}"
            ) from error
    return shapes
