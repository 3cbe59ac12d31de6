import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tikmix_pipeline.corpus.shards import TokenShards, chunks_of_ids
from tikmix_pipeline.corpus.tasks import HALVES, TaskItems
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.known_ids import require_known_ids


def largest_of_domains(shards: TokenShards) -> int:
    files = [
        file.file for splits in shards.manifest.domains.values() for split in splits.values() for file in split.files
    ]
    return max(int(ids.max()) for file in files for ids in chunks_of_ids(shards.folder / file, shards.manifest.dtype))


def largest_of_tasks(shards: TokenShards) -> int:
    items = TaskItems.open(shards.tasks_file)
    every = [item for task in items.tasks for half in HALVES for item in items.items(task, half)]
    return max(max(map(max, (item.question_ids, item.answer_ids, *item.option_ids))) for item in every)


def test_ids_that_the_tokenizer_has_and_no_text_uses_need_no_row_of_the_embedding(token_shards, tmp_path):
    used = 1 + max(largest_of_domains(token_shards), largest_of_tasks(token_shards))
    require_known_ids(token_shards, used, tmp_path)
    with pytest.raises(
        TikmixError, match=rf"uses the token id {used - 1}, but the model in {tmp_path} knows {used - 1}"
    ):
        require_known_ids(token_shards, used - 1, tmp_path)


def test_an_id_of_one_task_alone_is_found_by_name(token_shards, tmp_path):
    folder = shutil.copytree(token_shards.folder, tmp_path / "corpus")
    known = token_shards.vocabulary_size
    rows = pq.read_table(folder / "tasks.parquet")
    answers = rows["answer_ids"].to_pylist()
    answers[-1][0] = known
    position = rows.schema.get_field_index("answer_ids")
    column = rows.schema.field("answer_ids").type
    pq.write_table(rows.set_column(position, "answer_ids", pa.array(answers, column)), folder / "tasks.parquet")
    (folder / "manifest.json").write_text(
        (folder / "manifest.json").read_text().replace(f'"vocabulary_size": {known}', f'"vocabulary_size": {known + 1}')
    )
    shards = TokenShards.open(folder, verify=False)
    task = rows["task"].to_pylist()[-1]
    with pytest.raises(TikmixError, match=rf"corpus\.tasks\.{task} uses the token id {known}, but the model"):
        require_known_ids(shards, known, tmp_path)
    require_known_ids(shards, known + 1, tmp_path)
