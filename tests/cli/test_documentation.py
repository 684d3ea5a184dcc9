"""What the pages of the documentation say of the command line is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from wavegen.cli import app

REPOSITORY = Path(__file__).resolve().parents[2]
COMMANDS = typer.main.get_command(app.app).commands
PAGES = [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/*.md")),
         *sorted(REPOSITORY.glob("recipes/*/README.md"))]


def documented(page: Path) -> list[list[str]]:
    """The words of each `wavegen` command of a page's shell blocks, up to a pipe."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    found = [re.search(r"(?:^|\| )wavegen ([^|]*)", line.split(" #")[0]) for line in lines]
    return [shlex.split(match[1]) for match in found if match]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_option_of_a_page_exists(page):
    for command, *words in documented(page):
        known = {name for parameter in COMMANDS[command].params for name in parameter.opts}
        unknown = [word for word in words if re.match(r"--?[a-z]", word) and word not in known | {"--help", "-h"}]
        assert not unknown, f"{page.name}: wavegen {command} has no {unknown[0]}"


def test_every_option_of_synth_is_explained():
    page = (REPOSITORY / "docs/synth.md").read_text()
    options = {name for parameter in COMMANDS["synth"].params for name in parameter.opts if name.startswith("--")}
    assert [name for name in sorted(options - {"--output", "--verbose"}) if f"{name}" not in page] == []


@pytest.mark.parametrize("page", sorted(REPOSITORY.glob("docs/**/*.md")), ids=lambda page: page.name)
def test_links_of_a_page_stay_on_the_site(page):
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        if not link.startswith("https://"):
            target = (page.parent / link).resolve()
            assert target.is_relative_to(REPOSITORY / "docs") and target.exists(), f"{page.name} links to {link}"
