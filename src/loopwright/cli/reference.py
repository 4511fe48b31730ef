"""The page of all commands, written from their own help: ``python -m loopwright.cli.reference > docs/commands.md``."""

import io
import sys
from collections.abc import Iterator

import cyclopts
from rich.console import Console

from loopwright.cli import app

__all__ = ["page"]


def page() -> str:
    """Return the page: one section per command with what its ``--help`` says."""
    head = "# Commands\n\nWritten from each command's `--help` by `python -m loopwright.cli.reference`.\n"
    return head + "".join(
        f"\n## loopwright {' '.join(words)}\n\n```text\n{_help(words)}\n```\n" for words in _commands(app, ())
    )


def _commands(parent: cyclopts.App, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command that does something, in the order of their names."""
    for name in sorted(item for item in parent if not item.startswith("-")):
        child = parent[name]
        below = list(_commands(child, (*words, name)))
        if not below or child.default_command is not None:
            yield (*words, name)
        yield from below


def _help(words: tuple[str, ...]) -> str:
    out = io.StringIO()
    app.help_print([*words], console=Console(file=out, width=100, no_color=True))
    lines = [line.rstrip() for line in out.getvalue().strip().splitlines()]
    end = next((number for number, line in enumerate(lines) if line.startswith("Start with:")), len(lines))
    return "\n".join(lines[:end]).strip()


if __name__ == "__main__":
    sys.stdout.write(page())
