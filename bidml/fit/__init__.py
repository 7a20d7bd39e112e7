"""Fitted models: scikit-learn-style estimators that end as parts of a blueprint."""

from bidml.fit.ctr import ClickModel
from bidml.fit.cvr import ConversionModel
from bidml.fit.identifiability import Identifiability, IdentifiabilityWarning
from bidml.fit.labels import LeakWarning
from bidml.fit.observations import Floors, MarketPriceObservations
from bidml.fit.refresh import refresh_clicks, refresh_win_curve
from bidml.fit.win_rate import FallbackWarning, WinRateModel

__all__ = [
    "ClickModel",
    "ConversionModel",
    "FallbackWarning",
    "Floors",
    "Identifiability",
    "IdentifiabilityWarning",
    "LeakWarning",
    "MarketPriceObservations",
    "WinRateModel",
    "refresh_clicks",
    "refresh_win_curve",
]
