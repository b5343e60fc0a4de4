from __future__ import annotations

import math

import pytest

from quantgui.errors import SpecError
from quantgui.gui.models.filter import LayerFacts, parse_filter

CONV = LayerFacts("stem.conv1", "Conv", "int4", 4, 8, 18.0, 432, 1e6, 300)
GEMM = LayerFacts("head.fc", "Gemm", "float32", 32, 32, math.nan, 20_000, 2e4, 80_000)


@pytest.mark.parametrize(
    ("text", "conv", "gemm"),
    [
        ("", True, True),
        ("conv", True, False),
        ("CONV", True, False),
        ("head", False, True),
        ("-conv", False, True),
        ("bits>4", False, True),
        ("bits>=4", True, True),
        ("bits = 4", True, False),
        ("bits!=4", False, True),
        ("abits<16", True, False),
        ("conv bits<8 sqnr<20", True, False),
        ("conv bits>4 sqnr<20", False, False),
        ("params>=10k", False, True),
        ("size<1kb", True, False),
        ("macs>0.5M", True, False),
        ("op=gemm", False, True),
        ("name!=conv", False, True),
        ("format=int", True, False),
    ],
)
def test_that_a_filter_lets_pass_what_it_says(text: str, conv: bool, gemm: bool) -> None:
    chosen = parse_filter(text)
    assert (chosen.accepts(CONV), chosen.accepts(GEMM)) == (conv, gemm)


@pytest.mark.parametrize("text", ["sqnr<20", "sqnr>=20", "sqnr!=20"])
def test_that_an_unknown_number_passes_no_comparison(text: str) -> None:
    assert not parse_filter(text).accepts(GEMM)


def test_that_a_filter_knows_whether_it_waits_for_results() -> None:
    assert parse_filter("conv sqnr<20").uses_results
    assert not parse_filter("conv bits<8").uses_results
    assert parse_filter("conv bits<8").uses_config
    assert not parse_filter("conv params>10").uses_config


@pytest.mark.parametrize(
    ("text", "named"),
    [("colour>4", "colour"), ("bits>many", "many"), ("bits>", "bits>"), ("sqnr<20xyz", "20xyz"), ("op>conv", "op")],
)
def test_that_a_mistake_in_a_filter_is_named_in_a_sentence(text: str, named: str) -> None:
    with pytest.raises(SpecError, match=named) as caught:
        parse_filter(text)
    assert str(caught.value).endswith(".")
