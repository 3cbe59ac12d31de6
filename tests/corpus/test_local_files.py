import logging
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from archive_examples import write_debian_package, write_tarball
from corpus_examples import corpus_in, package_source, random_text, write_jsonl, write_wheel

from tikmix_pipeline.corpus import local_files
from tikmix_pipeline.corpus.build import prepare_text
from tikmix_pipeline.corpus.local_files import Reading, chosen_names, files_below, matching_files
from tikmix_pipeline.corpus.packages import read_members
from tikmix_pipeline.corpus.reading import read_domain
from tikmix_pipeline.corpus.sources import read_records, read_source, source_signatures
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.corpus import FilesSource, HuggingFaceSource, ShardsSource

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456\n"


def files(path: str, **changes: Any) -> FilesSource:
    return FilesSource.model_validate({"kind": "files", "path": path, **changes})


def dataset(**values: Any) -> HuggingFaceSource:
    return HuggingFaceSource.model_validate({"kind": "huggingface", "path": "json", **values})


def read(source: Any, root: Path) -> list[str]:
    return list(read_source(source, root=root, downloads=root))


def shards(root: Path, *, missing: int = 2) -> Path:
    """Write one shard of 40 documents, and links to shards that are not there."""
    write_jsonl(root / "web" / "0.jsonl", [{"text": random_text(5000 + row)} for row in range(40)])
    for number in range(1, missing + 1):
        (root / "web" / f"{number}.jsonl").symlink_to(root / "elsewhere" / f"{number}.jsonl")
    return root


def with_web(folder: Path, pattern: str = "web/*", **changes: Any) -> Any:
    domains = corpus_in(folder).model_dump()["domains"]
    return corpus_in(folder, domains=domains | {"web": {"sources": [files(pattern).model_dump()]}}, **changes)


NAMED = "crawl[2024].jsonl"


@pytest.fixture
def brackets(tmp_path: Path) -> Path:
    """A file whose name is a pattern of another's."""
    write_jsonl(tmp_path / "web" / NAMED, [{"text": "named"}])
    write_jsonl(tmp_path / "web" / "crawl2.jsonl", [{"text": "other"}])
    return tmp_path


def test_a_path_that_exists_is_that_path(brackets: Path):
    assert read(files(f"web/{NAMED}"), brackets) == ["named"]
    (brackets / "web" / NAMED).unlink()
    assert read(files(f"web/{NAMED}"), brackets) == ["other"]


@pytest.mark.parametrize("name", ["what?.jsonl", "all*.jsonl", "[ab].jsonl", "**.jsonl", "a[!b].jsonl"])
def test_any_character_of_a_pattern_may_stand_in_a_name(tmp_path: Path, name: str):
    write_jsonl(tmp_path / name, [{"text": "named"}])
    for other in ("whatx.jsonl", "allx.jsonl", "a.jsonl", "x.jsonl", "ax.jsonl"):
        write_jsonl(tmp_path / other, [{"text": "other"}])
    assert read(files(name), tmp_path) == ["named"]


def test_data_files_are_those_below_the_root_wherever_a_run_is_started(brackets: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(brackets / "web")
    assert sorted(read(dataset(data_files="web/*.jsonl"), brackets)) == ["named", "other"]


def test_links_to_a_folder_above_are_no_end_of_folders(tmp_path: Path):
    """With two of them, what `glob` lists doubles with every folder down, forty folders deep."""
    write_jsonl(tmp_path / "web" / "deep" / "a.jsonl", [{"text": "a"}])
    write_jsonl(tmp_path / "web" / ".hidden" / "b.jsonl", [{"text": "hidden"}])
    for number in range(3):
        (tmp_path / "web" / f"loop{number}").symlink_to(tmp_path / "web")
    for pattern in ("**/*.jsonl", "web/**/*.jsonl", "**", "**/deep/*", str(tmp_path / "**" / "a.jsonl"), "**/**/a.*"):
        assert read(files(pattern), tmp_path) == ["a"]
    (tmp_path / "web" / "other").symlink_to(tmp_path / "elsewhere")
    write_jsonl(tmp_path / "elsewhere" / "c.jsonl", [{"text": "c"}])
    assert sorted(read(files("web/**/*.jsonl"), tmp_path)) == ["a", "c"]


def test_a_folder_in_the_path_may_be_called_like_a_pattern(tmp_path: Path):
    write_jsonl(tmp_path / "run[1]" / "a.jsonl", [{"text": "named"}])
    write_jsonl(tmp_path / "run1" / "a.jsonl", [{"text": "other"}])
    assert read(files("run[1]/a.jsonl"), tmp_path) == ["named"]


def test_the_records_of_a_task_and_token_shards_are_those_of_the_file_named(brackets: Path):
    records = read_records([files(f"web/{NAMED}")], root=brackets, downloads=brackets)
    assert [record for _, record in records] == [{"text": "named"}]
    assert matching_files(f"web/{NAMED}", brackets) == [brackets / "web" / NAMED]
    assert files_below(f"web/{NAMED}", brackets) == [brackets / "web" / NAMED]


@pytest.mark.parametrize("streaming", [True, False])
def test_a_dataset_of_local_files_is_that_of_the_file_named(brackets: Path, streaming: bool):
    source = dataset(data_files=f"web/{NAMED}", streaming=streaming)
    assert read(source, brackets) == ["named"]


@pytest.mark.parametrize("read_as", ["all", "sample"])
def test_a_domain_is_that_of_the_file_named(brackets: Path, read_as: str):
    for number, name in enumerate((NAMED, "crawl2.jsonl")):
        write_jsonl(brackets / "web" / name, [{"text": random_text(5000 + 100 * number + row)} for row in range(40)])
    parameters = with_web(brackets, f"web/{NAMED}", read=read_as, max_megabytes=1)
    sample = read_domain("web", parameters.domains["web"], parameters, root=brackets, downloads=brackets)
    assert {document.text for document in sample.documents} == {random_text(5000 + row) for row in range(40)}


@pytest.mark.parametrize("archive", ["wheel", "tarball", "debian"])
def test_a_member_that_exists_is_that_member(tmp_path: Path, archive: str):
    members = {"tiny/a[1].txt": b"named", "tiny/a1.txt": b"other", "tiny/[b].txt": b"left", "tiny/b.txt": b"kept"}
    write, ending = {
        "wheel": (write_wheel, "whl"),
        "tarball": (write_tarball, "tgz"),
        "debian": (write_debian_package, "deb"),
    }[archive]
    path = tmp_path / f"tiny.{ending}"
    for order in (members, dict(reversed(members.items()))):
        write(path, order)
        assert [data for _, data in read_members(path, "tiny/a[1].txt")] == [b"named"]
        kept = [data for _, data in read_members(path, "tiny/*", ["tiny/a*", "tiny/[b].txt"])]
        assert kept == [b"kept"]
    assert package_source("0" * 64).members == "tiny/*.txt"


def test_a_name_among_names_is_no_pattern():
    names = ["a[1]", "a1", "b/c", "d"]
    assert chosen_names(names, "a[1]") == {"a[1]"}
    assert chosen_names(names[1:], "a[1]") == {"a1"}
    assert chosen_names(names, "*", ["b/*", "d"]) == {"a[1]", "a1"}


def test_a_path_to_a_folder_says_how_to_name_its_files(brackets: Path):
    with pytest.raises(TikmixError, match=r"no file matches 'web' .*matches folders alone: add /\* or /\*\*"):
        read(files("web"), brackets)


def test_shards_that_are_missing_are_refused_by_name(tmp_path: Path):
    parameters = with_web(shards(tmp_path))
    message = (
        r"corpus.domains.web: 2 of the 3 files of 'web/\*' cannot be read: .*1.jsonl \(it is a link to .*, which is "
        r"not there\), .*2.jsonl .*set corpus.on_unreadable to `skip`"
    )
    with pytest.raises(TikmixError, match=message):
        prepare_text(parameters, root=tmp_path, downloads=tmp_path)


@pytest.mark.parametrize("read_as", ["all", "sample"])
def test_missing_shards_may_be_skipped_and_the_share_that_is_lost_is_kept(
    tmp_path: Path, read_as: str, caplog: pytest.LogCaptureFixture
):
    parameters = with_web(shards(tmp_path), on_unreadable="skip", read=read_as, max_megabytes=1)
    prepared = prepare_text(parameters, root=tmp_path, downloads=tmp_path)
    report = prepared.sources.domains["web"]
    assert report.documents == 40
    assert report.unreadable_files == ["web/1.jsonl", "web/2.jsonl"]
    assert report.lost_share == pytest.approx(2 / 3)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    (warning,) = [message for message in warnings if "could not be read" in message]
    assert "2 of 3 files could not be read, up to 66.7 % of the bytes" in warning
    assert "unreadable_files" not in prepared.sources.domains["prose"].model_dump()


def test_a_domain_of_which_nothing_can_be_read_is_refused_in_any_case(tmp_path: Path):
    shards(tmp_path)
    (tmp_path / "web" / "0.jsonl").unlink()
    with pytest.raises(TikmixError, match=r"2 of the 2 files of 'web/\*' cannot be read"):
        prepare_text(with_web(tmp_path, on_unreadable="skip"), root=tmp_path, downloads=tmp_path)


def test_the_files_of_tasks_and_of_token_shards_are_never_skipped(tmp_path: Path):
    shards(tmp_path)
    with pytest.raises(TikmixError, match=r"2 of the 3 files of 'web/\*' cannot be read.*Mend or remove them.$"):
        list(read_records([files("web/*")], root=tmp_path, downloads=tmp_path))
    source = ShardsSource(kind="shards", path="web/*", bytes_per_token=4.0)
    parameters = corpus_in(tmp_path, on_unreadable="skip", tokenizer={"path": "tokenizer"})
    domains = parameters.domains | {"web": {"sources": [source.model_dump()]}}
    parameters = corpus_in(tmp_path, on_unreadable="skip", tokenizer={"path": "tokenizer"}, domains=domains)
    with pytest.raises(TikmixError, match=r"corpus.domains.web: 2 of the 3 files"):
        prepare_text(parameters, root=tmp_path, downloads=tmp_path)


@pytest.mark.parametrize("values", [{"data_files": "web/*.jsonl"}, {"path": "web"}], ids=["data files", "folder"])
def test_a_dataset_with_a_link_to_nowhere_is_refused(tmp_path: Path, values: dict[str, Any]):
    """`datasets` passes over such links in silence."""
    shards(tmp_path, missing=1)
    with pytest.raises(TikmixError, match=r"1 of the 2 files of 'web.*cannot be read: .*it is a link to"):
        read(dataset(**values), tmp_path)


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shards(tmp_path, missing=0)
    write_jsonl(tmp_path / "web" / "1.jsonl", [{"text": "secret"}])
    monkeypatch.setattr(local_files.os, "access", lambda path, mode: not str(path).endswith("1.jsonl"))
    with pytest.raises(TikmixError, match=r"1 of the 2 .*1.jsonl \(there is no permission to read it\)"):
        read(files("web/*"), tmp_path)


@pytest.mark.parametrize("name", ["1.jsonl", "1.txt", "1.md", "1.parquet", "1.jsonl.gz", "1.json"])
def test_a_pointer_of_git_lfs_is_not_taken_for_the_file(tmp_path: Path, name: str):
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(TikmixError, match=rf"{name} \(it is a pointer of Git LFS in place of the file itself"):
        read(files(name), tmp_path)
    with pytest.raises(TikmixError, match="a pointer of Git LFS"):
        list(read_records([files(name)], root=tmp_path, downloads=tmp_path))


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_jsonl(tmp_path / "web" / "a" / "a.jsonl", [{"text": "a"}])
    write_jsonl(tmp_path / "web" / "b" / "b.jsonl", [{"text": "b"}])
    scandir = os.scandir

    def forbidden(path: Any) -> Any:
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(TikmixError, match=r"the folder .*/b cannot be listed \(Permission denied\)"):
        read(files("web/**/*.jsonl"), tmp_path)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(TikmixError, match=r"pipe.jsonl \(it is no regular file\)"):
        read(files("pipe.jsonl"), tmp_path)


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize("read_as", ["all", "sample"])
@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
def test_a_shard_that_breaks_off_is_refused_or_what_came_before_is_kept(tmp_path: Path, ending: str, read_as: str):
    rows = [{"text": random_text(5000 + row)} for row in range(40)]
    (tmp_path / "web").mkdir()
    for number in range(2):
        part = pd.DataFrame(rows[20 * number : 20 * number + 20])
        path = tmp_path / "web" / f"{number}.{ending}"
        if ending == "parquet":
            part.to_parquet(path, index=False)
        else:
            part.to_json(path, orient="records", lines=True)
    damage(tmp_path / "web" / f"1.{ending}")
    strict = with_web(tmp_path, read=read_as, max_megabytes=1)
    lenient = strict.model_copy(update={"on_unreadable": "skip"})
    with pytest.raises(TikmixError, match=rf"corpus.domains.web: .*1.{ending}.*corpus.on_unreadable to `skip`"):
        read_domain("web", strict.domains["web"], strict, root=tmp_path, downloads=tmp_path)
    sample = read_domain("web", lenient.domains["web"], lenient, root=tmp_path, downloads=tmp_path)
    kept = {document.text for document in sample.documents}
    assert {row["text"] for row in rows[:20]} <= kept < {row["text"] for row in rows}
    assert sample.unreadable == (f"web/1.{ending}",)
    assert 0.3 < sample.lost_share < 0.6


def test_a_link_that_comes_to_lead_somewhere_is_a_change(tmp_path: Path):
    parameters = with_web(shards(tmp_path))
    before = source_signatures(parameters, tmp_path)
    write_jsonl(tmp_path / "elsewhere" / "1.jsonl", [{"text": "there"}])
    assert source_signatures(parameters, tmp_path) != before


def null_texts(path: Path, nulls: int, rows: int) -> list[str | None]:
    texts = [None if row < nulls else random_text(5000 + row) for row in range(rows)]
    if path.suffix == ".parquet":
        pd.DataFrame({"text": texts}).to_parquet(path, index=False)
    else:
        write_jsonl(path, [{"text": text} for text in texts])
    return texts


@pytest.mark.parametrize("read_as", ["all", "sample"])
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_records_whose_text_is_null_are_left_out_and_counted(tmp_path: Path, ending: str, read_as: str):
    (tmp_path / "web").mkdir()
    texts = null_texts(tmp_path / "web" / f"a.{ending}", 9, 80)
    parameters = with_web(tmp_path, read=read_as, max_megabytes=1)
    prepared = prepare_text(parameters, root=tmp_path, downloads=tmp_path)
    kept = [text for split in prepared.documents["web"].values() for text in split]
    assert sorted(kept) == sorted(filter(None, texts))
    assert prepared.sources.domains["web"].null_texts == 9
    assert "null_texts" not in prepared.sources.domains["prose"].model_dump()


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_more_nulls_than_a_share_are_refused(tmp_path: Path, ending: str):
    (tmp_path / "web").mkdir()
    null_texts(tmp_path / "web" / f"a.{ending}", 17, 80)
    message = r"corpus.domains.web: the text of 17 of 80 records .* is null, more than corpus.max_null_share = 0.2"
    with pytest.raises(TikmixError, match=message):
        prepare_text(with_web(tmp_path), root=tmp_path, downloads=tmp_path)
    prepared = prepare_text(with_web(tmp_path, max_null_share=0.3), root=tmp_path, downloads=tmp_path)
    assert prepared.sources.domains["web"].null_texts == 17


def test_a_shard_of_nulls_alone_counts_as_its_records(tmp_path: Path):
    pd.DataFrame({"text": ["one"] * 3}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"text": [None] * 2}).to_parquet(tmp_path / "b.parquet")
    reading = Reading()
    assert list(read_source(files("*"), root=tmp_path, downloads=tmp_path, reading=reading)) == ["one"] * 3
    assert (reading.records, reading.nulls) == (5, 2)


def test_a_source_of_nulls_alone_says_so(tmp_path: Path):
    write_jsonl(tmp_path / "a.jsonl", [{"text": None}] * 3)
    with pytest.raises(TikmixError, match=r"holds no text. The text of 3 records is null: check the source's `field`"):
        read(files("a.jsonl"), tmp_path)


def test_of_a_sample_the_share_of_nulls_may_be_larger_by_chance():
    for nulls, is_refused in ((0, False), (9, False), (20, True)):
        reading = Reading(records=100, nulls=nulls)
        if is_refused:
            with pytest.raises(TikmixError, match=r"more than corpus.max_null_share"):
                reading.finish(max_null_share=0.05, is_sample=True)
        else:
            reading.finish(max_null_share=0.05, is_sample=True)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("~/text/*.jsonl", "`~` stands for no folder here"),
        ("https://host.example/a.jsonl", "copy it here"),
        ("$HOME/a.jsonl", r"as \$\{oc.env:NAME\}"),
        ("{a,b}.jsonl", "a source of each alternative"),
        (r"text\a.jsonl", "parted by `/`"),
    ],
)
def test_a_path_that_no_file_can_have_is_told_why(tmp_path: Path, path: str, hint: str) -> None:
    with pytest.raises(TikmixError, match=f"no file matches .*{hint}"):
        matching_files(path, tmp_path)


def test_folders_that_a_pattern_names_beside_files_are_not_passed_over(tmp_path: Path):
    write_jsonl(tmp_path / "x" / "a.jsonl", [{"text": "one"}])
    write_jsonl(tmp_path / "x" / "b.jsonl" / "part-0.jsonl", [{"text": "two"}])
    with pytest.raises(TikmixError, match=r"names folders beside files.*x/b.jsonl"):
        matching_files("x/*.jsonl", tmp_path)
    assert read(files("x/**/*.jsonl"), tmp_path) == ["one", "two"]


def test_a_folder_without_files_is_in_nobodys_way(tmp_path: Path):
    write_jsonl(tmp_path / "x" / "a.jsonl", [{"text": "one"}])
    (tmp_path / "x" / "empty").mkdir()
    write_jsonl(tmp_path / "x" / "marked" / ".hidden", [])
    assert read(files("x/*"), tmp_path) == ["one"]


def test_two_stars_within_a_name_are_refused_since_they_would_be_one(tmp_path: Path):
    write_jsonl(tmp_path / "x" / "a.jsonl", [{"text": "one"}])
    with pytest.raises(TikmixError, match=r"'x/\*\*.jsonl': `\*\*` stands for any folders only where it is alone"):
        matching_files("x/**.jsonl", tmp_path)
    write_jsonl(tmp_path / "x" / "**.jsonl", [{"text": "two"}])
    assert read(files("x/**.jsonl"), tmp_path) == ["two"]


def test_a_name_in_another_unicode_form_is_told(tmp_path: Path):
    write_jsonl(tmp_path / "donne\u0301es" / "a.jsonl", [{"text": "one"}])
    with pytest.raises(TikmixError, match="another Unicode form"):
        matching_files("donn\u00e9es/*.jsonl", tmp_path)


def test_a_name_that_is_no_utf_8_is_shown_and_refused(tmp_path: Path):
    write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}])
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl")).write_text("{}")
    with pytest.raises(TikmixError, match=r"caf\\xe9.jsonl \(its name is no UTF-8: rename it\)"):
        read(files("*.jsonl"), tmp_path)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_compressed_file_of_no_bytes_is_no_empty_file(tmp_path: Path, ending: str):
    write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}])
    (tmp_path / f"b.jsonl{ending}").touch()
    with pytest.raises(TikmixError, match=rf"b.jsonl{ending} \(it is of no bytes"):
        read(files("*"), tmp_path)
