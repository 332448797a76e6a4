# SPDX-License-Identifier: Apache-2.0
"""Every operator, sensor and decorator has a how-to page with an excerpt of an example Dag that tests run."""

from __future__ import annotations

import inspect
import re
from importlib import import_module

import pytest
from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_ibm_sessions.get_provider_info import get_provider_info
from testing.pages import DOCS, HOWTO, ROOT, section, table
from testing.signatures import classes, own_arguments

TASKS = {
    getattr(cls, "custom_operator_name", cls.__name__): cls
    for cls in classes(BaseOperator, "operators", "sensors", "decorators")
    if not cls.__name__.startswith(("SessionJobs", "JobSubmitting"))  # bases
}
"""What users write in Dags, by the name that they write."""
TEMPLATE_FIELDS = {"max_wait_time": "max_wait"}
"""Arguments whose name Airflow's own class uses for something else, by their template field."""
HEADINGS = {"Example", "Arguments", "What it returns", "When it fails"}
LEADS = ["When to use it", "How it waits"]


def page_of(name):
    """Return the text of the page whose title names the task."""
    [page] = [page for page in HOWTO.glob("*.md") if page.read_text().splitlines()[0].endswith(f": {name}")]
    return page.read_text()


def excerpts(text):
    """Yield the excerpts of a page, as the site shows them."""
    pattern = r'literalinclude\} (\S+)\n.*?start-after: "(.*?)"\n:end-before: "(.*?)"'
    for path, start, end in re.findall(pattern, text, re.DOTALL):
        example = (HOWTO / path).resolve()
        assert example.parent == ROOT / "example_dags"
        source = example.read_text()
        assert (source.count(start), source.count(end)) == (1, 1)
        yield source.partition(start)[2].partition(end)[0]


def test_there_are_tasks():
    assert len(TASKS) == 13


@pytest.mark.parametrize("name", TASKS)
def test_each_task_has_a_page(name):
    text = page_of(name)
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert set(headings) >= HEADINGS
    for lead in LEADS:
        assert text.count(f"\n**{lead}.** ") == 1
    assert f":class}}`~{TASKS[name].__module__}.{TASKS[name].__qualname__}`" in text
    assert list(table(section(text, "When it fails"), "what you see"))


@pytest.mark.parametrize("name", TASKS)
def test_its_excerpt_shows_the_task(name):
    found = list(excerpts(section(page_of(name), "Example")))
    assert found
    assert all(f"{name}(" in excerpt for excerpt in found)


@pytest.mark.parametrize("name", TASKS)
def test_it_can_be_imported_as_the_page_says(name):
    imports = re.findall(r"^\*\*Import\.\*\* `from (\S+) import (\w+)`", page_of(name), re.MULTILINE)
    if name.startswith("@"):
        assert imports == []
    else:
        [(module, imported)] = imports
        assert getattr(import_module(module), imported) is TASKS[name]
        assert any(module in each["python-modules"] for each in provided("operators", "sensors"))


def provided(*kinds):
    info = get_provider_info()
    return [entry for kind in kinds for entry in info[kind]]


@pytest.mark.parametrize("page", sorted(HOWTO.glob("*.md")), ids=lambda page: page.stem)
def test_each_page_is_in_an_index(page):
    indexes = [(DOCS / name).read_text() for name in ("operators.md", "sensors.md", "decorators.md")]
    assert any(f"](howto/{page.name})" in index for index in indexes)
    assert any(f" <howto/{page.stem}>\n" in index for index in indexes)


def test_airflow_is_given_all_pages():
    [integration] = get_provider_info()["integrations"]
    guides = integration["how-to-guide"]
    assert guides == sorted(f"/docs/howto/{page.name}" for page in HOWTO.glob("*.md"))


@pytest.mark.parametrize("name", TASKS)
def test_the_arguments_are_those_of_the_class(name):
    operator = TASKS[name]
    rows = list(table(section(page_of(name), "Arguments"), "argument"))
    arguments = own_arguments(operator)
    names = [re.match(r"`(\w+)`", row[0])[1] for row in rows]
    assert sorted(names) == sorted(arguments)
    templated = {name for name, row in zip(names, rows, strict=True) if row[0].endswith("*t*")}
    fields = {TEMPLATE_FIELDS.get(field, field) for field in operator.template_fields}
    assert templated == fields & set(arguments)
    for name, row in zip(names, rows, strict=True):
        default, written = arguments[name].default, row[-1]
        assert (written == "required") == (default is inspect.Parameter.empty), name
        is_fixed = isinstance(default, bool | str) and name != "deferrable"  # which Airflow's option decides
        if is_fixed:
            assert written == f"`{default}`", name
        elif isinstance(default, int | float) and written.isdigit():
            assert float(written) == default, name
