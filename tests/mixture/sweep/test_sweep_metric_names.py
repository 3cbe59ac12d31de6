import pytest

from tikmix_pipeline.mixture.sweep.metric_names import is_no_metric, is_the_better_the_higher

OF_TRAINING = """
    global_step trainer/global_step n_tokens num_tokens tokens_seen n_steps max_steps num_params random_seed rng
    grad_norm max_grad_norm loss_scale mfu tokens_per_second steps_per_sec train_tokens_per_second wall_clock
    _wandb.runtime _runtime _step eval_runtime eval_samples_per_second n_samples num_fewshot shots limit job_id
    slurm_job_id num_gpus gpu_memory_gb d_model n_layers num_items ckpt checkpoint temperature lr weight_decay
    micro_batch_size total_flos seed_1 id time_s
"""
OF_SPREAD = "qa_acc_stderr acc_stderr,none loss_std std_loss acc_ci loss_var acc_se std"
OF_METRICS = """
    eval/loss qa_acc val_loss_code mmlu_stem arc_challenge_acc_norm step_accuracy global_mmlu_acc train_data_code_loss
    total_loss loss_per_token bits_per_byte n_correct n_gram_loss numglue mmlu_se mmlu_id mean average val_data eval
    boolq arc_c math.500 date_understanding temporal_sequences code web
"""
OF_SCORES = """
    win_rate winrate alpaca_eval_win_rate reward reward/mean score loglikelihood logprob log_prob log_likelihood
    arc_loglikelihood mmlu_logprob sst_negative_acc negative_loss
"""
OF_LOSSES = """
    neg_acc negative_acc mmlu_neg_acc minus_acc neg_log_likelihood eval/negative_log_likelihood nll reward_loss
    error_rate sst_negative
"""


@pytest.mark.parametrize("name", [*OF_TRAINING.split(), *OF_SPREAD.split()])
def test_what_tells_of_training_counts_or_is_a_spread_is_no_metric(name):
    assert is_no_metric(name)


@pytest.mark.parametrize("name", OF_METRICS.split())
def test_a_word_that_is_known_of_neither_makes_a_metric(name):
    assert not is_no_metric(name)


@pytest.mark.parametrize("name", OF_SCORES.split())
def test_scores_likelihoods_and_rewards_are_the_better_the_higher(name):
    assert is_the_better_the_higher(name)


@pytest.mark.parametrize("name", OF_LOSSES.split())
def test_losses_and_negative_scores_are_the_better_the_lower(name):
    assert not is_the_better_the_higher(name)
