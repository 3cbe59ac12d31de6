"""Pages in a real browser: headless Chromium, and what it leaves in the document."""

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

TEMPLATES = Path(__file__).parents[2] / "src" / "tikmix_pipeline" / "report" / "templates"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: the page's own solver runs in a browser"
)


def opened(page, folder):
    """Return the document that a page has become once it was loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"]
    # it may still write to its profile when it has ended
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = [f"--user-data-dir={profile}", file.as_uri()]
        return subprocess.run([*command, *options], capture_output=True, text=True, check=True, timeout=120).stdout


def told(document):
    """Return what a script has left in the element `out`."""
    found = re.search(r'<pre id="out">(.*?)</pre>', document, re.DOTALL)
    assert found, "the script did not come to its end"
    return json.loads(html.unescape(found[1]))


def solved(data, script, folder):
    """Run a script on data, with the page's solver and nothing else of the page, and return what it returns."""
    sources = "\n".join((TEMPLATES / f"whatif_{part}.js").read_text(encoding="utf-8") for part in ("solver", "problem"))
    given = json.dumps(data).replace("<", "\\u003c")
    leave = "document.getElementById('out').textContent = JSON.stringify(result)"
    called = f"const data = {given};\nconst result = (() => {{{script}}})();\n{leave}"
    page = f"<pre id='out'></pre><script>{sources}\n{called}</script>"
    return told(opened(f'<!doctype html><meta charset="utf-8">{page}', folder))
