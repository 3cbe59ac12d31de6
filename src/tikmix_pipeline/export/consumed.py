"""What each domain really got, read from the state that a trainer keeps: `remix.consumed`.

    nanotron                         `checkpoint_metadata.json`: tokens by folder and stage, added up
    megatron, nemo, nemo_automodel   the cache of the blend's index: of every sample, in the order of training, the
                                     data set that it is from. The first `samples` are counted, each a sequence
    llama_factory, ms_swift          `trainer_state.json` of Transformers' Trainer: tokens in all, which `remix` deals
                                     by the mixture in force. Of ms-swift without packing the padding is among them

Of other trainers nothing is kept that tells; their shares are those of their files. Reads JSON and NumPy's arrays
without pickles, and needs none of the trainers.
Sources: nanotron, serialize/metadata.py (`TrainingMetadata.consumed_tokens_per_dataset_folder_total`); Megatron-LM,
core/datasets/blended_dataset.py (`_build_indices`; --data-cache-path, NeMo's index_mapping_dir); Transformers,
`TrainerState.num_input_tokens_seen`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tikmix_pipeline.errors import TikmixError, nearest_name
from tikmix_pipeline.files import read_json_object

_BLEND = "-BlendedDataset-train-description.txt"
_REMEDY = "Give a state that the trainer has written."


@dataclass(frozen=True)
class Consumed:
    """Tokens that a run has been trained on."""

    total: int
    by_path: Mapping[str, int] | None = None
    """By the path that the trainer reads a domain by; None where its state knows of no domains."""

    def named(self, paths: Mapping[str, str]) -> int | dict[str, int]:
        """Return `remix.consumed`: tokens by domain, or in all.

        Args:
            paths: of the domains, as `reweight.paths`; a path that is of none is the name of its domain.

        Raises:
            TikmixError: paths are given, and something was read that is none of them.
        """
        if self.by_path is None:
            return self.total
        names = {_bare(path): name for name, path in paths.items()}
        for path in self.by_path:
            if paths and _bare(path) not in names:
                end = nearest_name(path, list(paths.values()))
                raise TikmixError(f"The run has read '{path}', which is the path of no domain.{end}")
        return {names.get(_bare(path), path): tokens for path, tokens in sorted(self.by_path.items())}


def read_consumed(trainer: str, state: Path, samples: int | None = None) -> Consumed:
    """Read what a run has been trained on.

    Args:
        trainer: one of `READERS`.
        state: the file, or the folder it is in.
        samples: sequences trained on, steps times the global batch; for Megatron-LM and NeMo.

    Raises:
        TikmixError: the state is missing or not what it should be, or nothing tells for such a trainer.
    """
    if trainer not in READERS:
        raise TikmixError(f"What '{trainer}' has read is told by none of its files.{nearest_name(trainer, READERS)}")
    return READERS[trainer](state, samples)


def _nanotron(state: Path, samples: int | None) -> Consumed:
    del samples
    file = _file(state, "checkpoint_metadata.json")
    metas = read_json_object(file, _REMEDY).get("metas")
    stages = metas.get("data_stages") if isinstance(metas, dict) else None
    by_path: dict[str, int] = {}
    for stage in stages if isinstance(stages, list) else []:
        of_stage = stage.get("consumed_tokens_per_dataset_folder") if isinstance(stage, dict) else None
        for path, tokens in of_stage.items() if isinstance(of_stage, dict) else ():
            by_path[path] = by_path.get(path, 0) + (tokens if isinstance(tokens, int) else 0)
    if not any(by_path.values()):
        raise TikmixError(f"{file} has no consumed_tokens_per_dataset_folder in any of its data_stages. {_REMEDY}")
    return Consumed(sum(by_path.values()), by_path)


def _megatron(state: Path, samples: int | None) -> Consumed:
    """Count the first samples of a blend by data set.

    A blend of one data set has no index of its own, and needs none: all that was read is that data set's.
    """
    file = _file(state, f"*{_BLEND}")
    if samples is None or samples < 1:
        raise TikmixError(f"{file} is of the whole run: say how many samples were trained on (--samples), from 1.")
    described = read_json_object(file, _REMEDY)
    try:
        sets: list[dict[str, Any]] = described["datasets"]
        paths, (context,) = [one["dataset_path"] for one in sets], {int(one["sequence_length"]) for one in sets}
        index_N = np.load(str(file).removesuffix("description.txt") + "dataset_index.npy", "r", allow_pickle=False)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise TikmixError(
            f"{file} does not describe a blend with its index beside it ({error!r}). {_REMEDY}"
        ) from error
    if samples > len(index_N):
        raise TikmixError(f"{file} is of a blend of {len(index_N)} samples, and --samples says {samples}.")
    counts_K = np.bincount(index_N[:samples], minlength=len(paths))
    by_path = {path: int(count) * context for path, count in zip(paths, counts_K.tolist(), strict=True)}
    return Consumed(samples * context, by_path)


def _transformers(state: Path, samples: int | None) -> Consumed:
    del samples
    file = _file(state, "trainer_state.json")
    total = read_json_object(file, _REMEDY).get("num_input_tokens_seen")
    if not isinstance(total, int) or total < 1:
        raise TikmixError(f"{file} counts no tokens. Train with include_num_input_tokens_seen (true or non_padding).")
    return Consumed(total)


READERS: Mapping[str, Callable[[Path, int | None], Consumed]] = {
    "nanotron": _nanotron,
    "megatron": _megatron,
    "nemo": _megatron,
    "nemo_automodel": _megatron,
    "llama_factory": _transformers,
    "ms_swift": _transformers,
}


def _file(state: Path, pattern: str) -> Path:
    """Return a state's file, given itself or by its folder."""
    if state.is_file():
        return state
    found = sorted(state.glob(pattern))
    if not found:
        raise TikmixError(f"There is no {pattern} at {state}. {_REMEDY}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise TikmixError(f"{state} has several: {names}. Give the one of the run itself.")
    return found[0]


def _bare(path: str) -> str:
    return path.rstrip("/")
