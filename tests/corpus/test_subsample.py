"""A subsample of a stream's windows stands for the whole: as fresh, and repeated as often."""

import numpy as np
import pytest
from test_stream import SIZES, drive, stream_of, windows_read

from tikmix_pipeline.errors import TikmixError


@pytest.mark.parametrize("stop", [0, 21, 90])
def test_a_subsample_is_read_where_it_would_have_come_and_no_other_window_is(stop):
    whole, some = stream_of(), stream_of()
    for stream in (whole, some):
        drive(stream, {}, 0, stop)
    some.subsample(0.25)
    expected, found = windows_read(drive(whole, {}, stop, 400)), windows_read(drive(some, {}, stop, stop + 100))
    for name, size in SIZES.items():
        chosen = {*found[name]}
        assert len(chosen) <= max(1, round(size / 4))
        thinned = [window for window in expected[name] if window in chosen]
        common = min(len(thinned), len(found[name]))
        assert found[name][:common] == thinned[:common]
        assert common > 0.6 * len(found[name])


@pytest.mark.parametrize("stop", [0, 21, 90])
def test_a_stretch_as_short_as_the_subsample_repeats_as_often_as_the_whole(stop):
    sizes, share = {"books": 400, "code": 900, "web": 2400}, 0.2
    whole, some = (stream_of(sizes=sizes, batch_size=32) for _ in range(2))
    before, _ = (windows_read(drive(stream, {}, 0, stop), sizes) if stop else {} for stream in (whole, some))
    some.subsample(share)
    long, short = (windows_read(drive(one, {}, stop, stop + steps), sizes) for one, steps in ((whole, 200), (some, 40)))
    for name in sizes:
        fresh = [len({*read[name]} - {*before.get(name, [])}) / len(read[name]) for read in (long, short)]
        assert fresh[1] == pytest.approx(fresh[0], abs=0.12)


def test_a_whole_subsample_changes_nothing_and_a_stream_is_subsampled_once():
    plain, same = stream_of(), stream_of()
    same.subsample(1.0)
    np.testing.assert_array_equal(plain.next_batch(), same.next_batch())
    same.subsample(0.5)
    for share in (0.5, 0.0, 1.5):
        with pytest.raises(ValueError, match=r"subsampled before|above 0"):
            same.subsample(share)


def test_the_state_of_a_subsample_is_not_taken_for_that_of_the_whole():
    some = stream_of()
    some.subsample(0.5)
    with pytest.raises(TikmixError, match="other windows"):
        stream_of().load_state_dict(some.state_dict())
