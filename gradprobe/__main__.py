"""`python -m gradprobe` is the command `gradprobe`."""

from gradprobe.cli import main

if __name__ == "__main__":
    main()
