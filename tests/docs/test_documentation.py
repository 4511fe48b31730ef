"""The documentation says what the code does."""

import re
from pathlib import Path

import pytest

from loopwright.cli.reference import page

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_the_page_of_commands_is_up_to_date() -> None:
    """docs/commands.md is what `python -m loopwright.cli.reference` writes."""
    assert (ROOT / "docs" / "commands.md").read_text() == page()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    """Each relative link names a file or folder of the repository."""
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_every_package_is_in_the_architecture() -> None:
    """Each package and module of the first level has its line."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    source = ROOT / "src" / "loopwright"
    names = {path.stem for path in source.iterdir() if not path.name.startswith(("_", ".", "py.typed"))}
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()


def test_every_make_target_has_help() -> None:
    """`make help` lists each target that people call."""
    text = (ROOT / "Makefile").read_text()
    called = set(re.search(r"\.PHONY: (.*)", text).group(1).split())  # type: ignore[union-attr]
    assert called == set(re.findall(r"^([a-z]+):.*## ", text, re.MULTILINE))
