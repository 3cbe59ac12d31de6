"""A prediction beside what came: what is held against what, and what is said of it."""

from types import SimpleNamespace

from tikmix_pipeline.influence.prediction_score import PredictedGain, score_lines, score_prediction

SAME = {"a": 0.5, "b": 0.5}


def measured(losses, tokens):
    return SimpleNamespace(task_loss=losses, task_tokens=tokens)


def scored(gains, trained=SAME, after_tokens=None):
    tokens = {"quiz": 100, "riddle": 50}
    before = measured({"quiz": 3.0, "riddle": 2.0}, tokens)
    after = measured({"quiz": 2.9, "riddle": 2.1}, after_tokens or tokens)
    return score_prediction(4, gains, SAME, trained, before, after)


def gain(nats, stderr=0.1):
    return PredictedGain(gain=0.5, stderr=stderr, nats=nats)


def test_a_gain_is_spoken_against_where_it_is_above_the_fall_by_more_than_two_errors():
    for nats, stderr, against in ((0.2, 0.1, True), (0.2, 0.2, False), (0.05, 0.0, False), (None, 0.1, False)):
        score = scored({"quiz": gain(nats, stderr)})
        assert abs(score.tasks["quiz"].fall - 0.1) < 1e-12
        assert score.tasks["quiz"].is_against is against
    assert "which speaks against the gain" in "\n".join(score_lines(scored({"quiz": gain(0.2)})))


def test_other_items_and_another_mixture_are_said_and_not_scored_as_if_they_were_the_same():
    score = scored({"quiz": gain(0.1), "riddle": gain(0.1), "gone": gain(0.1)}, {"a": 0.6, "b": 0.4}, {"quiz": 100})
    assert list(score.tasks) == ["quiz"]
    assert abs(score.elsewhere - 0.1) < 1e-12
    said = "\n".join(score.notes)
    assert "10.0% of its tokens went elsewhere" in said
    assert all(f"'{task}' was measured on other items" in said for task in ("riddle", "gone"))
    assert "confirms no gain" in said
