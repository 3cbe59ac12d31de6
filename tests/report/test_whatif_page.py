"""The what-if page: what it shows, that nothing in it is anybody's markup, and what it records."""

import re
from dataclasses import replace

import pytest
from browser import needs_chromium, opened, told
from whatif_examples import case, page_of, told_by_branches

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.report.whatif_records import Prediction

HOSTILE = "<b>&\"'{{ 7 * 7 }}</script><!--"


def with_script(page, script):
    """A page that does something once it is loaded, and says what came of it."""
    leave = "document.getElementById('out').textContent = JSON.stringify(result)"
    added = f'<pre id="out"></pre><script>const result = (() => {{{script}}})(); {leave}</script></body>'
    return page.replace("</body>", added)


def renamed(found, **names):
    """The same case with other names of tasks and domains."""
    problem = found.problem

    def new(name):
        return names.get(name, name)

    decision = found.decision
    changed = problem.model_copy(
        update={"domains": [*map(new, problem.domains)], "tasks": [*map(new, problem.tasks)]},
    )
    told_decision = replace(
        decision, domains=tuple(map(new, decision.domains)), tasks=tuple(map(new, decision.tasks)), second_order=None
    )
    record = told_decision.to_record("direct", 3)
    second_order = decision.to_record("direct", 3).second_order
    over = {new(task): gain for task, gain in second_order.gain_over_current.items()}
    second_order = second_order.model_copy(update={"gain_over_current": over})
    return replace(found, problem=changed), record.model_copy(update={"second_order": second_order})


def test_it_asks_for_nothing_from_anywhere():
    page = page_of(case("any", 3))
    assert re.findall(r"https?://[^\"'\s<]+", page) == ["http://www.w3.org/2000/svg"]
    assert "default-src 'none'" in page
    assert not re.search(r"<(link|img|iframe|object|embed)\b|\bsrc=|@import|url\(", page)


def test_a_name_of_a_user_is_text_wherever_it_stands():
    found, decision = renamed(case("any", 3), d1=HOSTILE, t2=HOSTILE)
    page = page_of(found, decision=decision, experiment=HOSTILE, checkpoint=HOSTILE)
    assert HOSTILE not in page
    assert "<b>" not in page
    assert "49" not in re.sub(r"<script.*", "", page, flags=re.DOTALL).replace("149", "")
    assert page.count("</script>") == 2


@pytest.mark.parametrize("missing", ["problem", "second_order", "nothing"])
def test_a_round_that_second_order_did_not_decide_gets_a_page_that_says_so(missing):
    found = case("any", 3)
    if missing == "problem":
        given = {"problem": None}
    elif missing == "second_order":
        given = {"decision": found.decision.to_record("direct", 3).model_copy(update={"second_order": None})}
    else:
        given = {"problem": found.problem.model_copy(update={"nothing": "Domains do not differ."})}
    page = page_of(found, **given)
    assert ("Domains do not differ." if missing == "nothing" else "decisions of second order") in page
    assert "<script" not in page


@needs_chromium
def test_it_opens_at_the_decision_and_shows_every_name_as_it_is(tmp_path):
    found, decision = renamed(case("any", 3), d1=HOSTILE, t2=HOSTILE)
    script = """
      const texts = (selector) => [...document.querySelectorAll(selector)].map((one) => one.textContent);
      const unlabelled = [...document.querySelectorAll("input")].filter((input) => input.labels.length === 0);
      return {
        apart: Number(document.body.dataset.apart), rows: texts("tbody th"), outputs: texts("output"),
        marked: document.querySelectorAll("b").length, unlabelled: unlabelled.length, alert: texts("#alert"),
        spoken: [...document.querySelectorAll("input[type=range]")].every((one) => one.getAttribute("aria-valuetext")),
      };
    """
    page = page_of(found, decision=decision)
    seen = told(opened(with_script(page, script), tmp_path))
    assert seen["apart"] < 1e-3
    assert seen["alert"] == [""]
    assert seen["rows"].count(HOSTILE) == 2
    assert seen["marked"] == seen["unlabelled"] == 0
    assert seen["spoken"]
    assert "1.00 of what the tasks gain" in seen["outputs"]


@needs_chromium
def test_a_moved_slider_moves_the_mixture_a_recorded_prediction_says_which_and_back_is_back(tmp_path):
    found = case("told", 42, measured=told_by_branches(), branches=6)
    script = """
      const records = [];
      window.download = (name, record) => records.push([name, record]);
      const press = (id) => document.getElementById(id).click();
      window.requestAnimationFrame = (action) => action();
      const move = (label, value) => {
        const inputs = [...document.querySelectorAll("input[type=range]")];
        const input = inputs.find((one) => one.labels[0].textContent === label);
        input.value = value;
        input.dispatchEvent(new Event("input"));
      };
      press("record");
      move("t3", 4); move("Most for any one domain", 0.3);
      press("record");
      move("Most for any one domain", 0.1);
      const stuck = [document.getElementById("alert").textContent, document.getElementById("record").disabled];
      press("back"); press("record");
      return { records, stuck };
    """
    seen = told(opened(with_script(page_of(found), script), tmp_path))
    (name, first), (_, moved), (_, again) = [(name, Prediction.from_json(one)) for name, one in seen["records"]]
    assert name == "prediction-team-round-2.json"
    assert seen["stuck"] == ["The domains may have at most 70.0\u00a0% together: let some of them have more.", True]
    assert first.mixture == pytest.approx(found.decision.to_record("direct", 3).weights, abs=1e-3)
    assert moved.settings.task_weights["t3"] == 4
    assert max(moved.mixture.values()) <= 0.3 + 1e-6
    assert sum(moved.mixture.values()) == pytest.approx(1)
    assert moved.gains["t0"].gain != first.gains["t0"].gain
    assert moved.unit == "nats"
    assert moved.gains["t0"].nats == pytest.approx(moved.gains["t0"].gain)
    assert first.mean is not None
    assert (again.mixture, again.settings) == (first.mixture, first.settings)


def test_a_file_that_is_no_prediction_is_refused():
    with pytest.raises(TikmixError, match="no Prediction"):
        Prediction.from_json({"kind": "something else"})
