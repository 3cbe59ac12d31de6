"""Artifacts: files and folders that exist, for Kedro, only while their record matches what the run would make.

`--only-missing-outputs` asks each dataset whether it exists; an artifact made from something else answers no and is
made again. Loading one whose provenance record does not match is refused.
"""

import importlib
import operator
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from kedro.io import AbstractDataset

from tikmix_pipeline.datasets.previews import (
    NOTHING,
    SHOWN_ROWS,
    ImagePreview,
    JSONPreview,
    TablePreview,
    image_preview,
    json_preview,
    table_preview,
)
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, replacing, write_json, write_text
from tikmix_pipeline.store.provenance import (
    ProvenanceRecord,
    Status,
    artifact_status,
    forget_record,
    read_record,
    require_unaltered,
    write_record,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Artifact(AbstractDataset[Any, Any]):
    """A file or folder with its provenance record beside it.

    `expected` is set before a run; without it (notebooks, `kedro viz`) whatever is on disk is loaded as it is.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata
        self.expected: ProvenanceRecord | None = None

    @property
    def path(self) -> Path:
        """Where the artifact stands."""
        return self._filepath

    @abstractmethod
    def _read(self) -> Any:
        """Read the artifact's content."""

    @abstractmethod
    def _write(self, data: Any) -> None:
        """Write the artifact's content, whole or not at all."""

    def _record_options(self) -> dict[str, Any]:
        """Return what `write_record` is told besides the record itself."""
        return {}

    def status(self) -> tuple[Status, str]:
        """Tell whether the artifact is what the run would make; the second value says why not."""
        if self.expected is None:
            return ("fresh", "") if self._filepath.exists() else ("missing", "it is not there")
        return artifact_status(self._filepath, self.expected)

    def load(self) -> Any:
        """Load the artifact.

        Raises:
            TikmixError: it is missing, was made from something else, or is not what was written, to the last byte.
        """
        status, reason = self.status()
        if status != "fresh":
            raise TikmixError(f"{self._filepath} is {status}: {reason}. Run the stage that makes it first.")
        if self.expected is not None:
            require_unaltered(self._filepath)
        return self._read()

    def save(self, data: Any) -> None:
        """Write the artifact, then its record."""
        forget_record(self._filepath)
        self._write(data)
        if self.expected is not None:
            write_record(self._filepath, self.expected, **self._record_options())

    def _exists(self) -> bool:
        return self.status()[0] == "fresh"

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


class _JsonArtifact(Artifact):
    def preview(self) -> JSONPreview:
        """Return what Kedro-Viz shows: the document, if it is there."""
        return json_preview(self._filepath) if self._filepath.exists() else NOTHING


class JsonDataset(_JsonArtifact):
    """A JSON document."""

    def _read(self) -> Any:
        return read_json(self._filepath)

    def _write(self, data: Any) -> None:
        write_json(self._filepath, data)


class JsonRecord(Protocol):
    """A record of this project's own (`record.Record`, or a class that is written and read alike)."""

    VERSION: ClassVar[int]

    def to_json(self) -> dict[str, Any]:
        """Return what the document holds."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave."""


class RecordDataset(_JsonArtifact):
    """A record of this project's own as a JSON document, read and written by its class.

    The version of the class stands in the provenance record, so that a document of another version is refused
    instead of being misread.
    """

    def __init__(self, *, filepath: str, record: str, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._record = record

    def _read(self) -> JsonRecord:
        kind: type[JsonRecord] = _named(self._record)
        written = read_record(self._filepath)
        if written is not None and written.version != kind.VERSION:
            raise TikmixError(
                f"{self._filepath} holds a {kind.__name__} of version {written.version}, and this version of the "
                f"project reads version {kind.VERSION}. Make it again, or use the version that wrote it."
            )
        try:
            return kind.from_json(read_json(self._filepath))
        except TikmixError as error:
            raise TikmixError(f"{self._filepath}: {error}") from error

    def _write(self, data: JsonRecord) -> None:
        write_json(self._filepath, data.to_json())

    def _record_options(self) -> dict[str, Any]:
        return {"version": _named(self._record).VERSION}


class TextDataset(Artifact):
    """Text in UTF-8."""

    def _read(self) -> str | Path:
        return self._filepath.read_text(encoding="utf-8")

    def _write(self, data: str) -> None:
        write_text(self._filepath, data)


class PageDataset(TextDataset):
    """A page in HTML; loading gives the path, for whoever shows it."""

    def _read(self) -> Path:
        return self._filepath


class _TableArtifact(Artifact):
    def preview(self, nrows: int = SHOWN_ROWS) -> TablePreview:
        """Return what Kedro-Viz shows: the first rows, if the table is there."""
        return table_preview(self._read(), nrows) if self._filepath.exists() else NOTHING


class TableDataset(_TableArtifact):
    """A pandas table as Parquet."""

    def _read(self) -> "pd.DataFrame":
        import pandas as pd

        return pd.read_parquet(self._filepath)

    def _write(self, data: "pd.DataFrame") -> None:
        with replacing(self._filepath) as temporary:
            data.to_parquet(temporary, index=False)


class CsvDataset(_TableArtifact):
    """A pandas table as CSV, for other tools to read; its first column stays text, its numbers keep their last bit."""

    def _read(self) -> "pd.DataFrame":
        import pandas as pd

        return pd.read_csv(self._filepath, dtype={0: str})

    def _write(self, data: "pd.DataFrame") -> None:
        with replacing(self._filepath) as temporary:
            data.to_csv(temporary, index=False)


class FigureDataset(Artifact):
    """A matplotlib figure as PNG; loading gives the path, for whoever shows it."""

    def _read(self) -> Path:
        return self._filepath

    def _write(self, data: "Figure") -> None:
        with replacing(self._filepath) as temporary:
            data.savefig(temporary, format="png", dpi=120)

    def preview(self) -> ImagePreview:
        """Return what Kedro-Viz shows: the figure, if it is there."""
        return image_preview(self._filepath) if self._filepath.exists() else NOTHING


class FolderDataset(Artifact):
    """A folder written, whole or not at all, by the function that a node returns, and opened by the one named `reader`.

    With `digested: false` a look tells a change of its files by their sizes alone, so that many large ones need not be
    read at every start; before it is opened they are.
    """

    def __init__(
        self, *, filepath: str, reader: str, digested: bool = True, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._reader = reader
        self._digested = digested

    def _read(self) -> Any:
        return _named(self._reader)(self._filepath)

    def _write(self, data: Callable[[Path], Any]) -> None:
        data(self._filepath)

    def _record_options(self) -> dict[str, Any]:
        return {} if self._digested else {"digested_bytes": -1}


def _named(reference: str) -> Any:
    """Return what a catalog entry names as `module:name`."""
    module, name = reference.split(":")
    return operator.attrgetter(name)(importlib.import_module(module))
