"""`python -m pliant`, which is also how `torchrun` starts it."""

from pliant.cli.app import main

if __name__ == "__main__":
    main()
