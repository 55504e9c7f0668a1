"""``python -m refimpl``."""

from refimpl.cli.main import main

if __name__ == "__main__":
    main()
