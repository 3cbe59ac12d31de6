import math
import re

import pytest
from report_examples import domain, task

from tikmix_pipeline.report.page_drawings import BandedDrawing, gain_drawing, mixture_drawing, supply_drawing
from tikmix_pipeline.report.remix_report import Reading


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
