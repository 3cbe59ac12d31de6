from pathlib import Path

import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.sweep.metric_columns import chosen_targets, is_higher_better

FILE = Path("metrics.csv")


@pytest.mark.parametrize(
    ("name", "higher"),
    [
        ("acc", True),
        ("acc@1", True),
        ("acc1", True),
        ("mmlu/acc_norm", True),
        ("f1 (5-shot)", True),
        ("HumanEval pass@10", True),
        ("rouge1", True),
        ("exactMatch", True),
        ("win_rate", True),
        ("lambada logprob", True),
        ("arc_log_likelihood", True),
        ("reward_score", True),
        ("neg_acc", False),
        ("negative_log_prob", False),
        ("neg_loss", True),
        ("negative", False),
        ("acc_loss", False),
        ("bits/byte", False),
        ("mmlu_bpb", False),
        ("the_pile_arxiv_val_loss", False),
        ("qa", False),
        ("recall", False),  # a task, as often as a measure
        ("accounts", False),
    ],
)
def test_the_direction_of_a_metric_is_told_by_its_name(name, higher):
    assert is_higher_better(FILE, [name], "auto")[0] == [higher]


def test_a_direction_is_said_to_be_assumed_unless_it_was_given():
    assert "taken as losses, the better the lower, by their names" in is_higher_better(FILE, ["qa"], "auto")[1]
    assert "by their names" not in is_higher_better(FILE, ["qa"], ["qa"])[1]


@pytest.mark.parametrize(
    "name",
    [
        *("step", "Seed", "train_steps", "wall_time", "total tokens", "learning_rate", "lr", "global_step", "n_tokens"),
        *("trainer/global_step", "tokens_seen", "num_params", "random_seed", "rng", "grad_norm", "loss_scale", "mfu"),
        *("tokens_per_second", "_wandb.runtime", "eval_samples_per_second", "num_fewshot", "shots", "limit", "job_id"),
        *("slurm_job_id", "num_gpus", "d_model", "n_layers", "ckpt", "temperature", "x_acc_stderr", "acc,std"),
    ],
)
def test_what_says_how_a_run_was_trained_is_asked_about(name):
    with pytest.raises(TikmixError, match=r"looks like no metric.*sweep\.table\.targets=qa"):
        chosen_targets(FILE, ["qa", name], None)


@pytest.mark.parametrize("name", ["train_loss", "step_bpb", "time travel", "model_acc", "acc_norm", "global_mmlu"])
def test_a_word_beside_others_makes_a_metric_of_a_column(name):
    assert chosen_targets(FILE, ["qa", name], None) == ["qa", name]


@pytest.mark.parametrize("named", [["qa", "sms"], []])
def test_targets_that_are_no_columns_are_refused(named):
    with pytest.raises(TikmixError, match=r"sweep\.table\.targets names .* There are 'qa', 'sums'"):
        chosen_targets(FILE, ["qa", "sums"], named)
    with pytest.raises(TikmixError, match=r"sweep\.table\.higher_is_better names 'sms'"):
        is_higher_better(FILE, ["qa", "sums"], ["qa", "sms"])
