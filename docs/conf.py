# SPDX-License-Identifier: Apache-2.0
"""
Build the documentation site: ``make docs``.

The root of the repository is the source folder, so that links between the README, the pages and the example
Dags are the same on the site as in the repository.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

# Airflow is imported for the API reference; it needs a folder to write its configuration to, and no database.
os.environ.setdefault("AIRFLOW_HOME", str(Path(__file__).parents[1] / ".site" / "airflow"))
os.environ.setdefault("AIRFLOW__CORE__UNIT_TEST_MODE", "True")

_project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]

project = _project["name"]
author = _project["authors"][0]["name"]
project_copyright = author

root_doc = "docs/index"
include_patterns = ["docs/**.md", "docs/**.rst", "*.md"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autoclass_content = "class"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_title = "IBM Quantum sessions for Apache Airflow"
toc_object_entries_show_parents = "hide"

html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "source_repository": _project["urls"]["Source"],
    "source_branch": "main",
    "source_directory": "",
}


def index_error_codes(_app: Any, docname: str, source: list[str]) -> None:
    """Put IBM's error codes into the index. The search finds numbers there, and skips them in texts."""
    if docname == "docs/troubleshooting":
        codes = re.findall(r"\b\d{4}\b", " ".join(re.findall(r"^\| ([\d, ]+) \|", source[0], re.MULTILINE)))
        source[0] = source[0].replace("| code |", f"```{{index}} {', '.join(codes)}\n```\n\n| code |", 1)


def pair_pictures(app: Any, docname: str, source: list[str]) -> None:
    """Show the dark one of two pictures in the dark mode: of ``page.png``, ``page-dark.png`` beside it."""

    def pair(match: re.Match[str]) -> str:
        text, path = match.groups()
        dark = path.replace(".png", "-dark.png")
        if not (Path(app.srcdir) / docname).parent.joinpath(dark).exists():
            return match[0]
        pictures = ((path, "only-light"), (dark, "only-dark"))
        return "\n\n".join(
            f"```{{image}} {name}\n:alt: {text}\n:class: {theme}\n```" for name, theme in pictures
        )

    source[0] = re.sub(r"^!\[(.*)\]\((\S+\.png)\)$", pair, source[0], flags=re.MULTILINE)


def adapt_page(_app: Any, _page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """Let long names in texts break between their words, and nowhere else; name the README by its subject."""
    word_end = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[_./:=,(@])(?=\w)")

    def split(match: re.Match[str]) -> str:
        return match[1] + word_end.sub("<wbr>", match[2]) + match[3]

    context["body"] = re.sub(r'(<span class="pre">)([^<]+)(</span>)', split, context.get("body", ""))
    # The README's title is the package's name, which says little as a link to the next page.
    for name in ("next", "prev"):
        if (other := context.get(name)) and other["link"].endswith("README.html"):
            other["title"] = "Overview and install"


def setup(app: Any) -> None:
    """Register the steps of this file. Called by Sphinx."""
    app.connect("source-read", index_error_codes)
    app.connect("source-read", pair_pictures)
    app.connect("html-page-context", adapt_page)
