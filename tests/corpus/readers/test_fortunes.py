from reader_examples import read


def test_entries_are_joined_to_pages_and_crumbs_dropped():
    entries = ["A first saying of some length, n\b\u00f6.", "crumb", "z" * 1500, "The last one stands on its own page."]
    texts = read("fortunes", "\n%\n".join(entries).encode())
    assert [len(text) > 1500 for text in texts] == [True, False]
    assert "crumb" not in texts[0]
    assert "\b" not in texts[0]
