import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report_examples import cells, domain, large_report, task, team_report

from tikmix_pipeline.report.page import (
    BandedDrawing,
    gain_drawing,
    influence_table,
    mixture_drawing,
    render_report,
    supply_drawing,
)
from tikmix_pipeline.report.remix_report import Cell, Cost, ExportRow, Reading

_VOID = {"br", "meta", "path", "use"}
HOSTILE = "<b>&\"'{{ 7 * 7 }}</script>"


class Page(HTMLParser):
    """Reads a page: refuses unbalanced tags, and keeps elements, attributes and text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.attributes, self.words, self.ids, self.charts = [], [], [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs
        if tag == "svg" and "svg" not in self.open:
            self.charts.append(dict(attrs))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in _VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).replace("\u00a0", " ").split())


def edge_cases():
    two = (domain("a", 0.5, 0.5), domain("b", 0.5, 0.5))
    unknown = (task("t", math.nan, math.nan, unconstrained_gain=math.nan, rank_stability=math.nan),)
    nothing = {"notes": (), "constraints": (), "exports": (), "unconstrained_differs": False}
    return {
        "team": team_report(),
        "large": large_report(),
        "bare": team_report(
            domains=two,
            tasks=(task("t", 0.0, None, best_domains=(), worst_domains=(), rank_stability=None),),
            effects=(),
            deciding=(),
            rank_stability=None,
            cost=Cost(0, 0, 1.0),
            **nothing,
        ),
        "unknown": team_report(
            domains=(
                replace(two[0], available_tokens=math.nan, epochs=math.nan),
                replace(two[1], available_tokens=math.inf, epochs=0.0, unconstrained=None),
            ),
            tasks=unknown,
            effects=(Cell("t", "a", math.nan, math.nan), Cell("t", "b", 1.0, math.nan)),
            deciding=(),
            rank_stability=math.nan,
            cost=Cost(math.nan, math.nan, math.nan),
        ),
    }


@pytest.fixture(scope="module", params=edge_cases())
def page(request):
    return Page(render_report(edge_cases()[request.param]))


def test_tags_balance_and_nothing_reads_as_a_missing_value(page):
    assert not re.search(r"\b(nan|NaN|None|inf|Undefined)\b", page.text)
    values = " ".join(value or "" for _, value in page.attributes)
    assert not re.search(r"\b(nan|None|inf)\b|nan%|inf%", values)


def test_it_needs_nothing_but_itself(page):
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(page.elements)
    targets = [value for name, value in page.attributes if name in {"src", "href", "xlink:href", "srcset", "action"}]
    assert all(target.startswith("#") for target in targets)
    assert not any(name.startswith("on") for name, _ in page.attributes)


def test_its_style_loads_nothing():
    style = re.search(r"<style>(.*)</style>", render_report(team_report()), re.DOTALL).group(1)
    assert not re.search(r"url\(|@import|@font-face|http", style)


def test_every_chart_is_described_or_decoration(page):
    """Whose bands are shown says nothing by itself."""
    assert page.charts
    assert all(chart.get("aria-label") or chart.get("aria-hidden") == "true" for chart in page.charts)


def test_everything_that_was_measured_appears():
    report = team_report()
    text = Page(render_report(report)).text
    names = [row.name for row in (*report.domains, *report.tasks)]
    files = [file for export in report.exports for file in export.files]
    switches = [export.switch for export in report.exports]
    held = [row.held_by for row in (*report.domains, *report.tasks)]
    facts = [report.experiment, report.checkpoint, report.model, report.curvature, report.strategy, report.version]
    for expected in (*names, *files, *switches, *held, *facts, *report.constraints, *report.notes):
        assert expected in text
    for figure in ("13.0 %", "+5.0", "0.012 ± 0.004", "1.3 B parameters", "6.8 × 10¹⁷", "0.9 %"):
        assert figure in text
    assert "not distinguishable from zero" in text
    assert "The error is not known for piqa." in text
    assert text.count("?") > 1


def test_names_are_text_and_never_markup():
    domains = (domain(HOSTILE, 0.5, 0.4, held_by=HOSTILE), domain("b", 0.5, 0.6))
    tasks = (task(HOSTILE, best_domains=(HOSTILE,), held_by=HOSTILE),)
    report = team_report(
        domains=domains,
        tasks=tasks,
        effects=cells(tasks, domains),
        deciding=(),
        experiment=HOSTILE,
        notes=(HOSTILE,),
        constraints=(HOSTILE,),
        exports=(ExportRow(HOSTILE, (HOSTILE,), HOSTILE, (HOSTILE,)),),
    )
    html = render_report(report)
    page = Page(html)
    assert "b" not in page.elements
    assert "script" not in page.elements
    assert page.text.count(HOSTILE) > 12
    assert f"{HOSTILE}: current 50.0\u00a0%" in " ".join(value or "" for _, value in page.attributes)


def test_without_clashing_constraints_no_unconstrained_mixture_is_shown():
    text = Page(render_report(team_report(unconstrained_differs=False))).text
    assert "without constraints" not in text.lower()
    assert "The constraints cost nothing here" in text


def test_every_row_shows_its_own_band_of_a_drawing_that_is_in_the_page_once():
    report = team_report()
    page = Page(render_report(report))
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value for name, value in page.attributes if name.endswith("href")} <= {f"#{one}" for one in ids}
    windows = [chart["viewbox"] for chart in page.charts if "viewbox" in chart]
    assert len(windows) == 2 * len(report.domains) + len(report.tasks) + 1
    gains = windows[len(report.domains) :][: len(report.tasks) + 1]
    assert [float(window.split()[1]) / float(window.split()[3]) for window in gains] == list(range(len(gains)))


def test_drawings_take_their_colours_from_the_page():
    html = render_report(team_report())
    assert "var(--recommended)" in html
    assert not re.search(r"#[0-9a-f]{6}", html.partition("</style>")[2])


def test_the_heaviest_domain_and_the_domain_nearest_to_its_limit_come_first():
    domains = (
        domain("far", 0.5, 0.2, epochs=1.0),
        domain("near", 0.1, 0.5, epochs=3.9),
        domain("roomy", 0.4, 0.3, epochs=4.0, max_epochs=40.0),
    )
    page = Page(render_report(team_report(domains=domains, effects=(), deciding=())))
    labels = [chart["aria-label"].partition(":")[0] for chart in page.charts if "aria-label" in chart]
    assert labels[:3] == ["near", "roomy", "far"]
    assert labels[-3:] == ["near", "far", "roomy"]


def test_where_the_end_of_the_run_is_known_what_would_be_read_by_then_is_told_and_counts():
    domains = (domain("now", epochs=2.0, final_epochs=2.5), domain("later", epochs=1.0, final_epochs=3.99))
    plain = team_report(domains=domains, effects=(), deciding=())
    text = Page(render_report(replace(plain, remaining_tokens=50_000_000_000))).text
    assert "were the recommended mixture kept for the 50 B tokens that remain" in text
    assert "By the run's end" in text
    left = text[text.index("Left") :]
    assert left.index("later") < left.index("now")
    assert "By the run's end" not in Page(render_report(plain)).text


def test_what_binds_is_listed_domains_first():
    text = Page(render_report(team_report())).text
    places = [
        text.index(f"The {kind} {name}:")
        for kind, name in (("domain", "web"), ("domain", "math"), ("task", "hellaswag"))
    ]
    assert places == sorted(places)


def test_a_gain_without_error_says_so():
    tasks = (task("a"), task("b", 0.01, None), task("c", math.nan, math.nan))
    text = Page(render_report(team_report(tasks=tasks))).text
    assert "b 0.010 0.010 gains; its error is not known" in text
    assert "c not known not known not known; its error is not known" in text


def test_small_gains_share_a_power_of_ten():
    text = Page(render_report(team_report(tasks=(task("a", 1.2e-5, 4e-6), task("b", 1e-6, 2e-6))))).text
    assert "× 10⁻⁶ nats per token" in text
    assert "12 ± 4" in text
    assert "1 ± 2" in text


def test_the_same_report_gives_the_same_page_whatever_was_rendered_before():
    first = render_report(team_report())
    render_report(large_report())
    assert render_report(team_report()) == first


def test_fifty_domains_and_twenty_tasks_are_all_there():
    text = render_report(large_report())
    assert all(f"domain-{k:02d}" in text for k in range(50))
    assert text.count(" on benchmark-") == 2 * 50 * 20, "what decided, and what was measured"


def test_influence_is_scaled_by_task_and_marked_where_unclear():
    cells = [
        Cell("t", "a", 4e-9, 1e-9),
        Cell("t", "b", -2e-9, 1.48e-9),
        Cell("u", "a", -5.0, None),
        Cell("u", "b", math.nan, None),
    ]
    chart = influence_table(cells, ["t", "u"], ["a", "b"])
    (_, (first, second)), (_, (third, fourth)) = chart.rows
    assert [square.text for square in (first, second, third, fourth)] == ["+100", "−100", "−50\u00a0?", "·"]
    assert [square.shade for square in (first, second, third, fourth)] == [1, -1, 0, 0]
    assert [square.error for square in (first, second, third, fourth)] == ["± 25", "", "± 37", ""]
    assert chart.without_error == 1
    assert "4.0 ± 1.0 × 10^-9" in first.described.replace("\u00a0", " ")
    assert fourth.described == "b on u: not measured"


def test_without_influence_there_is_no_table():
    assert influence_table([Cell("t", "a", math.nan, None)], ["t"], ["a"]) is None
    assert influence_table([Cell("other", "a", 1.0, None)], ["t"], ["a"]) is None
    assert influence_table([Cell("t", "a", 0.0, 0.0)], ["t"], ["a"]).rows[0][1][0].text == "0"


def bars(drawing: BandedDrawing, colour: str) -> list[tuple[int, float, float]]:
    """Return the band, left and right of each bar of a colour of the page."""
    found = []
    for path in re.findall(rf'<path d="([^"]*)" style="fill: var\(--{colour}\)', drawing.svg):
        x, y = zip(*re.findall(r"([\d.]+) ([\d.]+)", path), strict=True)
        found.append((int(float(y[0]) // drawing.height), min(map(float, x)), max(map(float, x))))
    return found


def marks(drawing: BandedDrawing, face: str) -> list[tuple[int, float]]:
    """Return the band and place of each mark with a face of that colour."""
    found = re.findall(rf'<use [^>]*x="([\d.]+)" y="([\d.]+)" style="fill: var\(--{face}\)', drawing.svg)
    return [(int(float(y) // drawing.height), float(x)) for x, y in found]


def lines(drawing: BandedDrawing) -> list[tuple[float, float]]:
    found = re.findall(r'<path d="M ([\d.]+) [\d.]+ L ([\d.]+) [^"]*" style="fill: none', drawing.svg)
    return [(float(left), float(right)) for left, right in found]


def test_bars_are_proportional_to_weights_and_the_mark_is_at_the_unconstrained_one():
    drawing = mixture_drawing([domain("b", 0.5, 0.8, unconstrained=0.4), domain("a", 0.5, 0.2)], unconstrained=True)
    (_, left, b), (_, _, a) = bars(drawing, "recommended")
    assert (b - left) == pytest.approx(4 * (a - left))
    assert [(band, round((right - left) / (b - left), 4)) for band, left, right in bars(drawing, "current")] == [
        (0, 0.625),
        (1, 0.625),
    ]
    assert marks(drawing, "free")[0] == (0, pytest.approx((left + b) / 2))


def test_unconstrained_weights_are_marked_only_where_they_are_told_and_numbers():
    domains = [domain("a", unconstrained=math.nan), domain("b", unconstrained=None), domain("c", unconstrained=0.4)]
    assert [band for band, _ in marks(mixture_drawing(domains, unconstrained=True), "free")] == [2]
    assert marks(mixture_drawing(domains, unconstrained=False), "free") == []


def test_error_bars_reach_zero_exactly_where_the_reading_turns():
    tasks = [task("clear", 0.009, 0.004), task("unclear", 0.007, 0.004), task("loser", -0.02, 0.004)]
    drawing = gain_drawing(tasks, unconstrained=False)
    zero = drawing.zero * drawing.width
    clear, unclear, loser = lines(drawing)
    assert clear[0] > zero > unclear[0]
    assert loser[1] < zero
    assert [row.reading for row in tasks] == [Reading.GAINS, Reading.UNCLEAR, Reading.LOSES]
    assert [band for band, _ in marks(drawing, "recommended")] == [1, 3], "filled: below the band of labels"
    assert [band for band, _ in marks(drawing, "paper")] == [2], "hollow"


def test_a_gain_without_error_has_no_bar_and_an_unknown_one_no_mark():
    drawing = gain_drawing([task("a"), task("b", 0.01, None), task("c", math.nan, math.nan)], unconstrained=False)
    assert len(lines(drawing)) == 1
    assert [band for band, _ in marks(drawing, "recommended")] == [1, 2]


def test_without_any_gain_the_drawing_has_a_middle():
    drawing = gain_drawing([task("a", 0.0, 0.0)], unconstrained=False)
    assert drawing.zero == 0.5
    assert "gain →" in drawing.svg
    assert "← loss" in drawing.svg


def test_supply_bars_share_what_may_be_read():
    drawing = supply_drawing(
        [domain(available_tokens=100.0, max_epochs=4.0, consumed_tokens=100.0, chunk_tokens=200.0)]
    )
    (_, left, right), (_, _, read), (_, start, end) = (
        bars(drawing, name)[0] for name in ("room", "current", "recommended")
    )
    assert [(place - left) / (right - left) for place in (read, start, end)] == pytest.approx([0.25, 0.25, 0.75])


@pytest.mark.parametrize("available", [100.0, math.nan, math.inf])
def test_bars_of_too_little_or_unknown_text_stay_in_the_drawing(available):
    drawing = supply_drawing([domain(available_tokens=available, consumed_tokens=300, chunk_tokens=150, max_epochs=4)])
    assert "nan" not in drawing.svg
    assert bars(drawing, "recommended")[0][2] <= drawing.width


def test_equal_rows_give_equal_drawings():
    rows = [domain("a"), domain("b", 0.1, 0.2)]
    assert mixture_drawing(rows, unconstrained=True) == mixture_drawing(rows, unconstrained=True)


def test_what_held_out_text_pays_stands_below_the_recommendation() -> None:
    note = "Held-out text is expected to lose 3.0 %; without guardrails it would lose 16.0 %."
    text = Page(render_report(team_report(guardrail_notes=(note,)))).text
    assert text.index(note) < text.index("Tokens that move to other domains")
    assert note not in Page(render_report(team_report())).text


def test_the_decision_goes_before_its_reasons_and_these_before_the_handing_over() -> None:
    text = render_report(team_report())
    heads = re.findall(r"<h2>(.*?)</h2>", text)
    assert heads[:2] == ["The recommended mixture", "What each task is expected to gain"]
    assert heads.index("Why: what more of each domain does for each task") < heads.index("What was measured")
    assert heads[-2:] == ["What to hand to the trainer", "Notes"]


def test_what_decided_stands_before_what_the_round_measured_and_each_is_named() -> None:
    text = render_report(team_report())
    decided, measured = (
        text.index('aria-label="Effects that decided"'),
        text.index("What this round measured by itself"),
    )
    assert text.index("Decided on the mean of the last 4 rounds.") < decided < measured
    alone = render_report(team_report(deciding=()))
    assert "Effects that decided" not in alone
    assert "was decided on more than that: direct optimisation of influence" in alone


def test_what_several_trainers_say_alike_is_said_once_with_their_names() -> None:
    exports = (
        ExportRow("megatron", ("m.txt",), "Relaunch.", ("Starts over.", "Weights of tokens.")),
        ExportRow("olmo_core", ("o.yaml",), "New run.", ("Starts over.",)),
        ExportRow("levanter", ("l.yaml",), "Resume.", ()),
    )
    text = Page(render_report(team_report(exports=exports))).text
    assert text.count("Starts over.") == 1
    assert "megatron and olmo_core: Starts over." in text
    assert text.count("Weights of tokens.") == 1


def test_domains_that_trainers_call_by_their_names_are_named() -> None:
    text = Page(render_report(team_report(without_path=("web", "code")))).text
    assert "called by their names in these files: web and code." in text
    assert "reweight.paths" not in render_report(team_report())


def test_a_domain_that_nearly_vanishes_is_told_below_the_mixture() -> None:
    sentence = "books falls from 10 % to 0.2 %: its own held-out text is expected to lose 0.4 nats per token."
    text = Page(render_report(team_report(falling=(sentence,)))).text
    assert text.index("The recommended mixture") < text.index(sentence) < text.index("expected to gain Right of")
    assert "fall below a tenth" not in Page(render_report(team_report())).text
