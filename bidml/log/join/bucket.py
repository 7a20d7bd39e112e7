"""One bucket joined: duplicates resolved, times judged, outcomes beside their bid."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bidml.log.join.engine import copy
from bidml.log.join.rules import NOTICES, JoinRules
from bidml.log.join.shuffle import Buckets
from bidml.log.join.staged import JOINED_COLUMNS, feature_columns, listed, literal, quoted
from bidml.log.schema import MONEY

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

DAY_MS: Final = 86_400_000
ORDER_COLUMN: Final = "__timestamp_ms"


@dataclass
class JoinCounts:
    """Sums over the buckets; see `JoinReport`."""

    events: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    out_of_time: Counter[str] = field(default_factory=Counter)
    set_aside: Counter[str] = field(default_factory=Counter)
    corrected: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    judged: Counter[str] = field(default_factory=Counter)  # events with a bid, by type
    dropped: Counter[str] = field(default_factory=Counter)  # of these out of time, by type
    lags_ms: dict[str, list[float]] = field(
        default_factory=dict
    )  # of the dropped, a median a bucket, by type
    n_rows: int = 0

    def example(self, rule: str, auction_id: str) -> None:
        """The smallest id, so that no order of buckets chooses it."""
        known = self.examples.get(rule)
        self.examples[rule] = auction_id if known is None else min(known, auction_id)


def join_bucket(
    connection: DuckDBPyConnection,
    bucket: int,
    bids: Buckets,
    outcomes: Buckets,
    folder: Path,
    rules: JoinRules,
    counts: JoinCounts,
) -> None:
    """Writes the auctions of one bucket below `folder`, by day, and adds to `counts`."""
    connection.execute(f"CREATE OR REPLACE TEMP VIEW all_bids AS {bids.sql(bucket)}")
    _one_bid_each(connection, bids, counts)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE events AS {outcomes.sql(bucket)}")
    if rules.judges_time:
        _judge_times(connection, rules, counts)
    _one_event_each(connection, outcomes, counts)
    connection.execute(_PIVOT)
    source = _auctions(rules)
    n_with_bid = _count_auctions(connection, source, counts)
    _count_without_bid(connection, n_with_bid, counts)
    query = (
        f"SELECT {_log_columns(bids, rules)}, timestamp_ms AS {ORDER_COLUMN}, "
        f"{_DAY} AS day FROM ({source}) WHERE aside IS NULL"
    )
    copy(connection, query, folder / f"{bucket:03}", "COMPRESSION uncompressed, PARTITION_BY (day)")


def _one_bid_each(connection: DuckDBPyConnection, bids: Buckets, counts: JoinCounts) -> None:
    """The view `bids`: of repeated bids the earliest. Only the repeated ones are sorted."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE repeated AS "
        "SELECT auction_id, count(*) - 1 AS n FROM all_bids GROUP BY auction_id HAVING count(*) > 1"
    )
    n, example = _row(connection, "SELECT coalesce(sum(n), 0), min(auction_id) FROM repeated")
    if not n:
        connection.execute("CREATE OR REPLACE TEMP VIEW bids AS SELECT * FROM all_bids")
        return
    counts.notes["repeated_bid"] += int(n)
    counts.events["repeated"] += int(n)
    counts.example("repeated_bid", example)
    order = listed(["timestamp_ms", "tie", *bids.schema.names])
    connection.execute(
        "CREATE OR REPLACE TEMP VIEW bids AS SELECT * FROM all_bids ANTI JOIN repeated USING (auction_id) "
        "UNION ALL SELECT * FROM all_bids SEMI JOIN repeated USING (auction_id) "
        f"QUALIFY row_number() OVER (PARTITION BY auction_id ORDER BY {order}) = 1"
    )


def _one_event_each(connection: DuckDBPyConnection, outcomes: Buckets, counts: JoinCounts) -> None:
    repeated = connection.execute(
        "SELECT type, sum(n - 1), min(auction_id) FROM (SELECT type, auction_id, count(*) AS n FROM events "
        "GROUP BY type, auction_id HAVING count(*) > 1) GROUP BY type"
    ).fetchall()
    if not repeated:
        return
    for kind, n, example in repeated:
        counts.notes[f"repeated_{kind}"] += int(n)
        counts.events["repeated"] += int(n)
        counts.example(f"repeated_{kind}", example)
    order = listed(["timestamp_ms", "tie", *outcomes.schema.names])
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE events AS SELECT * FROM events "
        f"QUALIFY row_number() OVER (PARTITION BY auction_id, type ORDER BY {order}) = 1"
    )


def _judge_times(connection: DuckDBPyConnection, rules: JoinRules, counts: JoinCounts) -> None:
    """Takes events outside their window, or dated before their cause, out of `events`; counts them.

    The cause of a notice is the bid; of a click the impression, else the win, else the bid; of a conversion
    the click, else what would have been the click's. Events without a bid are not judged.
    """
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE judged AS
        WITH noticed AS (
            SELECT e.*, b.timestamp_ms AS bid_ms, {_verdict("e.timestamp_ms", "b.timestamp_ms", rules, NOTICES)}
            FROM events e LEFT JOIN (SELECT auction_id, timestamp_ms FROM bids) b USING (auction_id)
        ), shown AS (
            SELECT auction_id, {_moved("coalesce(min(timestamp_ms) FILTER (type = 'impression'), min(timestamp_ms))",
                                       "any_value(bid_ms)", rules)} AS shown_ms
            FROM noticed WHERE type IN ('win', 'impression') AND verdict IS NULL AND bid_ms IS NOT NULL
            GROUP BY auction_id
        ), clicks AS (
            SELECT n.* EXCLUDE (verdict), coalesce(shown_ms, bid_ms) AS shown_ms, coalesce(verdict,
                {_case("timestamp_ms", "coalesce(shown_ms, bid_ms)", rules, ("click",))}) AS verdict
            FROM noticed n LEFT JOIN shown USING (auction_id)
        ), clicked AS (
            SELECT auction_id, {_moved("min(timestamp_ms)", "any_value(shown_ms)", rules)} AS click_ms
            FROM clicks WHERE type = 'click' AND verdict IS NULL AND bid_ms IS NOT NULL GROUP BY auction_id
        ), caused AS (
            SELECT c.* EXCLUDE (verdict), verdict AS before, click_ms, CASE
                WHEN bid_ms IS NULL THEN NULL
                WHEN type = 'click' THEN shown_ms
                WHEN type = 'conversion' THEN coalesce(click_ms, shown_ms)
                ELSE bid_ms END AS cause_ms
            FROM clicks c LEFT JOIN clicked USING (auction_id)
        )
        SELECT * EXCLUDE (before, click_ms, shown_ms), coalesce(before,
            {_case("timestamp_ms", "cause_ms", rules, ("conversion",))}) AS verdict FROM caused"""
    )  # fmt: skip
    for kind, verdict, n, n_moved, lag, example in connection.execute(
        "SELECT type, verdict, count(*), count(*) FILTER (timestamp_ms < cause_ms), "
        "median(timestamp_ms - cause_ms), min(auction_id) FROM judged WHERE bid_ms IS NOT NULL GROUP BY type, verdict"
    ).fetchall():
        counts.judged[kind] += n
        if verdict is None:
            if rules.clock_skew is not None and n_moved:
                counts.corrected[kind] += n_moved
            continue
        counts.dropped[kind] += n
        counts.out_of_time[verdict] += n
        counts.events["out_of_time"] += n
        counts.lags_ms.setdefault(kind, []).append(lag)
        counts.example(verdict, example)
    time = _moved("timestamp_ms", "cause_ms", rules)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE events AS SELECT * EXCLUDE (bid_ms, cause_ms, verdict) "
        f"REPLACE ({time} AS timestamp_ms) FROM judged WHERE verdict IS NULL"
    )


_CAUSE: Final = {"click": "impression", "conversion": "click"}


def _verdict(time: str, cause: str, rules: JoinRules, kinds: tuple[str, ...]) -> str:
    return f"{_case(time, cause, rules, kinds)} AS verdict"


def _case(time: str, cause: str, rules: JoinRules, kinds: tuple[str, ...]) -> str:
    """The rule that an event of `kinds` breaks, or null: dated before its cause, or after the window."""
    windows = {"click": rules.click_window, "conversion": rules.conversion_window}
    whens = []
    for kind in kinds:
        window = windows.get(kind, rules.notice_window)
        is_kind = f"type = {literal(kind)}"
        if rules.clock_skew is not None:
            earliest = f"{cause} - {_ms(rules.clock_skew)!r}"
            whens.append(
                f"WHEN {is_kind} AND {time} < {earliest} THEN '{kind}_before_{_CAUSE.get(kind, 'bid')}'"
            )
        if window is not None:
            whens.append(f"WHEN {is_kind} AND {time} > {cause} + {_ms(window)!r} THEN 'late_{kind}'")
    return f"CASE {' '.join(whens)} END" if whens else "NULL::VARCHAR"


def _moved(time: str, cause: str, rules: JoinRules) -> str:
    """Within the clock skew an event cannot precede its cause."""
    return time if rules.clock_skew is None else f"greatest({time}, {cause})"


_PIVOT: Final = """CREATE OR REPLACE TEMP TABLE outcomes AS SELECT auction_id, count(*) AS n_events,
    bool_or(type IN ('win', 'impression')) AS is_won,
    bool_or(type = 'loss') AS is_lost,
    any_value(price_cpm) FILTER (type = 'win') AS price_cpm,
    coalesce(any_value(min_bid_to_win_cpm) FILTER (type = 'win'),
             any_value(min_bid_to_win_cpm) FILTER (type = 'loss')) AS min_bid_to_win_cpm,
    any_value(loss_reason) FILTER (type = 'loss') AS loss_reason,
    any_value(timestamp_ms) FILTER (type = 'click') AS click_ms,
    any_value(timestamp_ms) FILTER (type = 'conversion') AS conversion_ms
    FROM events GROUP BY auction_id"""


def _count_without_bid(connection: DuckDBPyConnection, n_with_bid: int, counts: JoinCounts) -> None:
    if _row(connection, "SELECT count(*) FROM outcomes") == (n_with_bid,):
        return
    n, n_events, example = _row(
        connection,
        "SELECT count(*), sum(n_events), min(auction_id) "
        "FROM outcomes ANTI JOIN (SELECT auction_id FROM bids) b USING (auction_id)",
    )
    counts.notes["event_without_bid"] += n
    counts.events["without_bid"] += int(n_events)
    counts.example("event_without_bid", example)


_DAY: Final = f"floor(timestamp_ms / {DAY_MS})::INTEGER"


def _auctions(rules: JoinRules) -> str:
    """Bids with their outcomes, `rate` (into the log's currency) and `aside`: why there is no row, or null."""
    asides = ["WHEN is_won AND is_lost THEN 'won_and_lost'"]
    if rules.days is not None:
        first, last = (_day_number(day) for day in rules.days)
        asides.append(f"WHEN {_DAY} NOT BETWEEN {first} AND {last} THEN 'outside_days'")
    rate, rates = "", ""
    if rules.currency is not None:
        asides.append("WHEN rate IS NULL THEN 'no_exchange_rate'")
        known = [
            f"({_day_number(day)}, {literal(code)}, {float(rate)!r})"
            for (day, code), rate in rules.rates.items()
        ]
        rate = f", CASE WHEN currency = {literal(rules.currency)} THEN 1.0 ELSE rates.rate END AS rate"
        values = f"VALUES {', '.join(known)}" if known else "SELECT 0, '', 1.0 WHERE false"
        rates = f"LEFT JOIN ({values}) rates(rate_day, code, rate) ON rate_day = {_DAY} AND code = currency"
    joined = (
        f"SELECT bids.* EXCLUDE (tie), outcomes.* EXCLUDE (auction_id){rate} "
        f"FROM bids LEFT JOIN outcomes ON bids.auction_id = outcomes.auction_id {rates}"
    )
    return f"SELECT *, CASE {' '.join(asides)} END AS aside FROM ({joined})"


def _count_auctions(connection: DuckDBPyConnection, source: str, counts: JoinCounts) -> int:
    """How many auctions have a bid and an outcome; adds to `counts`."""
    n_with_outcome = 0
    for aside, n, n_outcomes, n_events, example in connection.execute(
        "SELECT aside, count(*), count(n_events), count(*) + coalesce(sum(n_events), 0), min(auction_id) "
        f"FROM ({source}) GROUP BY aside"
    ).fetchall():
        n_with_outcome += n_outcomes
        if aside is None:
            counts.n_rows += n
            counts.events["used"] += int(n_events)
        else:
            counts.set_aside[aside] += n
            counts.events["set_aside"] += int(n_events)
            counts.example(aside, example)
    return n_with_outcome


def _log_columns(bids: Buckets, rules: JoinRules) -> str:
    """The columns of the log in its order, then the features under their staged names."""
    special = {
        "timestamp": _time("timestamp_ms"),
        "won": "coalesce(is_won, false)",
        "clicked": "click_ms IS NOT NULL",
        "click_timestamp": _time("click_ms"),
        "converted": "conversion_ms IS NOT NULL",
        "conversion_timestamp": _time("conversion_ms"),
    }
    if rules.currency is not None:
        special |= {name: f"{name} * rate" for name in MONEY} | {"currency": literal(rules.currency)}
    columns = [f"{special.get(name, quoted(name))} AS {quoted(name)}" for name in JOINED_COLUMNS]
    return ", ".join([*columns, *map(quoted, feature_columns(bids.schema))])


def _time(ms: str) -> str:
    """Microseconds as pandas takes them from a double of milliseconds: to the nanosecond, then down."""
    fraction = f"({ms} - floor({ms}))"
    micros = f"floor(floor(round({fraction}, 6) * 1e6) / 1000)::BIGINT"
    return f"make_timestamp(floor({ms})::BIGINT * 1000 + {micros})::TIMESTAMPTZ"


def _row(connection: DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None  # an aggregate has one row
    return row


def _day_number(day: date) -> int:
    return (datetime(day.year, day.month, day.day, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days


def _ms(span: timedelta) -> float:
    return span / timedelta(milliseconds=1)
