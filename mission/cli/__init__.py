"""The command line: `main` runs a command and ends the process with its exit code."""

from __future__ import annotations

from mission.training.early import STOPPED, end_on_interrupt, started_as_program

_PROGRAM = started_as_program()  # else a test or a notebook has imported this file
if _PROGRAM:
    end_on_interrupt()  # before anything else, so that Ctrl-C prints no traceback of an import

import contextlib  # noqa: E402
import logging  # noqa: E402
import sys  # noqa: E402

from mission.training.signals import finish_process, quiet_threads, watch_signals  # noqa: E402

if _PROGRAM:
    watch_signals()

from mission.cli.completing import whole_words  # noqa: E402
from mission.cli.output import PrintableFormatter  # noqa: E402
from mission.cli.starting import app  # noqa: E402  # with the commands of the modules that it imports from
from mission.errors import FourParts  # noqa: E402


def main() -> None:
    """Run the command line; print one paragraph and set an exit code for each error."""
    debug = "--debug" in sys.argv[1:]
    if debug:
        sys.argv = [sys.argv[0], "--debug", *[a for a in sys.argv[1:] if a != "--debug"]]
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[handler])
    logging.raiseExceptions = debug  # else each message to a terminal that was closed prints a traceback
    for noisy in ("absl", "orbax", "jax"):
        logging.getLogger(noisy).setLevel(logging.NOTSET if debug else logging.CRITICAL)
    if _PROGRAM and not debug:
        quiet_threads()
    try:
        with whole_words():
            app()
    except SystemExit as end:
        code = _exit_code(end, debug)
    except BaseException as error:
        code = _report(error, debug)
    if _PROGRAM:
        finish_process(code)
    sys.exit(code)


def _exit_code(end: SystemExit, debug: bool) -> int:
    """Return the exit code after typer, or a plugin, ended a command."""
    import traceback

    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(end.__traceback__)]
    # the first frame is `main`; a library such as wandb may replace `sys.exit`, so the last need not be typer's
    if any(module.partition(".")[0] == "mission" for module in modules[1:]):
        return _report(end, debug)
    if end.code == 130:  # after a KeyboardInterrupt
        cause = end.__context__.__cause__ if end.__context__ is not None else None
        if isinstance(cause, FourParts):
            return _report(cause, debug)
        print(STOPPED, file=sys.stderr)
    # typer ends with 1 if standard output was closed, but here 1 means a negative result
    return 3 if end.code == 1 else int(end.code or 0)


def _report(error: BaseException, debug: bool) -> int:
    """Print the paragraph of an error, or its traceback, and return its exit code."""
    import traceback

    from mission.missionfile.failures import explained

    shown = explained(error, " ".join(["mission", *sys.argv[1:2]]))
    text = "".join(traceback.format_exception(error)) if debug else f"error: {shown}"
    with contextlib.suppress(OSError):  # the terminal was closed
        print(text, file=sys.stderr)
    return shown.exit_code
