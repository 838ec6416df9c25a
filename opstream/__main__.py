"""`python -m opstream` is the `opstream` command. `opstream up` starts its child processes this way."""

from .cli.app import main

if __name__ == "__main__":
    main()
