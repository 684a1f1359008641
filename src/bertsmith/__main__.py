"""`python -m bertsmith` is the `bertsmith` command."""

from bertsmith.cli import main

if __name__ == "__main__":
    main()
