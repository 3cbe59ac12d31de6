"""ms-swift's own trainer on an exported mixture; runs in the environment of requirements-ms-swift.txt.

    python ms_swift_run.py training.yaml settings.json

The training file is one that `swift pt` takes. Tokens are counted where the Trainer of transformers hands them to the
model, without the padding. Writes `result.json`: tokens by domain.
"""

import json
import sys
from pathlib import Path

import numpy as np
import transformers
import yaml
from counted_text import domains_of, make_model
from swift.cli.main import parse_yaml_args
from swift.pipelines import pretrain_main


def main() -> None:
    """Train, count, and write what was found."""
    settings = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    first_ids = np.array(settings["first_ids"])
    counts_K = np.zeros(len(first_ids), dtype=np.int64)
    training_step = transformers.Trainer.training_step

    def counting(self, model, inputs, *arguments, **options):
        ids_BS, is_read_BS = inputs["input_ids"].cpu().numpy(), inputs["attention_mask"].cpu().numpy().astype(bool)
        for ids_S, is_read_S in zip(ids_BS, is_read_BS, strict=True):
            counts_K[:] += np.bincount(domains_of(ids_S[is_read_S], first_ids), minlength=len(first_ids))
        return training_step(self, model, inputs, *arguments, **options)

    transformers.Trainer.training_step = counting
    training = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if not Path(training["model"]).exists():
        make_model(training["model"], training["max_length"])
    words = [sys.argv[1]]
    parse_yaml_args(words)
    pretrain_main(words)
    (Path(settings["folder"]) / "result.json").write_text(json.dumps({"counted": counts_K.tolist()}), encoding="utf-8")


if __name__ == "__main__":
    main()
