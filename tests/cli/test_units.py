"""Quantities as users write them."""

from __future__ import annotations

import math

import pytest

from onnxprune.errors import UsageError
from onnxprune.units import (
    bytes_text,
    count_text,
    parse_duration,
    parse_input_shape,
    parse_memory,
    parse_ratio,
    parse_target,
    time_text,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5ms", 5e-3),
        ("800us", 8e-4),
        ("800µs", 8e-4),
        (" 1.5 MS ", 1.5e-3),
        ("2s", 2.0),
        ("1e3ns", 1e-6),
        (".5ms", 5e-4),
    ],
)
def test_target_in_seconds(text: str, seconds: float) -> None:
    target = parse_target(text)
    assert target.kind == "seconds"
    assert math.isclose(target.value, seconds)
    assert target.in_seconds(123.0) == target.value


def test_target_as_a_ratio_of_the_baseline() -> None:
    target = parse_target("0.25x")
    assert (target.kind, target.value, target.seconds) == ("ratio", 0.25, None)
    assert target.in_seconds(8e-3) == 2e-3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0", "above zero"),
        ("0ms", "above zero"),
        ("-3ms", "above zero"),
        ("5", "no unit"),
        ("nan", "finite"),
        ("nanms", "finite"),
        ("infms", "finite"),
        ("1e999ms", "finite"),
        ("", "not a number"),
        ("ms", "not a number"),
        ("5ms6", "not a number"),
        ("5 m s", "not a number"),
        ("5m", "unknown unit"),
        ("5MB", "unknown unit"),
        ("1x", "under 1x"),
        ("2x", "half"),
        ("0x", "above zero"),
        ("5\n", "no unit"),
    ],
)
def test_bad_target_says_how_to_write_it(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_target(text)
    assert "\n" not in str(caught.value)


def test_memory_and_durations_and_ratios() -> None:
    assert parse_memory("8GB") == 8_000_000_000
    assert parse_memory("1.5GiB") == 3 * 2**29
    assert parse_memory("512 mb") == 512_000_000
    assert parse_duration("30m") == 1800
    assert parse_duration("1.5h") == 5400
    assert parse_ratio("0.6x") == 0.6


@pytest.mark.parametrize("text", ["8", "-8GB", "8XB", "nanGB", "0B", "GB"])
def test_bad_memory(text: str) -> None:
    with pytest.raises(UsageError, match="memory limit"):
        parse_memory(text)


@pytest.mark.parametrize("text", ["30", "30ms", "-1s", "inf", ""])
def test_bad_duration(text: str) -> None:
    with pytest.raises(UsageError, match="time limit"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0.6", "1x", "-0.5x", "60%", "0.6ms"])
def test_bad_ratio(text: str) -> None:
    with pytest.raises(UsageError, match="MACs"):
        parse_ratio(text, "MACs")


def test_input_shape_keeps_colons_of_the_name() -> None:
    assert parse_input_shape("x:1,3,224,224") == ("x", (1, 3, 224, 224))
    assert parse_input_shape("serving:0:4") == ("serving:0", (4,))
    assert parse_input_shape("scalar:") == ("scalar", ())


@pytest.mark.parametrize("text", ["x", ":1,2", "x:a", "x:1,,2", "x:0", "x:-1", "x:1.5"])
def test_bad_input_shape(text: str) -> None:
    with pytest.raises(UsageError, match="NAME:SIZE"):
        parse_input_shape(text)


def test_texts() -> None:
    times = [time_text(seconds) for seconds in (3.2e-6, 8.126e-4, 5.314e-3, 0.25, 1.2)]
    assert times == ["3.2 us", "813 us", "5.31 ms", "250 ms", "1.200 s"]
    assert [count_text(n) for n in (0, 853, 12345, 999999, 4.12e7)] == ["0", "853", "12.3 K", "1000 K", "41.2 M"]
    assert [bytes_text(n) for n in (853, 3.42e6)] == ["853 B", "3.42 MB"]
