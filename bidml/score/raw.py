"""The bidder's feature extraction, for those who prepare training data from logged requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bidml.blueprint import Blueprint
from bidml.contract import FeatureKind, FeatureSpec
from bidml.score import _native


class RawExtractor:
    """Requests → raw feature values, by the code that runs in the bidder. Not for the hot path.

    >>> from bidml.contract import Feature
    >>> extractor = RawExtractor(FeatureSpec((Feature("country", "category", "device.geo.country"),)))
    >>> extractor({"imp": [{}], "device": {"geo": {"country": "DEU"}}})
    {'country': 'DEU'}
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        blueprint = Blueprint(spec=spec, ctr=None, win=None, currency="USD")
        self._native = _native.NativeScorer(blueprint, [], None, "scalar")
        self._slots: dict[str, tuple[bool, int]] = self._native._slots()

    def __call__(
        self, request: Mapping[str, Any], line_item: Mapping[str, object] | None = None, *, imp: int = 0
    ) -> dict[str, str | float]:
        """One value per feature: text, "" when missing; float, NaN when missing.

        `line_item` gives the fields of `line_item.` sources. What a missing impression would say is missing. Text
        that no key can equal (over 1024 characters, lone surrogates) is `contract.UNMATCHABLE`.
        """
        imps = request.get("imp")
        impression = imps[imp] if isinstance(imps, list) and -1 < imp < len(imps) else None
        categories, numbers = self._native._extract(
            request if isinstance(request, dict) else {}, impression if isinstance(impression, dict) else {}
        )
        values: dict[str, str | float] = {}
        for feature in self.spec.features:
            if feature.source.startswith("line_item."):
                found = (line_item or {}).get(feature.source.removeprefix("line_item."))
                values[feature.name] = line_item_value(feature.kind, found)
            else:
                is_category, slot = self._slots[feature.name]
                values[feature.name] = categories[slot] if is_category else numbers[slot]
        return values

    def columns(
        self, requests: Iterable[Mapping[str, Any]], line_items: Iterable[Mapping[str, object]]
    ) -> dict[str, list[str | float]]:
        """The same for many: one list per feature, in the order of the requests."""
        rows = [self(request, line_item) for request, line_item in zip(requests, line_items, strict=True)]
        return {name: [row[name] for row in rows] for name in self.spec.names}


def line_item_value(kind: FeatureKind, found: object) -> str | float:
    """A line item's field as the raw value of a feature: the same rule as for a field of a request."""
    value: str | float = (_native.raw_category if kind is FeatureKind.CATEGORY else _native.raw_number)(found)
    return value
