"""What really holds in a simulated log, row by row, to be asked of: pctr, win rate, best bid, surplus."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bidml.contract import AuctionType
from bidml.features import Doubles
from bidml.pricing import WinCurve, optimal_bid_cpm
from bidml.simulate.shapes import Empirical, LogLogistic, PriceShape

_COARSE: Final = 96
_FINE: Final = 25
_ZOOMS: Final = 4
_LOWEST_LOGIT, _HIGHEST_LOGIT = -14.0, 9.0  # of bid / value
_ROWS_AT_ONCE: Final = 1 << 15
_QUADRATURE: Final = np.polynomial.legendre.leggauss(64)
_BELOW, _ABOVE = 25.0, 14.0  # scales of ln price
_NUDGE: Final = 1e-9  # relative; a bid at an atom of the price must not round to below it


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The truth of n auctions; every array has shape (n,). A method takes one number per auction, or one for all.

    The competitors' highest bid M has ln M = `location` + `scale` · z, z of `shape`; a bid wins on price when it is at
    least max(M, floor), the `market_price_cpm` that was drawn. Win rates are about the price alone: a share
    `non_price_losses` of the bids is lost whatever the price, which moves no optimum.
    """

    shape: PriceShape
    pctr: Doubles
    pcvr: Doubles
    location: Doubles
    scale: Doubles
    shape_parameter: Doubles
    floor_cpm: Doubles
    auction_type: npt.NDArray[np.int64]
    market_price_cpm: Doubles
    non_price_losses: Doubles

    def __len__(self) -> int:
        return len(self.pctr)

    def __getitem__(self, rows: Any) -> Truth:
        """The truth of some rows: a slice, a mask or indices."""
        arrays = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "shape"}
        return replace(self, **arrays)

    def win_rate(self, bid_cpm: npt.ArrayLike) -> Doubles:
        """P(bid wins on price), (n,); 0 below the floor and for a bid of 0."""
        bid = np.broadcast_to(np.asarray(bid_cpm, dtype=np.float64), self.pctr.shape)
        return np.where((bid > 0.0) & (bid >= self.floor_cpm), self._competition(bid), 0.0)

    def density(self, bid_cpm: npt.ArrayLike) -> Doubles:
        """dF/db of the competitors' highest bid, (n,), per CPM; b > 0. Raises `DataError` for EMPIRICAL."""
        bid = np.broadcast_to(np.asarray(bid_cpm, dtype=np.float64), self.pctr.shape)
        z = (np.log(bid) - self.location) / self.scale
        return self.shape.pdf(z, self.shape_parameter) / (self.scale * bid)

    def optimal_bid_cpm(self, value_cpm: npt.ArrayLike, *, cap_cpm: npt.ArrayLike = np.inf) -> Doubles:
        """The bid of greatest expected surplus, (n,); 0.0 where v ≤ floor or cap < floor.

        First price: in closed form for LOG_LOGISTIC, by search on a grid that is refined around its best point
        otherwise (relative error of the surplus below 1e-7), over all atoms for EMPIRICAL. Second price: v.
        """
        value, cap = (
            np.broadcast_to(np.asarray(x, dtype=np.float64), self.pctr.shape) for x in (value_cpm, cap_cpm)
        )
        if isinstance(self.shape, LogLogistic):
            return optimal_bid_cpm(
                value,
                WinCurve(self.location, 1.0 / self.scale),
                floor_cpm=self.floor_cpm,
                cap_cpm=cap,
                auction_type=self.auction_type,
            )
        with np.errstate(invalid="ignore"):
            valid = (value > self.floor_cpm) & (value < np.inf) & (cap >= self.floor_cpm) & (cap > 0.0)
        best = np.where(valid, np.minimum(value, cap), 0.0)
        search = np.flatnonzero(valid & (self.auction_type == AuctionType.FIRST_PRICE))
        for start in range(0, len(search), _ROWS_AT_ONCE):
            rows = search[start : start + _ROWS_AT_ONCE]
            best[rows] = self[rows]._searched_bid_cpm(value[rows], best[rows])
        return best

    def expected_surplus_cpm(self, value_cpm: npt.ArrayLike, bid_cpm: npt.ArrayLike) -> Doubles:
        """E[(value − price) · won on price], (n,), CPM; the price is the bid, or max(M, floor) in second price."""
        value, bid = (
            np.broadcast_to(np.asarray(x, dtype=np.float64), self.pctr.shape) for x in (value_cpm, bid_cpm)
        )
        surplus = np.where(bid > 0.0, (value - bid) * self.win_rate(bid), 0.0)
        saved = np.flatnonzero((self.auction_type == AuctionType.SECOND_PRICE) & (bid > self.floor_cpm))
        for start in range(0, len(saved), _ROWS_AT_ONCE):
            rows = saved[start : start + _ROWS_AT_ONCE]
            surplus[rows] += self[rows]._saved_cpm(bid[rows])
        return surplus

    def oracle_surplus_cpm(self, value_cpm: npt.ArrayLike, *, cap_cpm: npt.ArrayLike = np.inf) -> Doubles:
        """The expected surplus of the best bid, (n,), CPM: what no policy exceeds."""
        return self.expected_surplus_cpm(value_cpm, self.optimal_bid_cpm(value_cpm, cap_cpm=cap_cpm))

    def _competition(self, bid_cpm: Doubles) -> Doubles:
        """F of the competitors' highest bid; `bid_cpm` (n,)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (np.log(np.maximum(bid_cpm, 0.0)) - self.location) / self.scale
        return self.shape.cdf(z, self.shape_parameter)

    def _searched_bid_cpm(self, value: Doubles, highest: Doubles) -> Doubles:
        """The best first-price bid on [floor, highest], (n,), for valid rows."""
        if isinstance(self.shape, Empirical):
            return self._best_atom_cpm(self.shape, value, highest)

        location, scale, extra, v = (
            column[:, None] for column in (self.location, self.scale, self.shape_parameter, value)
        )
        lowest, highest_logit = _logit(self.floor_cpm / value), _logit(highest / value)
        logits = np.linspace(lowest, highest_logit, _COARSE, axis=1)
        step = (highest_logit - lowest) / (_COARSE - 1)
        for _ in range(_ZOOMS):
            bids = np.clip(v / (1.0 + np.exp(-logits)), self.floor_cpm[:, None], highest[:, None])
            rates = self.shape.cdf((np.log(bids) - location) / scale, extra)
            at = ((v - bids) * rates).argmax(axis=1)[:, None]
            best = np.take_along_axis(logits, at, axis=1)[:, 0]
            logits = np.linspace(
                np.maximum(best - step, lowest), np.minimum(best + step, highest_logit), _FINE, axis=1
            )
            step = 2.0 * step / (_FINE - 1)
        return np.take_along_axis(bids, at, axis=1)[:, 0]

    def _best_atom_cpm(self, shape: Empirical, value: Doubles, highest: Doubles) -> Doubles:
        """The best of the atoms, the floor and the highest bid allowed; spikes make many local maxima."""
        best = np.empty(len(value))
        for start in range(0, len(value), _ROWS_AT_ONCE // 16):
            rows = slice(start, start + _ROWS_AT_ONCE // 16)
            which = self.shape_parameter[rows].astype(np.int64)
            atoms = np.exp(self.location[rows, None] + self.scale[rows, None] * shape.atoms[which])
            bids = np.concatenate(
                [atoms * (1.0 + _NUDGE), self.floor_cpm[rows, None], highest[rows, None]], axis=1
            )
            edges = self[rows]
            rates = np.concatenate(
                [
                    shape.cumulative[which],
                    edges._competition(self.floor_cpm[rows])[:, None],
                    edges._competition(highest[rows])[:, None],
                ],
                axis=1,
            )
            allowed = (bids >= self.floor_cpm[rows, None]) & (bids <= highest[rows, None]) & (bids > 0.0)
            surplus = np.where(allowed, (value[rows, None] - bids) * rates, -np.inf)
            at = surplus.argmax(axis=1)
            best[rows] = np.take_along_axis(bids, at[:, None], axis=1)[:, 0]
        return best

    def _saved_cpm(self, bid: Doubles) -> Doubles:
        """∫ F over [floor, bid], (n,): what second price pays less than the bid, on average."""
        if isinstance(self.shape, Empirical):
            which = self.shape_parameter.astype(np.int64)
            atoms = np.exp(self.location[:, None] + self.scale[:, None] * self.shape.atoms[which])
            share = np.diff(self.shape.cumulative[which], axis=1, prepend=0.0)
            below = np.maximum(bid[:, None] - np.maximum(atoms, self.floor_cpm[:, None]), 0.0)
            return np.asarray((share * below).sum(axis=1))
        # ∫ F(e^u) e^u du in two panels: around the price's own spread, and above it
        with np.errstate(divide="ignore"):
            lowest = np.maximum(np.log(self.floor_cpm), self.location - _BELOW * self.scale)
        split = np.clip(self.location + _ABOVE * self.scale, lowest, np.maximum(lowest, np.log(bid)))
        ends = (np.minimum(lowest, np.log(bid)), split, np.log(bid))
        return self._panel_cpm(*ends[:2]) + self._panel_cpm(*ends[1:])

    def _panel_cpm(self, low: Doubles, high: Doubles) -> Doubles:
        points, weights = _QUADRATURE
        half = 0.5 * (high - low)[:, None]
        u = low[:, None] + half * (1.0 + points)
        rates = self.shape.cdf(
            (u - self.location[:, None]) / self.scale[:, None], self.shape_parameter[:, None]
        )
        return np.asarray((rates * np.exp(u) * weights * half).sum(axis=1))


def _logit(shading_factor: Doubles) -> Doubles:
    """ln(f / (1 − f)) inside the range that is searched."""
    with np.errstate(divide="ignore"):
        logit = np.log(shading_factor) - np.log1p(-shading_factor)
    return np.asarray(np.clip(logit, _LOWEST_LOGIT, _HIGHEST_LOGIT))
