"""Money and its units.

A price per thousand impressions is a CPM; exchanges and billing systems also speak in micros (millionths of a
currency unit). One CPM is 1,000 micros per impression. A float that holds money carries its unit in its name.
"""

from __future__ import annotations

MICROS_PER_UNIT = 1_000_000
IMPRESSIONS_PER_CPM = 1_000


def cpm_to_micros_per_impression(price_cpm: float) -> float:
    """Micros of the currency per impression: `price_cpm / 1000 · 10⁶`.

    >>> cpm_to_micros_per_impression(2.5)
    2500.0
    """
    return price_cpm * (MICROS_PER_UNIT / IMPRESSIONS_PER_CPM)


def micros_per_impression_to_cpm(price_micros: float) -> float:
    """The inverse of `cpm_to_micros_per_impression`.

    >>> micros_per_impression_to_cpm(2500.0)
    2.5
    """
    return price_micros / (MICROS_PER_UNIT / IMPRESSIONS_PER_CPM)


def is_currency_code(code: object) -> bool:
    """True for the shape of an ISO 4217 code: three upper-case ASCII letters.

    >>> is_currency_code("USD"), is_currency_code("usd"), is_currency_code(None)
    (True, False, False)
    """
    return isinstance(code, str) and len(code) == 3 and code.isascii() and code.isalpha() and code.isupper()
