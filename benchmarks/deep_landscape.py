"""Deep Landscape Forecasting as a peer: a recurrent network that walks the bins of price (Ren et al., KDD 2019).

From the cheapest bin to the dearest, an LSTM is told what the auction's features come to and which bin it is, and says
the conditional hazard h_l = P(price in bin l | not below it). Then S_l = Π_{k<l} (1 − h_k), P(bin l) = h_l S_l, and

    loss = α · Σ_{known prices} −ln P(its bin)  +  (1 − α) · Σ_{all} −ln P(outcome at the bid)

(the paper's equations; α = 1/4 here). A win then weighs a third more than a loss does, which lifts the win rate. So the
other choice is the censored likelihood: −ln P(bin) of a known price, −ln P(outcome) of all others. A closed log knows
no price, there both are one. PyTorch is an optional package.

Where this is not the authors' program: a bin is two ticks of the price, its edges between ticks, and within it the
cumulative hazard is a straight line, in the likelihood as in the answers; values seen in fewer than five rows share one
vector; one optimiser on the sum of both losses; the better of two settings and its number of epochs by the loss on the
last 15 % of the training rows, then learnt again on all.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.contract import FeatureKind, FeatureSpec
from bidml.features import Doubles, RawColumns, raw_columns
from bidml.fit import MarketPriceObservations
from bidml.fit.win_baselines import grid_bid_cpm

Codes = npt.NDArray[np.int64]

ALPHA: Final = 0.25
SETTINGS: Final = ((8, 32, 0.0), (16, 32, 0.3))  # numbers a category, state of the LSTM, dropout
BATCH, RATE, MAX_EPOCHS, PATIENCE = 256, 4e-3, 30, 3
HELD_OUT: Final = 0.15
MIN_COUNT: Final = 5
_MIDDLE: Final = 32
_SMALLEST: Final = 1e-12
_ROWS_AT_ONCE: Final = 1024


@dataclass(frozen=True)
class Bins:
    """`n` bins, each of the prices of `width` ticks, from one tick on; what lies above has no bin."""

    tick_cpm: float
    width: int
    n: int

    def position(self, price_cpm: npt.ArrayLike) -> Doubles:
        """Where a price lies, in bins from the lower edge of the first; from 0 to n."""
        ticks = np.asarray(price_cpm, dtype=np.float64) / self.tick_cpm
        found: Doubles = np.clip((ticks - 0.5) / self.width, 0.0, float(self.n))
        return found


@dataclass(frozen=True)
class _Rows:
    """Training rows: `codes` (n, n_categories), `numbers` (n, n_numbers); `price`, `bid` positions in bins, (n,)."""

    codes: Codes
    numbers: Doubles
    price: Doubles
    bid: Doubles
    has_price: npt.NDArray[np.bool_]
    won: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.bid)

    def __getitem__(self, rows: Any) -> _Rows:
        return _Rows(*(getattr(self, field.name)[rows] for field in fields(self)))


class _Inputs:
    """Categories as codes, 0 for the rare and the unseen; numbers standardised, a missing one is 0."""

    def __init__(self, columns: RawColumns, spec: FeatureSpec) -> None:
        self._categories = [f.name for f in spec.features if f.kind is FeatureKind.CATEGORY]
        self._numbers = [f.name for f in spec.features if f.kind is FeatureKind.NUMBER]
        self._codes: dict[str, dict[str, int]] = {}
        for name in self._categories:
            counts = pd.Series(columns[name]).value_counts()
            kept = counts.index[counts >= MIN_COUNT]
            self._codes[name] = dict(zip(kept, range(1, len(kept) + 1), strict=True))
        self._moments = {
            name: (np.nanmean(columns[name]), np.nanstd(columns[name]) + 1e-9) for name in self._numbers
        }

    @property
    def n_values(self) -> list[int]:
        return [len(self._codes[name]) + 1 for name in self._categories]

    @property
    def n_numbers(self) -> int:
        return len(self._numbers)

    def codes(self, columns: RawColumns) -> Codes:
        found = np.zeros((len(next(iter(columns.values()))), len(self._categories)), dtype=np.int64)
        for i, name in enumerate(self._categories):
            found[:, i] = pd.Series(columns[name]).map(self._codes[name]).fillna(0).to_numpy(dtype=np.int64)
        return found

    def numbers(self, columns: RawColumns) -> Doubles:
        found = np.zeros((len(next(iter(columns.values()))), len(self._numbers)))
        for i, name in enumerate(self._numbers):
            mean, spread = self._moments[name]
            found[:, i] = np.nan_to_num((columns[name] - mean) / spread, nan=0.0)
        return found


def _network(inputs: _Inputs, size: tuple[int, int, float]) -> Any:
    import torch
    from torch import nn

    n_each, n_state, dropout = size

    class Hazards(nn.Module):
        """(codes, numbers, n_bins) → Λ, the cumulative hazard of each bin alone, (n, n_bins)."""

        def __init__(self) -> None:
            super().__init__()
            self.vectors = nn.ModuleList(nn.Embedding(n, n_each) for n in inputs.n_values)
            self.middle = nn.Linear(n_each * len(inputs.n_values) + inputs.n_numbers, _MIDDLE)
            self.walk = nn.LSTM(_MIDDLE + 1, n_state, batch_first=True)
            self.last = nn.Linear(n_state, 1)
            self.drop = nn.Dropout(dropout)
            for vectors in self.vectors:
                nn.init.normal_(vectors.weight, std=0.1)
            nn.init.constant_(self.last.bias, -4.0)

        def forward(self, codes: Any, numbers: Any, n_bins: int) -> Any:
            found = [vectors(codes[:, i]) for i, vectors in enumerate(self.vectors)]
            auction = torch.relu(self.middle(torch.cat([self.drop(torch.cat(found, 1)), numbers], 1)))
            which = (torch.arange(n_bins) / 50.0).expand(len(codes), n_bins)[:, :, None]
            steps = torch.cat([auction[:, None, :].expand(-1, n_bins, -1), which], 2)
            return nn.functional.softplus(self.last(self.walk(steps)[0])[:, :, 0])  # −ln(1 − h)

    return Hazards()


def _loss(network: Any, rows: _Rows, alpha: float | None) -> Any:
    """Sum over rows, a tensor; without `alpha`, the censored likelihood's."""
    import torch

    n_bins = int(np.ceil(max(rows.bid.max(), rows.price.max()))) + 1
    codes, numbers, bid, price = (
        torch.from_numpy(x) for x in (rows.codes, rows.numbers.astype(np.float32), rows.bid, rows.price)
    )
    hazards = network(codes, numbers, n_bins)
    until = torch.nn.functional.pad(torch.cumsum(hazards, 1), (1, 0))  # at the edges

    def at(positions: Any) -> Any:
        low = positions.long()
        part = (positions - low).to(until.dtype)
        return until.gather(1, low[:, None])[:, 0] + part * hazards.gather(1, low[:, None])[:, 0]

    at_bid, known = at(bid), torch.from_numpy(rows.has_price)
    outcome = torch.where(torch.from_numpy(rows.won), -torch.log(-torch.expm1(-at_bid) + _SMALLEST), at_bid)
    of = price.long()[known][:, None]
    in_bin = -torch.expm1(-hazards[known].gather(1, of)[:, 0])
    of_prices = (until[known].gather(1, of)[:, 0] - torch.log(in_bin + _SMALLEST)).sum()
    if alpha is None:
        return outcome[~known].sum() + of_prices
    return (1.0 - alpha) * outcome.sum() + alpha * of_prices


def _learn(
    inputs: _Inputs,
    rows: _Rows,
    size: tuple[int, int, float],
    *,
    alpha: float | None,
    seed: int,
    held: _Rows | None = None,
    epochs: int = MAX_EPOCHS,
) -> tuple[Any, float, int]:
    """The network after `epochs`; with `held` rows the least loss on them, and after how many epochs it came."""
    import torch

    rng = np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _network(inputs, size)
        optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
        best, best_at = np.inf, 0
        for epoch in range(1, epochs + 1):
            network.train()
            order = rng.permutation(len(rows))
            for start in range(0, len(order), BATCH):
                batch = rows[order[start : start + BATCH]]
                optimiser.zero_grad()
                (_loss(network, batch, alpha) / len(batch)).backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
                optimiser.step()
            if held is None:
                continue
            network.eval()
            with torch.no_grad():
                loss = float(_loss(network, held, alpha)) / len(held)
            if loss < best:
                best, best_at = loss, epoch
            elif epoch - best_at >= PATIENCE:
                break
    network.eval()
    return network, best, best_at


@dataclass(frozen=True)
class _Curves:
    """Win rates of rows from their cumulative hazards at the bins' edges, (n, n_bins + 1)."""

    bins: Bins
    until: npt.NDArray[np.float32]

    def predict_win_rate(self, X: pd.DataFrame, bid_cpm: npt.ArrayLike) -> Doubles:
        """`X`: its index tells the rows; `bid_cpm` (len(X),)."""
        which = X.index.to_numpy()
        position = self.bins.position(np.broadcast_to(bid_cpm, (len(which),)))
        low = np.minimum(position.astype(np.int64), self.bins.n - 1)
        below, above = (self.until[which, edge].astype(np.float64) for edge in (low, low + 1))
        found: Doubles = -np.expm1(-(below + (position - low) * (above - below)))
        return found


class DeepLandscape:
    """A `Policy` of `win_curves`: fitted, it bids the best point of a grid, like the other curves without a formula."""

    def __init__(self, bins: Bins, seed: int, *, alpha: float | None = None) -> None:
        self.bins, self._seed, self._alpha = bins, seed, alpha
        self._last: tuple[pd.DataFrame, _Curves] | None = None

    def fit(self, spec: FeatureSpec, X: pd.DataFrame, y: MarketPriceObservations) -> DeepLandscape:
        columns = raw_columns(X, spec)
        self._spec, self._inputs = spec, _Inputs(columns, spec)
        rows = _Rows(
            self._inputs.codes(columns),
            self._inputs.numbers(columns),
            self.bins.position(np.where(y.exact, y.lower_cpm, 0.0)),
            self.bins.position(y.bid_cpm),
            y.exact,
            y.won,
        )[np.flatnonzero(y.informative)]
        at = round((1.0 - HELD_OUT) * len(rows))
        found = []
        for size in SETTINGS:
            _, loss, epochs = _learn(
                self._inputs, rows[:at], size, alpha=self._alpha, seed=self._seed, held=rows[at:]
            )
            found.append((loss, epochs, size))
        self.chosen = min(found)
        _, epochs, size = self.chosen
        self._network = _learn(self._inputs, rows, size, alpha=self._alpha, seed=self._seed, epochs=epochs)[0]
        return self

    def win_rate(self, X: pd.DataFrame, bid_cpm: Doubles) -> Doubles:
        return self._curves(X).predict_win_rate(X.reset_index(drop=True), bid_cpm)

    def bid_cpm(self, X: pd.DataFrame, value_cpm: Doubles, floor_cpm: Doubles) -> Doubles:
        numbered = pd.DataFrame(index=np.arange(len(X)))
        return grid_bid_cpm(self._curves(X), numbered, value_cpm, floor_cpm=floor_cpm)

    def _curves(self, X: pd.DataFrame) -> _Curves:
        if self._last is None or self._last[0] is not X:
            self._last = (X, _Curves(self.bins, self._until(X)))
        return self._last[1]

    def _until(self, X: pd.DataFrame) -> npt.NDArray[np.float32]:
        import torch

        columns = raw_columns(X, self._spec)
        codes = torch.from_numpy(self._inputs.codes(columns))
        numbers = torch.from_numpy(self._inputs.numbers(columns).astype(np.float32))
        parts = [np.zeros((0, self.bins.n), dtype=np.float32)]
        with torch.no_grad():
            for start in range(0, len(codes), _ROWS_AT_ONCE):
                some = slice(start, start + _ROWS_AT_ONCE)
                parts.append(self._network(codes[some], numbers[some], self.bins.n).numpy())
        return np.pad(np.cumsum(np.concatenate(parts), axis=1), ((0, 0), (1, 0)))
