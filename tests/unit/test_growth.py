"""What bench/growth.py makes of its figures."""

from __future__ import annotations

import pytest

from bench.growth import exponent, table


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5])
def test_the_exponent_of_a_power_is_that_power(power: float) -> None:
    sizes = [1_000, 10_000, 100_000]
    assert exponent(sizes, [7 * size**power for size in sizes]) == pytest.approx(power, abs=1e-9)


def test_what_was_measured_once_has_no_exponent() -> None:
    rows = [{"chunks": 100.0, "disk MiB": 1.0, "rebuild CPU s": 2.0}, {"chunks": 1_000.0, "disk MiB": 10.0}]
    assert table(rows).splitlines()[2:] == [
        "| disk MiB | 1.00 | 10.0 | 1.00 |",
        "| rebuild CPU s | 2.00 |  |  |",
    ]
