"""A git repository for tests, untouched by the settings of whoever runs them."""

import subprocess
from pathlib import Path

_SETTINGS = ("user.name=Test", "user.email=test@example.org", "commit.gpgsign=false", "core.autocrlf=false")


def git(folder: Path, *arguments: str) -> str:
    """Run a git command that has to work and return its output."""
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    done = subprocess.run(["git", *settings, *arguments], cwd=folder, capture_output=True, check=True)
    return done.stdout.decode().strip()


def commit_all(folder: Path) -> str:
    """Commit all files of a folder, as a new repository where there is none, and return the commit."""
    if not (folder / ".git").is_dir():
        git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "all")
    return git(folder, "rev-parse", "HEAD")
