"""`python -m visionkit`: the command line where the script is not on the path."""

from visionkit.cli import main

if __name__ == "__main__":
    main()
