"""What a model reads of a request, value by value: derived features, and texts that match nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bidml.contract import UNMATCHABLE, Feature, FeatureKind, FeatureSpec
from bidml.score import RawExtractor

_TIME = {"timestamp": 1_700_000_000_000}  # Tuesday, 2023-11-14, 22:13:20 UTC
_APP, _SITE = {"bundle": "com.example"}, {"domain": "example.com"}
_FORMATS = [{"w": 300, "h": 250}, {"w": 1, "h": 1}]


def read(source: str, kind: FeatureKind, request: dict[str, Any]) -> Any:
    spec = FeatureSpec((Feature("x", kind, source),))
    return RawExtractor(spec)({"imp": [{}]} | request, {})["x"]


@pytest.mark.parametrize(
    ("request_part", "hour", "weekday"),
    [
        ({}, 22.0, 1.0),
        ({"device": {"geo": {"utcoffset": 60}}}, 23.0, 1.0),
        ({"device": {"geo": {"utcoffset": 120}}}, 0.0, 2.0),
        ({"device": {"geo": {"utcoffset": -23 * 60}}}, 23.0, 0.0),
        ({"device": {"geo": {"utcoffset": 1441}}}, 22.0, 1.0),
    ],
)
def test_hour_and_weekday_are_the_users(request_part: dict[str, Any], hour: float, weekday: float) -> None:
    """Monday is 0; the offset is in minutes, and one of more than a day is none."""
    request = {"ext": _TIME} | request_part
    assert read("derived.hour_of_day", FeatureKind.NUMBER, request) == hour
    assert read("derived.weekday", FeatureKind.NUMBER, request) == weekday


def test_a_week_begins_on_monday() -> None:
    """Seven days from a Monday on, and the last hour before it."""
    monday = 1_699_833_600_000  # 2023-11-13
    for day in range(7):
        request = {"ext": {"timestamp": monday + day * 86_400_000}}
        assert read("derived.weekday", FeatureKind.NUMBER, request) == day
    assert read("derived.weekday", FeatureKind.NUMBER, {"ext": {"timestamp": monday - 1_000}}) == 6.0


@pytest.mark.parametrize(
    ("request_", "where", "inventory"),
    [
        ({"app": _APP}, "app", "com.example"),
        ({"site": _SITE}, "site", "example.com"),
        ({"app": _APP, "site": _SITE}, "app", "com.example"),
        ({"app": {}, "site": _SITE}, "app", ""),
        ({"app": None, "site": _SITE}, "site", "example.com"),
        ({}, "", ""),
    ],
)
def test_an_app_comes_before_a_site(request_: dict[str, Any], where: str, inventory: str) -> None:
    """OpenRTB allows one of them; where both are given, both features say app."""
    assert read("derived.app_or_site", FeatureKind.CATEGORY, request_) == where
    assert read("derived.inventory", FeatureKind.CATEGORY, request_) == inventory


@pytest.mark.parametrize(
    ("imp", "size"),
    [
        ({"banner": {"w": 320, "h": 50}}, "320x50"),
        ({"banner": {"w": 320.0, "h": 50}}, "320x50"),
        ({"banner": {"w": 320, "h": 50, "format": _FORMATS}}, "320x50"),
        ({"banner": {"format": _FORMATS}}, "300x250"),
        ({"banner": {"w": 320, "format": _FORMATS}}, "300x250"),
        ({"banner": {"w": 320.5, "h": 50}}, ""),
        ({"banner": {"w": 0, "h": 50}}, ""),
        ({"banner": {"w": 1e7, "h": 50}}, ""),
        ({"banner": {}, "video": {"w": 640, "h": 480}}, ""),
        ({"video": {"w": 640, "h": 480}}, "640x480"),
        ({}, ""),
    ],
)
def test_a_size_is_of_whole_pixels(imp: dict[str, Any], size: str) -> None:
    """The banner's own, else that of its first format; of a video where there is no banner."""
    assert read("derived.banner_size", FeatureKind.CATEGORY, {"imp": [imp]}) == size


@pytest.mark.parametrize(
    ("osv", "major"),
    [("17.2", 17.0), ("9", 9.0), ("1234567", 123456.0), ("x17", math.nan), ("", math.nan), (17.2, math.nan)],
)
def test_a_version_is_its_leading_digits(osv: Any, major: float) -> None:
    """Of a text; six digits at most."""
    found = read("derived.os_version_major", FeatureKind.NUMBER, {"device": {"osv": osv}})
    assert found == major or (math.isnan(found) and math.isnan(major))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x" * 1024, "x" * 1024),
        ("x" * 1025, UNMATCHABLE),
        ("é" * 1025, UNMATCHABLE),
        (2**63 - 1, str(2**63 - 1)),
        (2**63, UNMATCHABLE),
        (-(2**63) - 1, UNMATCHABLE),
        (True, ""),
        (1.5, ""),
    ],
)
def test_texts_that_no_key_equals(value: Any, text: str) -> None:
    """Longer than 1,024 characters, integers beyond 64 bits; what is no text at all is missing."""
    assert read("device.os", FeatureKind.CATEGORY, {"device": {"os": value}}) == text


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 10**400, "1", True, None])
def test_what_is_no_finite_number_is_missing(value: Any) -> None:
    """Infinities, NaN, integers beyond doubles, texts, booleans."""
    assert math.isnan(read("device.devicetype", FeatureKind.NUMBER, {"device": {"devicetype": value}}))
