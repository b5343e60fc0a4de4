"""What `pip install .` brings: everything the program reads travels in the wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_that_resources_and_samples_travel_in_the_wheel(tmp_path: Path) -> None:
    source = tmp_path / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
    ]
    subprocess.run([*command, str(source)], check=True, timeout=240, capture_output=True)
    (wheel,) = tmp_path.glob("quantgui-*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("resources", "sample_models"):
        wanted = {name for name in listed.split("\0") if name.startswith(f"{folder}/")}
        assert {f"quantgui/{name}" for name in wanted} <= inside
    modules = {name for name in listed.split("\0") if name.startswith("quantgui/") and name.endswith(".py")}
    assert modules <= inside
    entry_points = next(name for name in inside if name.endswith("entry_points.txt"))
    assert "quantgui = quantgui.__main__:main" in zipfile.ZipFile(wheel).read(entry_points).decode()
