"""Bid pricing for demand-side platforms.

Import the part you need: the bidder `bidml.score`, the data scientist `bidml.fit`, `bidml.pricing`, `bidml.simulate`.
This module stays empty because Python runs it before `bidml.score`.
"""

__version__ = "0.1.0"
