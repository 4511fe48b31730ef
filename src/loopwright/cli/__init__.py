"""The command line: ``loopwright <noun> <verb>``. Each command is one public Python call; each file is one noun.

Commands are imported when they are run: ``loopwright --help`` loads none of the heavy libraries.
"""

import sys
from typing import Any

import cyclopts

from loopwright import __version__
from loopwright.errors import LoopwrightError

__all__ = ["app", "main"]

app = cyclopts.App(
    name="loopwright",
    help="From a notebook to automated ML operations: train, deploy, monitor, retrain, release, trace.",
    version=__version__,
    # A markdown help would load a markdown parser: a third of the time that --help takes.
    help_format="plaintext",
    help_epilogue="Start with: loopwright demo   or: loopwright init my-project",
)

_START = cyclopts.Group("Start here", sort_key=1)
_USE = cyclopts.Group("Work", sort_key=2)
_LOOK = cyclopts.Group("Look and prove", sort_key=3)
for _path, _name, _group, _help in (
    ("init:init", "init", _START, "Write a new project that runs."),
    ("demo:demo", "demo", _START, "Watch the whole loop, on real data and real parts."),
    ("parts:up", "up", _START, "Start all parts of the project, or say what is running and where."),
    ("parts:down", "down", _START, "Stop all parts of the project."),
    ("parts:status", "status", _START, "Show what runs, where, and with how much memory."),
    ("notebook_check:app", "notebook", _START, "Check a notebook, turn it into a pipeline, run it tracked."),
    ("pipeline:app", "pipeline", _USE, "Run pipelines; look at, resume and cancel their runs."),
    ("service:app", "service", _START, "Have the project started with the machine."),
    ("schedule:app", "schedule", _USE, "List, pause and check what runs by itself."),
    ("run:app", "run", _USE, "Look at tracked runs."),
    ("dataset:app", "dataset", _USE, "Look at datasets and compare them."),
    ("model:app", "model", _USE, "Register, list and promote model versions."),
    ("deployment:app", "deployment", _USE, "Start, look at and roll back deployments."),
    ("key:app", "key", _USE, "Make and revoke the API keys of online deployments."),
    ("release:app", "release", _USE, "Replace a champion: gate, canary, verdict."),
    ("stream:app", "stream", _USE, "Send to and read from the channels of stream deployments."),
    ("edge:app", "edge", _USE, "Bundle models for devices, and take in what these answered."),
    ("label:app", "label", _USE, "Hand in ground truth, and see what became of it."),
    ("prediction:app", "prediction", _LOOK, "Query the prediction log."),
    ("monitor:app", "monitor", _LOOK, "See how deployments stand, window by window and input by input."),
    ("alert:app", "alert", _LOOK, "Look at alerts, acknowledge and silence them; who is told."),
    ("trace:trace", "trace", _LOOK, "Walk from a prediction back to its data, checking every hash."),
    ("reproduce:reproduce", "reproduce", _LOOK, "Repeat a run from its record and compare what comes out."),
    ("parity:parity", "parity", _LOOK, "Score the same rows in all four modes and compare."),
    ("maturity:maturity", "maturity", _LOOK, "Compute the MLOps maturity level from observed facts."),
):
    app.command(f"loopwright.cli.{_path}", name=_name, group=_group, help=_help)


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; errors made for people are shown without a traceback.

    The exit code is 0, 1 (failed), 2 (wrong use or input) or 3 (a gate was not met).
    """
    try:
        return app(arguments)
    except LoopwrightError as error:
        _show(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, has gone: that is not an error.
        sys.stderr.close()
        sys.exit(0)


def _show(error: LoopwrightError) -> None:
    if "--json" in sys.argv:
        import msgspec

        sys.stderr.write(msgspec.json.encode(error.to_dict()).decode() + "\n")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    console.print(Text(error.fact, style="bold red"), soft_wrap=True)
    if error.valid:
        console.print(Text(error.valid), soft_wrap=True)
    if error.hint:
        console.print(Text(f"Try: {error.hint}", style="cyan"), soft_wrap=True)
