"""What MkDocs calls while it builds: pages that are made of other files join those of docs/.

The environment of the site has neither torch nor Kedro: of the package, the parameters alone are imported.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tools.docs_site.list_markup import lists_for_python_markdown
from tools.docs_site.parameter_reference import reference_pages

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[2]


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the made pages to those that lie in docs/."""
    from mkdocs.structure.files import File

    for path, text in made_pages(ROOT).items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page's lists as Python-Markdown reads them."""
    return lists_for_python_markdown(markdown)


def made_pages(root: Path) -> dict[str, str]:
    """Return the pages that lie nowhere, by their path below docs/."""
    base: dict[str, Any] = {}
    for name in ("parameters_corpus.yml", "parameters.yml"):
        base |= yaml.safe_load((root / "conf" / "base" / name).read_text(encoding="utf-8"))
    taken_over = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
    return {
        **{page: _as_page((root / file).read_text(encoding="utf-8")) for page, file in taken_over.items()},
        **reference_pages(base),
    }


def _as_page(text: str) -> str:
    """Return a file of the root with its links as they are from docs/."""
    return text.replace("](docs/", "](").replace("](CHANGELOG.md)", "](changelog.md)")
