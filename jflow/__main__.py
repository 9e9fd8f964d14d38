"""`python -m jflow` is `jflow`."""

from jflow.cli import main

if __name__ == "__main__":
    main()
