"""`python -m mission`: the command line."""

from mission.cli import main

main()
