"""Runs the command line: ``python -m quantgui``."""

import sys

from quantgui.cli import main

sys.exit(main())
