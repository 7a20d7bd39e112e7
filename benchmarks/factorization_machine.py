"""Factorization machines as a peer: every pair of fields by the product of their values' vectors.

log-odds = b + Σ w_i + Σ_{f<g} r_fg ⟨v_f, v_g⟩: plain (Rendle 2010) with r = 1, field-weighted (Pan et al., WWW 2018)
with learnt r. AdaGrad on batches of 512 rows, L2 on what a batch touches, as many epochs as held-out rows ask for.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bidml.metrics import log_loss_from_log_odds

Doubles = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
BATCH, MAX_EPOCHS, PATIENCE = 512, 20, 2


@dataclass
class FactorizationMachine:
    """`n_values`: of all fields together; codes are (n, n_fields), each field with codes of its own."""

    n_values: int
    n_fields: int
    is_weighted: bool
    rank: int = 8
    rate: float = 0.05
    l2: float = 1e-3
    seed: int = 0
    parts: dict[str, Doubles] = field(default_factory=dict)

    def fit(self, codes: Codes, y: Doubles, codes_held: Codes, y_held: Doubles) -> FactorizationMachine:
        rng = np.random.default_rng(self.seed)
        rate = y.mean()
        self.parts = {
            "b": np.array([np.log(rate) - np.log1p(-rate)]),
            "w": np.zeros(self.n_values),
            "v": rng.normal(0.0, 0.02, (self.n_values, self.rank)),
            "r": np.ones((self.n_fields, self.n_fields)),
        }
        seen = {name: np.full(part.shape, 1e-3) for name, part in self.parts.items()}
        best, best_loss, since = self._copy(), log_loss_from_log_odds(y_held, self.log_odds(codes_held)), 0
        for _ in range(MAX_EPOCHS):
            order = rng.permutation(len(y))
            for first in range(0, len(y), BATCH):
                rows = order[first : first + BATCH]
                self._learn(codes[rows], y[rows], seen)
            loss = log_loss_from_log_odds(y_held, self.log_odds(codes_held))
            if loss < best_loss:
                best, best_loss, since = self._copy(), loss, 0
            else:
                since += 1
            if since == PATIENCE:
                break
        self.parts = best
        return self

    def log_odds(self, codes: Codes) -> Doubles:
        """(n,)."""
        blocks = np.array_split(codes, max(1, len(codes) // 8192))
        return np.concatenate([self._forward(block)[0] for block in blocks])

    def _copy(self) -> dict[str, Doubles]:
        return {name: part.copy() for name, part in self.parts.items()}

    def _forward(self, codes: Codes) -> tuple[Doubles, Doubles, Doubles]:
        """Log-odds; vectors (n, n_fields, rank); per field the weighted sum of the others' vectors."""
        p = self.parts
        vectors = p["v"][codes]
        pairs = p["r"] - np.diag(np.diag(p["r"]))
        others = np.einsum("fg,ngk->nfk", pairs, vectors)
        return p["b"][0] + p["w"][codes].sum(1) + 0.5 * (vectors * others).sum((1, 2)), vectors, others

    def _learn(self, codes: Codes, y: Doubles, seen: dict[str, Doubles]) -> None:
        p = self.parts
        log_odds, vectors, others = self._forward(codes)
        error = (1.0 / (1.0 + np.exp(-log_odds)) - y) / len(y)
        touched, at = np.unique(codes, return_inverse=True)
        at = at.reshape(-1)
        of_w = (
            np.bincount(at, np.repeat(error, codes.shape[1]), len(touched))
            + self.l2 / len(y) * p["w"][touched]
        )
        each = (error[:, None, None] * others).reshape(-1, self.rank)
        of_v = np.stack([np.bincount(at, each[:, k], len(touched)) for k in range(self.rank)], 1)
        of_v += self.l2 / len(y) * p["v"][touched]
        self._step("b", np.array([0]), np.array([error.sum()]), seen)
        self._step("w", touched, of_w, seen)
        self._step("v", touched, of_v, seen)
        if self.is_weighted:
            of_r = np.einsum("n,nfk,ngk->fg", error, vectors, vectors)
            self._step("r", np.arange(self.n_fields), of_r, seen)

    def _step(self, name: str, where: Codes, gradient: Doubles, seen: dict[str, Doubles]) -> None:
        seen[name][where] += gradient**2
        self.parts[name][where] -= self.rate * gradient / np.sqrt(seen[name][where])
