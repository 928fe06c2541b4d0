"""`python -m mlmkit` is the command line."""

from mlmkit.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
