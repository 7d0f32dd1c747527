"""`python -m dartjax`: the same as the command `dartjax`."""

from dartjax.cli import main

if __name__ == "__main__":
    main()
