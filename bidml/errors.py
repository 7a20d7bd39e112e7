"""What goes wrong, by who must act: the configuration, the data, or a refusal on purpose.

Every message has three parts: the rule that was broken, the value that broke it, the remedy.
The command line turns the family into its exit code.
"""

from __future__ import annotations


class BidmlError(Exception):
    """Base of every error bidml raises on purpose.

    Attributes: `rule` (what must hold), `value` (what was found), `remedy` (what to do), `exit_code`.
    """

    exit_code = 1

    def __init__(self, rule: str, *, value: object, remedy: str) -> None:
        self.rule = rule
        self.value = value
        self.remedy = remedy
        super().__init__(f"{rule}; found {_quote(value)}; {remedy}")


class ConfigError(BidmlError):
    """A configuration or an argument is not usable."""

    exit_code = 2


class DataError(BidmlError):
    """A log, a spec or a file of data is not usable."""

    exit_code = 3


class SpecError(DataError):
    """A feature spec contradicts itself, the log, or OpenRTB."""


class RefusedError(BidmlError):
    """The job could do it and must not: the result would not be safe to bid with."""

    exit_code = 4


class LostRankError(BidmlError):
    """One of the processes that train a model together is gone or unreachable: run the job again."""


class ExportError(RefusedError):
    """A fitted model has no exact form in the artifact (`linear_tree`, unknown objective, non-finite leaf)."""


class ArtifactError(RefusedError):
    """A file is not an artifact of this contract: damaged, altered, hostile, or of another version."""


class CertificateError(RefusedError):
    """Two evaluations of one artifact disagree: it must not be published."""


_LONGEST_QUOTE = 200


def _quote(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…"
