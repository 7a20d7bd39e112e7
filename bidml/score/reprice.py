"""Prices logged decisions again with the artifact that made them: the same bits, or something is wrong.

Standard library only.
"""

from __future__ import annotations

import base64
import copy
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bidml.contract import NoBidReason
from bidml.errors import ArtifactError, DataError
from bidml.score.decision_log import VERSION
from bidml.score.explanation import Explanation
from bidml.score.exploration import NONE, Exploration
from bidml.score.reader import parse_artifact
from bidml.score.scorer import AMOUNTS, LineItem, Scorer

_LATEST: Final = 1e11  # seconds: the extractor's bound


@dataclass(frozen=True, slots=True)
class Repriced:
    """What a decision was, `logged`, and what it is now, `found`: (bid in CPM, reason, deal).

    The deal is None but where `decide_deal` took one, and `explanation` is of it. `propensities`: of the bids, NaN
    where they were not varied.
    """

    logged: tuple[float, int, str | None]
    found: tuple[float, int, str | None]
    explanation: Explanation
    propensities: tuple[float, float] = (math.nan, math.nan)

    @property
    def is_equal(self) -> bool:
        """To the last bit."""
        (a, *logged), (b, *found) = self.logged, self.found
        before, now = self.propensities
        return (a.hex(), before.hex(), logged) == (b.hex(), now.hex(), found)

    def __str__(self) -> str:
        (bid, reason, _), (now, reason_now, _) = self.logged, self.found
        text = (
            f"logged {bid!r} ({NoBidReason(reason).name.lower()}), now {now!r} "
            f"({NoBidReason(reason_now).name.lower()})"
        )
        if all(map(math.isnan, self.propensities)):
            return text
        return "{}; propensity {!r}, now {!r}".format(text, *self.propensities)


class Repricer:
    """Finds artifacts by their digest in `artifacts`: a publication's folder, or one file."""

    def __init__(self, artifacts: str | Path) -> None:
        self._artifacts = Path(artifacts)
        self._scorers: dict[tuple[str, str], Scorer] = {}

    def __call__(self, record: Mapping[str, Any]) -> Repriced:
        """Raises `DataError` for a record that no `DecisionLog` wrote, `ArtifactError` without its artifact."""
        try:
            scorer = self._scorer(record["sha256"], record["rates"])
            by_deals = "deals" in record
            soft_floor = record.get("soft_floor_cpm")
            line = _line_item(scorer, record)
            imp = int(record["imp"])
            request = _request(record, scorer.spec.timestamp_ms_source)
            logged = (float.fromhex(record["bid_cpm"]), int(record["reason"]), record.get("deal"))
            propensity = float.fromhex(record.get("propensity") or "nan")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"a record is of a decision log, version {VERSION}",
                value=f"{error!r} in {str(record)[:200]}",
                remedy="give a file that DecisionLog wrote",
            ) from None
        if isinstance(request, bytes):  # not JSON
            nothing = (*scorer.decide_json(request, line, imp, soft_floor), None)
            return Repriced(
                logged, nothing, scorer.explain(None, line, imp, soft_floor), (propensity, math.nan)
            )
        explain = scorer.explain_deal if by_deals else scorer.explain
        explanation = explain(request, line, imp, soft_floor)
        if by_deals:
            offer = scorer.decide_deal(request, line, imp, soft_floor)
            return Repriced(logged, offer, explanation, (propensity, offer.propensity))
        decision = scorer.decide(request, line, imp, soft_floor)
        return Repriced(logged, (*decision, None), explanation, (propensity, decision.propensity))

    def _scorer(self, sha256: str, rates: Mapping[str, str]) -> Scorer:
        key = (sha256, json.dumps(rates, sort_keys=True))
        if key not in self._scorers:
            path = self._artifacts
            if path.is_dir():
                path = path / f"{sha256}.onnx"
            try:
                artifact = parse_artifact(path.read_bytes())
            except OSError as error:
                raise ArtifactError(
                    "the artifact of a logged decision is at hand",
                    value=str(error),
                    remedy="name the folder that published it, or its file",
                ) from None
            if artifact.sha256 != sha256:
                raise ArtifactError(
                    "a decision is priced again by the artifact that made it",
                    value=artifact.sha256,
                    remedy=f"find the file of {sha256}",
                )
            self._scorers[key] = Scorer(
                artifact, rates={code: float.fromhex(rate) for code, rate in rates.items()}
            )
        return self._scorers[key]


def _line_item(scorer: Scorer, record: Mapping[str, Any]) -> LineItem:
    terms = record["line_item"]
    names = ("value_per_click", "cap_cpm", "pacing_multiplier")
    money: dict[str, Any] = {name: float.fromhex(terms[name]) for name in names}
    for name in AMOUNTS:
        if name in terms:  # older records know clicks only
            money[name] = float.fromhex(terms[name])
    if "risk_aversion" in record:
        money["risk_aversion"] = float.fromhex(record["risk_aversion"])
    how = Exploration.from_json(record["exploration"]) if "exploration" in record else NONE
    return scorer.bound_line_item(
        deals=record.get("deals", ()),
        exploration_share=how.share,
        exploration_sigma=how.sigma,
        exploration_salt=how.salt,
        **money,
        **terms["fields"],
    )


def _request(record: Mapping[str, Any], timestamp_source: str) -> Any:
    """As it was; without a time of its own it gets the bidder's, which the bid may depend on."""
    request = copy.deepcopy(record.get("request"))
    if "request_base64" in record:
        data = base64.b64decode(record["request_base64"], validate=True)
        try:
            request = json.loads(data)
        except (ValueError, RecursionError):
            return data
    if isinstance(request, dict):
        _set_time(request, timestamp_source.split("."), int(record["imp"]), 1000 * int(record["seconds"]))
    return request


def _set_time(request: dict[str, Any], path: list[str], imp: int, milliseconds: int) -> None:
    holder: Any = request
    for key in path[:-1]:
        if key == "imp":
            imps = holder.get(key)
            if not (isinstance(imps, list) and imp < len(imps) and isinstance(imps[imp], dict)):
                return
            holder = imps[imp]
        else:
            if not isinstance(holder.get(key), dict):
                holder[key] = {}
            holder = holder[key]
    found = holder.get(path[-1])
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    if not (is_number and 0.0 <= found / 1000.0 < _LATEST):
        holder[path[-1]] = milliseconds
