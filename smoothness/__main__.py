"""`python -m smoothness` is the `smoothness` command."""

from smoothness.cli import main

main()
