"""The command that follows a training run in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mission.cli.completing import complete_folder
from mission.cli.onboard import app
from mission.cli.options import Local, apply_only, apply_only_with_mission
from mission.cli.output import Command, say

PORT = 8377


@app.command(cls=Command)
def watch(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Folder checkpoints/MISSION of a training run; the run may start later.",
            autocompletion=complete_folder,
        ),
    ],
    port: Annotated[
        int,
        typer.Option("--port", metavar="N", min=0, max=65535, help="Port of the page on 127.0.0.1; 0: any free port."),
    ] = PORT,
    flights: Annotated[
        int,
        typer.Option(
            "--flights", metavar="N", min=0, max=1000, help="Number of flights of the newest policies; 0: none."
        ),
    ] = 200,
    browser: Annotated[bool, typer.Option("--open", help="Also open the page in the browser of this machine.")] = False,
    mission_file: Annotated[
        Path | None,
        typer.Option("--mission", metavar="FILE", help="Mission file that is trained. [default: from the records]"),
    ] = None,
    local: Local = False,
) -> None:
    """Show a training run on a local page: curves, evaluations, hand-overs and the latest flight in 3-D.

    The page is read-only and can be opened on this machine only. During training, the newest policies are flown with
    the lowest priority, for at most a sixth of the time. End it with Ctrl-C.
    """
    apply_only_with_mission(mission_file, None, local)
    apply_only(flights > 0, "with --flights above 0, since the curves need no plugin", {"--mission": mission_file})
    from mission.report.watch.server import WatchServer
    from mission.training.signals import before_end

    server = WatchServer(folder, port, flights=flights, mission=mission_file, allow_local_plugins=local)
    with before_end(server.close):
        say(f"page: {server.url}", "Ctrl-C ends it; the training goes on")
        if browser:
            import webbrowser

            webbrowser.open(server.url)
        server.serve_forever()
