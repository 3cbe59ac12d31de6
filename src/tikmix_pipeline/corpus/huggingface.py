"""Hugging Face datasets: of the Hub, of local files, and of folders that `save_to_disk` wrote."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tikmix_pipeline.corpus.records import Record
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.corpus import HuggingFaceSource


def huggingface_records(source: HuggingFaceSource, root: Path) -> Iterator[Record]:
    """Yield the rows of a dataset with all their fields.

    Raises:
        TikmixError: the dataset cannot be loaded or read.
    """
    with naming_dataset(source, root):
        for row, record in enumerate(open_dataset(source, root)):
            yield f"{source.path}, row {row}", record


def open_dataset(source: HuggingFaceSource, root: Path) -> Any:
    """Return the `Dataset` or, when streaming, the `IterableDataset`; a saved folder is a `Dataset` in any case.

    Raises:
        TikmixError: the library is missing, or a saved folder has no such split; besides, whatever `datasets` raises.
    """
    datasets = _library()
    if _is_saved(root / source.path):
        saved = datasets.load_from_disk(str(root / source.path))
        if isinstance(saved, datasets.Dataset):
            return saved
        if source.split not in saved:
            raise TikmixError(f"{source.path} has no split {source.split!r}; its splits are {', '.join(saved)}.")
        return saved[source.split]
    return datasets.load_dataset(
        _local(source.path, root),
        source.name,
        split=source.split,
        data_files=[_local(file, root) for file in data_files(source)] or None,
        revision=source.revision,
        streaming=source.streaming,
    )


@contextlib.contextmanager
def naming_dataset(source: HuggingFaceSource, root: Path) -> Iterator[None]:
    """Name the dataset in what `datasets` raises in the body."""
    try:
        yield
    except TikmixError:
        raise
    except Exception as error:  # its builders raise whatever their files make them raise
        call = f"load_from_disk({source.path!r})" if _is_saved(root / source.path) else ""
        call = call or f"load_dataset({source.path!r}, split={source.split!r})"
        raise TikmixError(f"datasets.{call} failed: {type(error).__name__}: {error}") from error


def data_files(source: HuggingFaceSource) -> list[str]:
    """Return the paths and globs of the source's data files."""
    return [source.data_files] if isinstance(source.data_files, str) else source.data_files or []


def _is_saved(folder: Path) -> bool:
    """Return whether `save_to_disk` wrote a folder, as a dataset or as several splits."""
    dataset = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return dataset or (folder / "dataset_dict.json").is_file()


def _local(name: str, root: Path) -> str:
    """Return the path of what exists under `root`; anything else is for the Hub, or for `datasets`, to know."""
    return str(root / name) if (root / name).exists() else name


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise TikmixError(
            'a `huggingface` source needs the library `datasets`: run `pip install -e ".[hf]"` '
            "in the project's folder."
        ) from error
    return datasets
