-- What becomes of each event: a row an event, with `fate` ('used', or why not). Rules: docs/events.md.
-- Parameters, null where a rule is off: @as_of_ms, @notice_window_ms, @click_window_ms, @conversion_window_ms,
-- @clock_skew_ms (FLOAT64, milliseconds), @first_day, @last_day (DATE), @currency (STRING).
-- Reads bid_events and exchange_rates (0_tables.sql): set the default dataset, or name them in full.
CREATE OR REPLACE TABLE judged_events AS
WITH checked AS (
  SELECT
    *,
    -- copies that are equal to the last cell are in no order: any of them will do
    ROW_NUMBER() OVER (PARTITION BY auction_id, type ORDER BY timestamp_ms, TO_JSON_STRING(e)) AS copy_number,
    CASE
      WHEN type IS NULL OR type NOT IN ('bid', 'win', 'loss', 'impression', 'click', 'conversion')
        THEN 'malformed: unknown_type'
      WHEN auction_id IS NULL OR auction_id = '' THEN 'malformed: no_auction_id'
      WHEN timestamp_ms IS NULL OR NOT (timestamp_ms >= 0 AND timestamp_ms < 253402300800000)
        THEN 'malformed: no_timestamp_ms'
      WHEN type = 'bid' AND (bid_cpm IS NULL OR IS_NAN(bid_cpm) OR IS_INF(bid_cpm))
        THEN 'malformed: bid_without_bid_cpm'
      WHEN type = 'bid' AND IS_INF(floor_cpm) THEN 'malformed: floor_cpm_is_not_a_number'
      WHEN type = 'bid' AND IS_INF(value_per_click) THEN 'malformed: value_per_click_is_not_a_number'
      WHEN type = 'bid' AND IS_INF(propensity) THEN 'malformed: propensity_is_not_a_number'
      WHEN type = 'win' AND IS_INF(price_cpm) THEN 'malformed: price_cpm_is_not_a_number'
      WHEN type IN ('win', 'loss') AND IS_INF(min_bid_to_win_cpm)
        THEN 'malformed: min_bid_to_win_cpm_is_not_a_number'
      WHEN timestamp_ms >= @as_of_ms THEN 'after_watermark'
    END AS unread
  FROM bid_events AS e
), placed AS (
  SELECT
    *,
    MIN(IF(type = 'bid' AND unread IS NULL, timestamp_ms, NULL)) OVER (PARTITION BY auction_id) AS bid_ms
  FROM checked
), noticed AS (
  SELECT
    *,
    CASE
      WHEN unread IS NOT NULL THEN unread
      WHEN type NOT IN ('win', 'loss', 'impression') THEN NULL
      WHEN timestamp_ms < bid_ms - @clock_skew_ms THEN CONCAT('out_of_time: ', type, '_before_bid')
      WHEN timestamp_ms > bid_ms + @notice_window_ms THEN CONCAT('out_of_time: late_', type)
    END AS dropped
  FROM placed
), shown AS (
  SELECT
    *,
    -- within the clock skew an event cannot precede its cause; without a bid there is no cause to judge by
    IF(
      bid_ms IS NULL,
      NULL,
      GREATEST(
        COALESCE(
          MIN(IF(type = 'impression' AND dropped IS NULL, timestamp_ms, NULL)) OVER (PARTITION BY auction_id),
          MIN(IF(type = 'win' AND dropped IS NULL, timestamp_ms, NULL)) OVER (PARTITION BY auction_id),
          bid_ms
        ),
        IF(@clock_skew_ms IS NULL, 0, bid_ms)
      )
    ) AS shown_ms
  FROM noticed
), click_judged AS (
  SELECT
    * REPLACE (
      CASE
        WHEN dropped IS NOT NULL OR type <> 'click' THEN dropped
        WHEN timestamp_ms < shown_ms - @clock_skew_ms THEN 'out_of_time: click_before_impression'
        WHEN timestamp_ms > shown_ms + @click_window_ms THEN 'out_of_time: late_click'
      END AS dropped
    )
  FROM shown
), clicked AS (
  SELECT
    *,
    IF(
      bid_ms IS NULL,
      NULL,
      COALESCE(
        GREATEST(
          MIN(IF(type = 'click' AND dropped IS NULL, timestamp_ms, NULL)) OVER (PARTITION BY auction_id),
          IF(@clock_skew_ms IS NULL, 0, shown_ms)
        ),
        shown_ms
      )
    ) AS click_cause_ms
  FROM click_judged
), timed AS (
  SELECT
    * REPLACE (
      CASE
        WHEN dropped IS NOT NULL OR type <> 'conversion' THEN dropped
        WHEN timestamp_ms < click_cause_ms - @clock_skew_ms THEN 'out_of_time: conversion_before_click'
        WHEN timestamp_ms > click_cause_ms + @conversion_window_ms THEN 'out_of_time: late_conversion'
      END AS dropped
    ),
    IF(
      @clock_skew_ms IS NULL OR bid_ms IS NULL,
      timestamp_ms,
      GREATEST(
        timestamp_ms,
        CASE type WHEN 'click' THEN shown_ms WHEN 'conversion' THEN click_cause_ms ELSE bid_ms END
      )
    ) AS event_ms
  FROM clicked
), resolved AS (
  SELECT
    * REPLACE (
      CASE
        WHEN dropped IS NOT NULL THEN dropped
        WHEN ROW_NUMBER() OVER (PARTITION BY auction_id, type, dropped ORDER BY event_ms, copy_number) > 1
          THEN CONCAT('repeated: ', type)
      END AS dropped
    )
  FROM timed
), converted AS (
  SELECT
    r.*,
    IF(@currency IS NULL OR r.currency = @currency, 1.0, x.rate) AS rate
  FROM resolved AS r
  LEFT JOIN exchange_rates AS x
    ON x.day = DATE(TIMESTAMP_MILLIS(CAST(FLOOR(r.bid_ms) AS INT64))) AND x.currency = r.currency
), aside AS (
  SELECT
    *,
    CASE
      WHEN
        LOGICAL_OR(dropped IS NULL AND type IN ('win', 'impression')) OVER (PARTITION BY auction_id)
        AND LOGICAL_OR(dropped IS NULL AND type = 'loss') OVER (PARTITION BY auction_id)
        THEN 'set_aside: won_and_lost'
      WHEN
        DATE(TIMESTAMP_MILLIS(CAST(FLOOR(bid_ms) AS INT64))) < @first_day
        OR DATE(TIMESTAMP_MILLIS(CAST(FLOOR(bid_ms) AS INT64))) > @last_day
        THEN 'set_aside: outside_days'
      WHEN LOGICAL_OR(dropped IS NULL AND type = 'bid' AND rate IS NULL) OVER (PARTITION BY auction_id)
        THEN 'set_aside: no_exchange_rate'
    END AS why_aside
  FROM converted
)
SELECT
  * EXCEPT (copy_number, unread, dropped, bid_ms, shown_ms, click_cause_ms, why_aside),
  COALESCE(dropped, IF(bid_ms IS NULL, 'without_bid', NULL), why_aside, 'used') AS fate
FROM aside
