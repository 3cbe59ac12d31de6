"""Multiple choice: the evaluation halves of the tasks with all their options, not the gold answer alone.

Scoring by loss needs the gold answer only, and so does `tasks.parquet`; accuracy needs what else could be answered. The
options are read from the sources again, and the halves are those that `tasks.py` deals.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tikmix_pipeline.corpus.sources import about, read_records
from tikmix_pipeline.corpus.tasks import Item, gold_letter, options_by_letter, parse_item, split_items
from tikmix_pipeline.corpus.text import Record, text_of
from tikmix_pipeline.parameters.corpus import SeededTasksParameters

_MOST_FIXED_ANSWERS = 5


@dataclass(frozen=True)
class ChoiceItem:
    """An item with the options that its answer is chosen from.

    Attributes:
        item: question, gold answer and passage.
        options: at least two texts, without their letters.
        gold: which of them is the answer.
    """

    item: Item
    options: tuple[str, ...]
    gold: int


def evaluation_choices(
    parameters: SeededTasksParameters, *, root: Path, downloads: Path
) -> dict[str, list[ChoiceItem]]:
    """Read the evaluation half of every task that offers a choice; others are left out.

    Relative paths start from `root`; packages are kept in `downloads`.

    Raises:
        TikmixError: a source cannot be read; the message names the task.
    """
    choices: dict[str, list[ChoiceItem]] = {}
    for name, task in sorted(parameters.tasks.items()):
        with about(f"corpus.tasks.{name}"):
            by_item = read_choices(read_records(task.sources, root=root, downloads=downloads))
            halves = split_items(list(by_item), max_items=task.max_items, seed=parameters.seed)
        chosen = [choice for item in halves["evaluation"] if (choice := by_item[item])]
        if chosen:
            choices[name] = chosen
    return choices


def read_choices(records: Iterable[Record]) -> dict[Item, ChoiceItem | None]:
    """Read the distinct items of a task in their order, each with its options where it has at least two.

    Where no record has options and all share a few answers, such as yes and no, these are the options. Those are no
    options one of which is empty: no model can be asked to continue with nothing.

    Raises:
        TikmixError: a record is no item.
    """
    by_item: dict[Item, ChoiceItem | None] = {}
    has_options = False
    for where, record in records:
        item = parse_item(record, where)
        options = options_by_letter(text_of(record, "options", where)) if record.get("options") else {}
        has_options = has_options or bool(options)
        if item in by_item:
            continue
        by_item[item] = None
        if len(options) > 1 and all(options.values()):
            letter = gold_letter(options, text_of(record, "answer", where).strip(), where)
            by_item[item] = ChoiceItem(item, tuple(options.values()), list(options).index(letter))
    counts = Counter(item.answer for item in by_item)
    # all share a few answers, none of which is given only once
    if not has_options and 2 <= len(counts) <= _MOST_FIXED_ANSWERS and min(counts.values()) > 1:
        answers = tuple(sorted(counts))
        return {item: ChoiceItem(item, answers, answers.index(item.answer)) for item in by_item}
    return by_item
