"""What `make run` does: the window with a sample network, or, without a display, the sample's loop in the terminal."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from quantgui.cli import main as cli
from quantgui.paths import sample_models
from quantgui.terminal import has_display

SAMPLE = "digits"


def main() -> int:
    """Open the window, or run open - evaluate - export - verify on the command line; return the exit code."""
    folder = sample_models() / SAMPLE
    network, data = str(folder / f"{SAMPLE}.onnx"), str(folder / f"{SAMPLE}.evaluation.npz")
    if has_display():
        return cli.main([network, "--data", data])
    print("There is no display, so here is the same loop without a window, on the sample network.\n")
    with tempfile.TemporaryDirectory() as temporary:
        exported = str(Path(temporary) / f"{SAMPLE}-w8a8.onnx")
        for command in (
            ["inspect", network],
            ["evaluate", network, "--data", data, "--preset", "W8A8"],
            ["export", network, "--data", data, "--preset", "W8A8", "-o", exported],
            ["verify", network, exported, "--data", data],
        ):
            print(f"$ quantgui {' '.join(Path(word).name if os.sep in word else word for word in command)}")
            if code := cli.main(command):
                return code
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
