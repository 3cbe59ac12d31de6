"""What branches from elsewhere say: of earlier rounds of a run, or of a user's tables of the same domains and tasks.

Their losses stand at a level of their own, and respond a little otherwise (`response_process`). They cost nothing, so
that a decision need not begin anew at every round, or where a domain joins: of a mixture without that domain its weight
is 0.

Axes: E rows, T targets, K domains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import TikmixError, nearest_name
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.sweep.responses import Responses, responses_of

if TYPE_CHECKING:
    import pandas as pd

_WEIGHT, _LOSS = "weight/", "loss/"


@dataclass(frozen=True, eq=False)
class Evidence:
    """Rows of one source or several."""

    weights_EK: FloatArray
    loss_ET: FloatArray
    """Nats per token; NaN where a source does not have the target."""
    source_E: npt.NDArray[np.int64]
    """Which source a row is of, from 1 on."""

    def of_target(self, target: int) -> "Evidence | None":
        """Return the rows that have one target, and that target alone; None if there are none."""
        has_E = np.isfinite(self.loss_ET[:, target])
        if not has_E.any():
            return None
        return Evidence(self.weights_EK[has_E], self.loss_ET[has_E, target, None], self.source_E[has_E])

    @classmethod
    def of(cls, sources: Sequence[Responses], domains: Sequence[str], targets: Sequence[str]) -> "Evidence | None":
        """Return the rows of all sources, over the domains and targets of a run; None if there are none.

        Args:
            sources: each with some of these domains, and some of these targets beside others that are left out.

        Raises:
            TikmixError: a source has a domain that is none of these, or none of the targets.
        """
        rows = [_aligned(one, domains, targets) for one in sources]
        if not rows:
            return None
        count_G = [len(one) for one in sources]
        source_E = np.repeat(np.arange(1, len(sources) + 1, dtype=np.int64), count_G)
        return cls(np.concatenate([one[0] for one in rows]), np.concatenate([one[1] for one in rows]), source_E)


def _aligned(one: Responses, domains: Sequence[str], targets: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    for name in one.domains:
        if name not in domains:
            raise TikmixError(
                f"The table of evidence has a domain {name!r}, which this run lacks.{nearest_name(name, domains)} "
                "Name its columns as corpus.domains does (sweep.table.domain_prefix cuts off what comes first), or say "
                "in sweep.table.split which domains it became."
            )
    if not set(one.targets) & set(targets):
        raise TikmixError(
            f"The table of evidence has none of this run's tasks ({', '.join(targets)}), but {', '.join(one.targets)}. "
            "Name its columns as corpus.tasks does; sweep.table.metric_prefix and metric_suffix cut off the rest."
        )
    missing = np.full(len(one), np.nan)
    loss_ET = np.stack(
        [one.response_NT[:, one.targets.index(t)] if t in one.targets else missing for t in targets], axis=1
    )
    weights_EK = np.zeros((len(one), len(domains)))
    weights_EK[:, [list(domains).index(name) for name in one.domains]] = one.weights_NK
    return weights_EK, loss_ET


def split_domains(one: Responses, split: Mapping[str, Sequence[str]], share: Mapping[str, float]) -> Responses:
    """Return responses in which each domain that was split has become its parts, in proportion to their shares.

    Args:
        split: the parts by the domain that they were.
        share: of all domains now, such as those of their tokens; a domain's parts must not all be 0.

    Raises:
        TikmixError: a domain that was split is none of the table's, or a part none of the domains now.
    """
    for name, parts in split.items():
        for wrong, known in ((name, one.domains), *((part, tuple(share)) for part in parts)):
            if wrong not in known:
                raise TikmixError(
                    f"sweep.table.split: {wrong!r} is not one of {', '.join(known)}.{nearest_name(wrong, known)} Give "
                    "domains of the table, each with the domains of this run that it became."
                )
    columns: dict[str, FloatArray] = {}
    for name, weight_N in zip(one.domains, one.weights_NK.T, strict=True):
        parts = split.get(name, [name])
        whole = sum(share.get(part, 0.0) for part in parts)
        for part in parts:
            part_N = weight_N * share[part] / whole if name in split else weight_N
            columns[part] = columns.get(part, np.zeros(len(weight_N))) + part_N
    return Responses(one.runs, tuple(columns), one.targets, np.stack([*columns.values()], axis=1), one.response_NT)


def evidence_table(sources: Mapping[str, Responses]) -> "pd.DataFrame":
    """Return a row per branch: `source, run`, its `weight/<domain>` and its `loss/<task>`; empty where it has none."""
    import pandas as pd

    tables = []
    for name, one in sources.items():
        weights = pd.DataFrame(one.weights_NK, columns=[f"{_WEIGHT}{domain}" for domain in one.domains])
        losses = pd.DataFrame(one.response_NT, columns=[f"{_LOSS}{target}" for target in one.targets])
        tables.append(pd.concat([weights, losses], axis=1).assign(source=name, run=list(one.runs)))
    together = pd.concat(tables, ignore_index=True)
    others = [column for column in together.columns if column not in ("source", "run")]
    return together[["source", "run", *others]]


def evidence_of(table: "pd.DataFrame", domains: Sequence[str], targets: Sequence[str]) -> "Evidence | None":
    """Return what `evidence_table` holds; errors are those of `Evidence.of`."""
    return Evidence.of([_source(rows) for _, rows in table.groupby("source", sort=False)], domains, targets)


def _source(rows: "pd.DataFrame") -> Responses:
    known = rows.dropna(axis=1, how="all").set_index("run")
    sides = [known.loc[:, known.columns.str.startswith(prefix)] for prefix in (_WEIGHT, _LOSS)]
    ratios, losses = (side.rename(columns=lambda column: column.partition("/")[2]).reset_index() for side in sides)
    return responses_of(ratios, losses)
