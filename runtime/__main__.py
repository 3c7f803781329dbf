"""`python -m runtime` is the command line."""

from runtime.cli import main

main()
