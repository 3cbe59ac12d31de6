import gzip
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import zstandard
from archive_examples import write_debian_package, write_tarball
from corpus_examples import corpus_in, debian_source, npm_source, package_source, write_jsonl, write_wheel

from tikmix_pipeline.corpus.sources import read_records, read_source, source_signatures
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.corpus import FilesSource, HuggingFaceSource, ShardsSource, StandardLibrarySource

TEXTS = ["one", "zwei ü", "three"]
ROWS: list[dict[str, Any]] = [{"id": row, "text": text} for row, text in enumerate(TEXTS)]


def files(path: str, **changes: Any) -> FilesSource:
    return FilesSource.model_validate({"kind": "files", "path": path, **changes})


def read(source: Any, root: Path) -> list[str]:
    return list(read_source(source, root=root, downloads=root / "downloads"))


def records(source: Any, root: Path) -> list[Any]:
    return [record for _, record in read_records([source], root=root, downloads=root / "downloads")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same three documents in every format."""
    plain = write_jsonl(tmp_path / "rows.jsonl", ROWS).read_bytes()
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(plain))
    (tmp_path / "rows.jsonl.zst").write_bytes(zstandard.compress(plain))
    pd.DataFrame(ROWS).to_parquet(tmp_path / "rows.parquet", index=False)
    for number, text in enumerate(TEXTS):
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("path", ["rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst", "rows.parquet", "*.txt"])
def test_every_format_gives_the_same_documents(folder: Path, path: str):
    assert read(files(path), folder) == TEXTS


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl.zst"])
def test_endings_may_be_upper_case(folder: Path, name: str):
    (folder / name).rename(folder / name.upper())
    assert read(files(name.upper()), folder) == TEXTS


def test_the_root_is_no_part_of_the_glob(tmp_path: Path):
    root = tmp_path / "run [1]*"
    write_jsonl(root / "rows.jsonl", ROWS)
    assert read(files("*.jsonl"), root) == TEXTS


@pytest.mark.parametrize("path", ["rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst", "rows.parquet"])
def test_records_come_with_all_their_fields(folder: Path, path: str):
    assert records(files(path), folder) == ROWS


@pytest.mark.parametrize("path", ["*.txt", "rows.jsonl", "rows.parquet"])
def test_plain_texts_are_records_of_a_task(folder: Path, path: str):
    assert [record["text"] for record in records(files(path), folder)] == TEXTS
    rows = [{"body": text} for text in TEXTS]
    write_jsonl(folder / "body.jsonl", rows)
    assert records(files("body.jsonl", field="body"), folder) == [{"body": text, "text": text} for text in TEXTS]


def test_a_glob_reads_files_in_the_order_of_their_names(tmp_path: Path):
    write_jsonl(tmp_path / "b" / "2.jsonl", [{"text": "second"}])
    write_jsonl(tmp_path / "a" / "deep" / "1.jsonl", [{"text": "first"}])
    assert read(files("**/*.jsonl"), tmp_path) == ["first", "second"]


def test_an_absolute_path_needs_no_root(folder: Path):
    assert read(files(str(folder / "rows.jsonl")), Path("/nowhere")) == TEXTS


def test_the_format_may_be_told_where_the_ending_does_not(folder: Path):
    (folder / "rows.jsonl").rename(folder / "rows.data")
    assert read(files("rows.data", format="jsonl"), folder) == TEXTS
    with pytest.raises(TikmixError, match=r"rows.data: its ending tells no format .*Set the source's `format`"):
        read(files("rows.data"), folder)


def test_documents_of_white_space_alone_are_left_out(tmp_path: Path):
    write_jsonl(tmp_path / "rows.jsonl", [{"text": ""}, {"text": " \n"}, {"text": "x"}])
    assert read(files("rows.jsonl"), tmp_path) == ["x"]


def test_a_path_without_files_is_refused(tmp_path: Path):
    with pytest.raises(TikmixError, match=r"no file matches 'web/\*\*/\*.jsonl' in "):
        read(files("web/**/*.jsonl"), tmp_path)


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.txt"])
def test_a_source_without_text_is_refused(tmp_path: Path, name: str):
    (tmp_path / name).write_text("\n")
    with pytest.raises(TikmixError, match=f"'{name}' holds no text"):
        read(files(name), tmp_path)


def test_a_task_source_without_records_is_refused(tmp_path: Path):
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(TikmixError, match=r"'empty.jsonl' holds no records"):
        records(files("empty.jsonl"), tmp_path)


@pytest.mark.parametrize("path", ["rows.jsonl", "rows.parquet"])
def test_a_missing_field_names_those_that_exist(folder: Path, path: str):
    with pytest.raises(TikmixError, match=r"rows.*no field 'txt'. Did you mean 'text'\? The names are 'id', 'text'."):
        read(files(path, field="txt"), folder)


def test_text_that_is_not_utf8_is_refused_by_file_and_byte(tmp_path: Path):
    (tmp_path / "latin.txt").write_bytes(b"line\n" * 3 + b"caf\xe9")
    with pytest.raises(TikmixError, match=r"latin.txt is not UTF-8: byte 18 is 0xe9"):
        read(files("latin.txt"), tmp_path)


def test_jsonl_that_is_not_utf8_is_refused_by_file_line_and_byte(tmp_path: Path):
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xe9"}\n')
    with pytest.raises(TikmixError, match=r"latin.jsonl, line 2 is not UTF-8: byte 24 "):
        read(files("latin.jsonl"), tmp_path)


def test_broken_json_is_refused_by_file_and_line(tmp_path: Path):
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(TikmixError, match=r"bad.jsonl, line 2 is not valid JSON"):
        read(files("bad.jsonl"), tmp_path)


@pytest.mark.parametrize("path", ["rows.jsonl.gz", "rows.jsonl.zst"])
@pytest.mark.parametrize("damage", ["cut off", "not compressed"])
def test_a_damaged_compressed_file_is_refused(folder: Path, path: str, damage: str):
    data = (folder / path).read_bytes()
    (folder / path).write_bytes(data[:-6] if damage == "cut off" else b"plain text, not compressed at all")
    remedy = "Copy or download it again" if damage == "cut off" else "does not begin as"
    with pytest.raises(TikmixError, match=f"{path} cannot be read to its end .*{remedy}"):
        read(files(path), folder)


def test_a_truncated_parquet_file_is_refused(folder: Path):
    data = (folder / "rows.parquet").read_bytes()
    (folder / "rows.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(TikmixError, match=r"rows.parquet is no complete Parquet file"):
        read(files("rows.parquet"), folder)


def test_a_package_is_read_from_the_archive(tmp_path: Path):
    wheel = tmp_path / "downloads" / "tiny_text-1.0-py3-none-any.whl"
    sha256 = write_wheel(wheel, {"tiny/a.txt": b"alpha", "tiny/b.txt": b"beta", "tiny/q.jsonl": b'{"question": "?"}\n'})
    assert read(package_source(sha256), tmp_path) == ["alpha\n", "beta\n"]
    assert records(package_source(sha256, members="*.jsonl"), tmp_path) == [{"question": "?"}]
    assert not (tmp_path / "tiny").exists()


def test_npm_and_debian_packages_are_read_like_wheels(tmp_path: Path):
    members = {"b.txt": b"beta", "a.txt": b"alpha", "deep/c.txt": b"gamma", "rows.jsonl": b'{"question": "?"}\n'}
    tarball, debian_package = (
        {f"{root}/{name}": content for name, content in members.items()} for root in ("package", "./usr")
    )
    downloads = tmp_path / "downloads"
    npm = npm_source(write_tarball(downloads / "tiny-text-1.0.0.tgz", tarball), exclude=["*/deep/*"])
    debian = debian_source(write_debian_package(downloads / "tiny-text_1%3a1.0-2_all.deb", debian_package))
    assert read(npm, tmp_path) == ["alpha\n", "beta\n"]
    assert read(debian, tmp_path) == ["alpha\n", "beta\n", "gamma\n"]
    for source in (npm, debian):
        assert records(source.model_copy(update={"members": "*.jsonl"}), tmp_path) == [{"question": "?"}]


def test_an_archive_without_text_is_told_by_package_version_and_members(tmp_path: Path):
    sha256 = write_tarball(tmp_path / "downloads" / "tiny-text-1.0.0.tgz", {"package/a.txt": b"\n"})
    with pytest.raises(TikmixError, match=r"tiny-text@1\.0\.0!package/\*\.txt holds no text"):
        read(npm_source(sha256), tmp_path)


def test_the_standard_library_gives_its_own_modules_and_no_tests(tmp_path: Path):
    texts = read(StandardLibrarySource(kind="standard_library"), tmp_path)
    assert any("class TarFile" in text for text in texts)
    assert all(len(text) > 500 for text in texts)
    assert not any("import pytest" in text for text in texts)
    with pytest.raises(TikmixError, match="the standard library holds no task records"):
        records(StandardLibrarySource(kind="standard_library"), tmp_path)


@pytest.mark.parametrize("reader", [read, records])
def test_token_shards_are_no_text(tmp_path: Path, reader: Any):
    with pytest.raises(TikmixError, match="holds token ids, where text is needed"):
        reader(ShardsSource(kind="shards", path="x.bin", bytes_per_token=4), tmp_path)


def huggingface(**changes: Any) -> HuggingFaceSource:
    return HuggingFaceSource.model_validate({"kind": "huggingface", "path": "rows", **changes})


@pytest.fixture
def dataset_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "rows").mkdir()
    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "rows" / "train.parquet")
    return tmp_path


@pytest.mark.parametrize("streaming", [True, False])
def test_a_hugging_face_dataset_is_read(dataset_folder: Path, streaming: bool):
    assert read(huggingface(streaming=streaming), dataset_folder) == TEXTS
    assert records(huggingface(streaming=streaming), dataset_folder) == ROWS


@pytest.mark.parametrize("streaming", [True, False])
def test_a_saved_hugging_face_dataset_is_read(dataset_folder: Path, streaming: bool):
    import datasets

    datasets.disable_progress_bars()
    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(str(dataset_folder / "one"))
    datasets.DatasetDict({"train": saved.select([0]), "test": saved}).save_to_disk(str(dataset_folder / "splits"))
    assert read(huggingface(path="one", streaming=streaming), dataset_folder) == TEXTS
    assert records(huggingface(path="splits", split="test", streaming=streaming), dataset_folder) == ROWS
    with pytest.raises(TikmixError, match="splits has no split 'tset'; its splits are train, test"):
        read(huggingface(path="splits", split="tset"), dataset_folder)
    (dataset_folder / "one" / "state.json").write_text("{}")
    with pytest.raises(TikmixError, match=r"datasets.load_from_disk\('one'\) failed"):
        read(huggingface(path="one"), dataset_folder)


@pytest.mark.parametrize("data_files", ["rows.jsonl", ["rows.jsonl"], "*.jsonl", "./ro*.jsonl"])
def test_a_hugging_face_builder_reads_files_under_the_root_wherever_it_is_called(
    dataset_folder: Path, data_files: Any, monkeypatch: pytest.MonkeyPatch
):
    write_jsonl(dataset_folder / "rows.jsonl", ROWS)
    monkeypatch.chdir(dataset_folder / "rows")
    assert read(huggingface(path="json", data_files=data_files), dataset_folder) == TEXTS


def test_a_hugging_face_dataset_without_the_field_names_those_it_has(dataset_folder: Path):
    with pytest.raises(TikmixError, match=r"rows, row 0: there is no field 'body'. The names are 'id', 'text'"):
        read(huggingface(field="body"), dataset_folder)


def test_a_hugging_face_dataset_that_cannot_be_loaded_is_refused(dataset_folder: Path):
    with pytest.raises(TikmixError, match=r"datasets.load_dataset\('rows', split='nosuch'\) failed: ValueError"):
        read(huggingface(split="nosuch"), dataset_folder)


def test_a_missing_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TikmixError, match=r"needs the library `datasets`: run `pip install -e \"\.\[hf\]\"`"):
        read(huggingface(), tmp_path)


def test_signatures_change_with_the_files_alone(tmp_path: Path):
    parameters = corpus_in(tmp_path)
    before = source_signatures(parameters, tmp_path)
    assert set(before) == {"prose.jsonl", "verse.jsonl", "quiz.jsonl"}
    assert source_signatures(parameters, tmp_path) == before
    write_jsonl(tmp_path / "prose.jsonl", ROWS)
    after = source_signatures(parameters, tmp_path)
    assert [path for path in before if before[path] != after[path]] == ["prose.jsonl"]


def test_signatures_watch_the_local_files_of_hugging_face_sources(tmp_path: Path):
    write_jsonl(tmp_path / "rows" / "deep" / "a.jsonl", ROWS)
    write_jsonl(tmp_path / "more" / "b.jsonl", ROWS)
    sources = [
        {"kind": "huggingface", "path": "rows"},
        {"kind": "huggingface", "path": "json", "data_files": ["more/*.jsonl", "https://elsewhere/c.jsonl"]},
        {"kind": "huggingface", "path": "org/web", "name": "sample", "revision": "abc"},
    ]
    parameters = corpus_in(tmp_path, domains={"web": {"sources": sources}})
    before = source_signatures(parameters, tmp_path)
    assert before["huggingface org/web sample abc"] == {"path": "org/web", "name": "sample", "revision": "abc"}
    write_jsonl(tmp_path / "rows" / "deep" / "a.jsonl", ROWS[:1])
    write_jsonl(tmp_path / "more" / "b.jsonl", ROWS[:2])
    after = source_signatures(parameters, tmp_path)
    assert [name for name in before if before[name] != after[name]] == ["rows", "more/*.jsonl"]


@pytest.mark.parametrize(("file", "parameter"), [("verse", "corpus.domains.verse"), ("quiz", "corpus.tasks.quiz")])
def test_a_missing_file_is_reported_with_its_domain_or_task(tmp_path: Path, file: str, parameter: str):
    parameters = corpus_in(tmp_path)
    (tmp_path / f"{file}.jsonl").unlink()
    with pytest.raises(TikmixError, match=rf"{parameter}: no file matches '{file}.jsonl'"):
        source_signatures(parameters, tmp_path)
