"""Tables that every round of an experiment adds its own rows to."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import replacing
from tikmix_pipeline.store.provenance import ProvenanceRecord

if TYPE_CHECKING:
    import pandas as pd

_RECIPES = b"tikmix.recipes"


class RoundRowsDataset(AbstractDataset[Any, Any]):
    """The rows of one round in a table of several; the fingerprints of all rounds stand in the file's metadata."""

    _DROPS_LATER = False
    """Whether rows of later rounds go when a round's own change."""
    _ORDER: tuple[str, ...] = ("round",)
    """The columns that rows are sorted by."""

    def __init__(self, *, filepath: str, round: str, metadata: dict[str, Any] | None = None) -> None:  # noqa: A002
        self._filepath = Path(filepath)
        self._round = int(round)
        self.metadata = metadata
        self.expected: ProvenanceRecord | None = None

    def load(self) -> "pd.DataFrame":
        """Read the rows of this round."""
        table, _ = self._read()
        return table[table["round"] == self._round].reset_index(drop=True)

    def save(self, data: "pd.DataFrame") -> None:
        """Replace this round's rows."""
        import pandas as pd

        table, fingerprints = self._read()
        fingerprint = self.expected.fingerprint if self.expected else ""
        is_changed = fingerprints.get(self._round) != fingerprint
        last_kept = self._round if self._DROPS_LATER and is_changed else max(fingerprints, default=-1)
        kept = table[(table["round"] != self._round) & (table["round"] <= last_kept)]
        merged = pd.concat([kept, data]).sort_values([*self._ORDER], kind="stable") if len(kept) else data
        fingerprints = {r: f for r, f in fingerprints.items() if r <= last_kept} | {self._round: fingerprint}
        self._write(merged, fingerprints)

    def _read(self) -> tuple["pd.DataFrame", dict[int, str]]:
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._filepath.exists():
            return pd.DataFrame({"round": pd.Series(dtype="int64")}), {}
        try:
            table = pq.read_table(self._filepath)
        except pa.ArrowInvalid as error:
            raise TikmixError(
                f"{self._filepath} is damaged ({error}). Delete it: the next run writes its rows again."
            ) from error
        recorded = json.loads((table.schema.metadata or {}).get(_RECIPES, b"{}"))
        return table.to_pandas(), {int(number): fingerprint for number, fingerprint in recorded.items()}

    def _write(self, rows: "pd.DataFrame", fingerprints: dict[int, str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pandas(rows, preserve_index=False)
        metadata = {**(table.schema.metadata or {}), _RECIPES: json.dumps(fingerprints).encode()}
        with replacing(self._filepath) as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary)

    def _exists(self) -> bool:
        _, fingerprints = self._read()
        recorded = fingerprints.get(self._round)
        return recorded is not None and (self.expected is None or recorded == self.expected.fingerprint)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "round": self._round}


class MixtureRowsDataset(RoundRowsDataset):
    """The rows of one round in `mixtures.parquet` (`round, strategy, domain, weight, epochs, tokens`).

    Rows of later rounds are dropped when a round's mixture changes, since they were decided from it.
    """

    _DROPS_LATER = True
    _ORDER = ("round", "strategy", "domain")
