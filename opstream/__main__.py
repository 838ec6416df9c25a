"""`python -m opstream`: the same as the `opstream` command. `up` starts its services this way."""

from .cli.app import main

if __name__ == "__main__":
    main()
