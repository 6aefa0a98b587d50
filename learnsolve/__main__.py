"""``python -m learnsolve`` is the command ``learnsolve``."""

from learnsolve.cli import main

if __name__ == "__main__":
    main()
