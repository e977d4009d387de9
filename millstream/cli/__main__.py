"""``python -m millstream.cli``: the command line, where its script is not on the path."""

from millstream.cli import main

if __name__ == "__main__":
    main()
