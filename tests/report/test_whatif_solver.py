"""The what-if page decides as TiKMiX-D does: its solver in a real browser against `mixture.response`."""

import numpy as np
import pytest
from browser import needs_chromium, solved
from whatif_examples import case, cases, spread_of, told_by_branches

from tikmix_pipeline.mixture.response_fit import coordinates

pytestmark = needs_chromium

START = "return data.map((problem) => decide(problem, settingsOf(problem)));"


def distance(found, decision):
    return float(np.abs(np.array(found["w"]) - decision.weights_K).sum() / 2)


@pytest.fixture(scope="module")
def at_start(tmp_path_factory):
    examples = cases()
    problems = [example.problem.to_json() for example in examples]
    found = solved(problems, START, tmp_path_factory.mktemp("start"))
    return list(zip(examples, found, strict=True))


def test_it_starts_where_the_decision_is_whatever_the_problem(at_start):
    assert len({len(example.problem.domains) for example, _ in at_start}) >= 6
    for example, found in at_start:
        assert found is not None, example.name
        assert distance(found, example.decision) < 2e-3, example.name
        assert abs(found["objective"] - example.decision.objective) < 1e-4, example.name


def test_the_problems_are_held_by_every_kind_of_constraint(at_start):
    binding = {one.kind for example, _ in at_start for one in example.decision.binding}
    assert binding == {"lower", "upper", "group_lower", "group_upper", "pareto", "guardrail"}
    assert sum(not example.decision.binding for example, _ in at_start) >= 5


MOVED = {
    "weights of tasks": ({"task_weights": {"t0": 3.0, "t4": 0.0}}, {"task_weights": {"t0": 3.0, "t4": 0.0}}),
    "a tolerance": ({"tolerances": {"heldout": 0.05}}, {"guardrails": {"heldout": {"tolerance": 0.05}}}),
    "a tolerance where own shares count by their logarithm": (
        {"tolerances": {"heldout": 0.05}},
        {"guardrails": {"heldout": {"tolerance": 0.05}}, "heldout_response": "logarithm"},
    ),
    "the pull": ({"entropy": 0.3}, {"entropy": 0.3}),
    "a cap": ({"max_weight": 0.2}, {"max_weight": 0.2}),
    "no Pareto constraint": ({"pareto": False}, {"pareto": False}),
    "bounds": (
        {"bounds": {"d1": {"low": 0.25, "high": 0.3}, "d4": {"low": 0.0, "high": 0.02}}},
        {"bounds": {"d1": {"min": 0.25, "max": 0.3}, "d4": {"max": 0.02}}},
    ),
}


def test_after_a_control_was_moved_it_decides_what_the_pipeline_would_by_that_parameter(tmp_path):
    # a guardrail that holds, and another problem whose tasks hold it
    seeds = [109 if name.startswith("a tolerance") else 101 for name in MOVED]
    starts = [
        case("start", seed, **{key: value for key, value in given.items() if key == "heldout_response"})
        for seed, (_, given) in zip(seeds, MOVED.values(), strict=True)
    ]
    expected = [
        case(name, seed, **given).decision for seed, (name, (_, given)) in zip(seeds, MOVED.items(), strict=True)
    ]
    data = [[one.problem.to_json(), move] for one, (move, _) in zip(starts, MOVED.values(), strict=True)]
    script = """
      const merge = (into, from) => {
        for (const [key, value] of Object.entries(from)) {
          if (typeof value === "object") merge(into[key], value); else into[key] = value;
        }
        return into;
      };
      return data.map(([problem, move]) => decide(problem, merge(settingsOf(problem), move)));
    """
    found = solved(data, script, tmp_path)
    for name, start, decision, one in zip(MOVED, starts, expected, found, strict=True):
        assert distance(one, decision) < 2e-3, name
        assert abs(one["objective"] - decision.objective) < 1e-4, name
        assert np.abs(decision.weights_K - start.decision.weights_K).sum() / 2 > 5e-3, name


def test_where_no_mixture_is_allowed_it_says_so_and_where_one_is_it_finds_it(tmp_path):
    script = """
      const to = (low, high) => {
        const settings = settingsOf(data);
        for (const name of data.domains) Object.assign(settings.bounds[name], { low, high });
        return decide(data, settings);
      };
      return [to(0, 0.1), to(0.2, 1), to(1 / 7, 1 / 7), to(0, 1 / 7)];
    """
    too_little, too_much, *only_even = solved(case("any", 4).problem.to_json(), script, tmp_path)
    assert too_little is None
    assert too_much is None
    for found in only_even:
        assert found["w"] == pytest.approx([1 / 7] * 7, abs=1e-6)


def test_gains_errors_and_the_interval_are_those_of_the_pipeline(tmp_path):
    example = case("told", 42, measured=told_by_branches(), branches=6)
    problem, decision, spread = example.problem, example.decision, spread_of(example)
    data = {"problem": problem.to_json(), "spread": spread.to_json(), "w": decision.weights_K.tolist()}
    script = """
      const { problem, spread, w } = data;
      const targets = targetsOf(problem, settingsOf(problem));
      return {
        gains: problem.contrast_TK.map((row) => gainOver(problem, row, w, problem.prior_K)),
        errors: gainErrors(spread, plus(w, problem.prior_K, -1)),
        mean: meanInNats(problem, targets, w, problem.prior_K),
      };
    """
    found = solved(data, script, tmp_path)
    assert found["gains"] == pytest.approx(decision.expected_gain_T.tolist(), abs=1e-9)
    _, errors = spread.components().combined((decision.weights_K - decision.prior_K)[None])
    assert found["errors"] == pytest.approx(errors[:, 0].tolist())
    mean_K = np.array(problem.contrast_TK).mean(axis=0)
    at = coordinates(mean_K, np.array(problem.curved_KK), decision.weights_K[None], decision.prior_K)
    fitted = told_by_branches().fitted
    assert found["mean"]["nats"] == pytest.approx(float(fitted.mean_gain(*at)[0]))
    assert found["mean"]["half_width"] == pytest.approx(float(fitted.half_width(*at, 0.9)[0]))
