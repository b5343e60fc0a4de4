"""Runs the command line: ``quantgui`` and ``python -m quantgui``."""

import sys

from quantgui.interrupts import leave_at_interrupt


def main() -> int:
    """Run the command line and return the exit code."""
    with leave_at_interrupt():
        from quantgui.cli.main import main as run
    return run()


if __name__ == "__main__":
    sys.exit(main())
