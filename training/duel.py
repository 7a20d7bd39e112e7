"""Champion and challenger in the same held-out auctions, for the report; the gate judges by itself."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bidml.errors import BidmlError
from bidml.features import raw_columns
from bidml.report import Duel
from bidml.score import Scorer
from bidml.score.reader import parse_artifact
from bidml.train.assess import estimates_of
from bidml.train.config import TrainConfig
from bidml.train.evaluate import terms_of
from training.referee import Opinion, Referee


def duel_of(challenger: bytes, champion: bytes, test: pd.DataFrame, config: TrainConfig) -> Duel | None:
    """Bids and the referee's surplus of both, in the auctions that can be judged; None where one cannot bid."""
    opinions = []
    for model in (champion, challenger):
        try:
            scorer = Scorer(parse_artifact(model))
            found = estimates_of(scorer, config, test, raw_columns(test, scorer.blueprint.spec))
        except BidmlError:
            return None  # the gate says why
        if found.pctr is None or found.curve is None or found.bid_cpm is None:
            return None
        opinions.append(Opinion(found.pctr, found.curve, found.bid_cpm))
    pricing = config.pricing
    terms = terms_of(
        test,
        value_per_click=pricing.value_per_click,
        cap_cpm=pricing.cap_cpm,
        auction_type=pricing.default_auction_type,
    )
    if terms is None:
        return None
    referee = Referee(test, terms, opinions)
    rows = np.flatnonzero(referee.counts)
    old, new = (opinion.bid_cpm for opinion in opinions)
    return Duel(old[rows], new[rows], referee.surplus_cpm(old)[rows], referee.surplus_cpm(new)[rows])
