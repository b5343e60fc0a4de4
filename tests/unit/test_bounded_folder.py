"""Folders that keep what was used last."""

from __future__ import annotations

import os
from pathlib import Path

from quantgui.network.bounded_folder import drop_oldest, oldest_first


def test_that_what_was_used_longest_ago_goes_with_what_lies_beside_it(tmp_path: Path) -> None:
    for place, name in enumerate(("old", "kept", "middle", "new")):
        (tmp_path / f"{name}.bin").write_bytes(bytes(10))
        (tmp_path / f"{name}.json").write_text("{}")
        os.utime(tmp_path / f"{name}.bin", ns=(place, place))
    (tmp_path / "other.txt").write_bytes(bytes(100))
    assert [path.stem for _, _, path in oldest_first(tmp_path, "*.bin")] == ["old", "kept", "middle", "new"]
    os.utime(tmp_path / "kept.bin", ns=(0, 0))
    drop_oldest(tmp_path, "*.bin", tmp_path / "kept.bin", 25, beside=".json")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "kept.bin", "kept.json", "new.bin", "new.json", "other.txt"
    ]  # fmt: skip
    drop_oldest(tmp_path, "*.bin", tmp_path / "kept.bin", 25)
    assert (tmp_path / "new.bin").exists()
