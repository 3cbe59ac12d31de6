"""Tables that every round of an experiment adds its own rows to."""

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from tikmix_pipeline.datasets.previews import NOTHING, SHOWN_ROWS, TablePreview, table_preview
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import replacing
from tikmix_pipeline.store.provenance import ProvenanceRecord

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger(__name__)
_RECIPES, _DIGESTS = b"tikmix.recipes", b"tikmix.digests"


class RoundRowsDataset(AbstractDataset[Any, Any]):
    """The rows of one round in a table of several; fingerprints and digests of all rounds stand in the file's metadata.

    Rows that are not what was written count as missing, and a table that cannot be read as empty: rows are made again.
    """

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
        """Read the rows of this round.

        Raises:
            TikmixError: the table cannot be read, or these rows are not what was written.
        """
        table, fingerprints = self._read()
        if self.expected is not None and self._round not in fingerprints:
            raise TikmixError(
                f"{self._filepath} has no rows of round {self._round}, or they were altered after they were written. "
                "Run the stage that makes them."
            )
        return table[table["round"] == self._round].reset_index(drop=True)

    def save(self, data: "pd.DataFrame") -> None:
        """Replace this round's rows."""
        import pandas as pd

        try:
            table, fingerprints = self._read()
        except TikmixError as error:
            _LOG.warning("%s Those of rounds that this run does not make are lost.", error)
            table, fingerprints = _no_rows(), {}
        fingerprint = self.expected.fingerprint if self.expected else ""
        is_changed = fingerprints.get(self._round) != fingerprint
        last_kept = self._round if self._DROPS_LATER and is_changed else max(fingerprints, default=-1)
        fingerprints = {r: f for r, f in fingerprints.items() if r <= last_kept}
        kept = table[table["round"].isin(fingerprints.keys() - {self._round})]
        merged = pd.concat([kept, data]).sort_values([*self._ORDER], kind="stable") if len(kept) else data
        fingerprints |= {self._round: fingerprint}
        self._write(merged, fingerprints)

    def preview(self, nrows: int = SHOWN_ROWS) -> TablePreview:
        """Return what Kedro-Viz shows: the first rows of the round, if there are any."""
        return table_preview(self.load(), nrows) if self._exists() else NOTHING

    def _read(self) -> tuple["pd.DataFrame", dict[int, str]]:
        """Return the rows of all rounds, and the fingerprints of those whose rows are what was written."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._filepath.exists():
            return _no_rows(), {}
        try:
            read = pq.read_table(self._filepath)
            metadata = read.schema.metadata or {}
            recorded, digests = (json.loads(metadata.get(name, b"{}")) for name in (_RECIPES, _DIGESTS))
            table = read.to_pandas()
            # earlier versions wrote no digests
            whole = [r for r in recorded if not digests or digests.get(r) == _digest(table, int(r))]
            return table, {int(number): recorded[number] for number in whole}
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise TikmixError(f"{self._filepath} is damaged ({error}). The next run writes its rows again.") from error

    def _write(self, rows: "pd.DataFrame", fingerprints: dict[int, str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pandas(rows, preserve_index=False)
        read = table.to_pandas()
        added = {_RECIPES: fingerprints, _DIGESTS: {number: _digest(read, number) for number in fingerprints}}
        encoded = {name: json.dumps(values).encode() for name, values in added.items()}
        with replacing(self._filepath) as temporary:
            pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **encoded}), temporary)

    def _exists(self) -> bool:
        try:
            _, fingerprints = self._read()
        except TikmixError:
            return False
        recorded = fingerprints.get(self._round)
        return recorded is not None and (self.expected is None or recorded == self.expected.fingerprint)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "round": self._round}


def _no_rows() -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame({"round": pd.Series(dtype="int64")})


def _digest(table: "pd.DataFrame", number: int) -> str:
    """Return the SHA-256 of the rows of a round; text has every number to its last bit."""
    rows: str = table[table["round"] == number].to_csv(index=False)
    return hashlib.sha256(rows.encode()).hexdigest()


class MixtureRowsDataset(RoundRowsDataset):
    """The rows of one round in `mixtures.parquet` (`round, strategy, domain, weight, epochs, tokens`).

    Rows of later rounds are dropped when a round's mixture changes, since they were decided from it.
    """

    _DROPS_LATER = True
    _ORDER = ("round", "strategy", "domain")
