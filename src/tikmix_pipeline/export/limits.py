"""What one trainer or another cannot read."""

from collections.abc import Iterable

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.export.schedule import Schedule


def check_no_blanks(schedule: Schedule, names: Iterable[str], trainer: str) -> None:
    """Refuse paths with white space, for trainers that split their lists at it.

    Raises:
        TikmixError: names the domain.
    """
    for name in names:
        path = schedule.domain(name).path
        if path.split() != [path]:
            raise TikmixError(
                f"{trainer} splits its list of data at white space, and the path of the domain '{name}' has some: "
                f"'{path}'. Rename the file or link to it by a path without blanks."
            )


def check_prefixes(schedule: Schedule, names: Iterable[str], trainer: str) -> None:
    """Refuse paths that would pass for weights, or that end as only files do.

    Raises:
        TikmixError: names the domain.
    """
    for name in names:
        path = schedule.domain(name).path
        if path.endswith((".bin", ".idx")):
            raise TikmixError(
                f"{trainer} takes the prefix of a domain's .bin and .idx files, and the path of the domain '{name}' is "
                f"'{path}'. Leave out its last four characters."
            )
        if _is_number(path):
            raise TikmixError(
                f"{trainer} would take the path of the domain '{name}', '{path}', for a weight. Write it as './{path}'."
            )


def check_count(count: int, most: int, trainer: str) -> None:
    """Refuse more data sets than the trainer counts.

    Raises:
        TikmixError: says how many there may be.
    """
    if count > most:
        raise TikmixError(
            f"{trainer} blends at most {most} data sets, and the mixture has {count} domains with weight. Merge small "
            "domains, or export to a trainer without such a limit."
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
