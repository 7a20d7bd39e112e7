/* What becomes of each event: a row an event, with `fate` ('used', or why not). Rules: docs/events.md. */
/* Parameters, null where a rule is off: @as_of_ms, @notice_window_ms, @click_window_ms, @conversion_window_ms, */
/* @clock_skew_ms (FLOAT64, milliseconds), @first_day, @last_day (DATE), @currency (STRING). */
/* Reads bid_events and exchange_rates (0_tables.sql): set the default dataset, or name them in full. */
CREATE OR REPLACE TABLE judged_events AS
WITH checked AS (
  SELECT
    *,
    ROW_NUMBER() OVER (
      PARTITION BY auction_id, type
      ORDER BY timestamp_ms NULLS FIRST, CAST(TO_JSON(e) AS TEXT) NULLS FIRST
    ) AS copy_number, /* copies that are equal to the last cell are in no order: any of them will do */
    CASE
      WHEN type IS NULL
      OR NOT type IN ('bid', 'win', 'loss', 'impression', 'click', 'conversion')
      THEN 'malformed: unknown_type'
      WHEN auction_id IS NULL OR auction_id = ''
      THEN 'malformed: no_auction_id'
      WHEN timestamp_ms IS NULL
      OR NOT (
        timestamp_ms >= 0 AND timestamp_ms < 253402300800000
      )
      THEN 'malformed: no_timestamp_ms'
      WHEN type = 'bid' AND (
        bid_cpm IS NULL OR ISNAN(bid_cpm) OR ISINF(bid_cpm)
      )
      THEN 'malformed: bid_without_bid_cpm'
      WHEN type = 'bid' AND ISINF(floor_cpm)
      THEN 'malformed: floor_cpm_is_not_a_number'
      WHEN type = 'bid' AND ISINF(value_per_click)
      THEN 'malformed: value_per_click_is_not_a_number'
      WHEN type = 'bid' AND ISINF(propensity)
      THEN 'malformed: propensity_is_not_a_number'
      WHEN type = 'win' AND ISINF(price_cpm)
      THEN 'malformed: price_cpm_is_not_a_number'
      WHEN type IN ('win', 'loss') AND ISINF(min_bid_to_win_cpm)
      THEN 'malformed: min_bid_to_win_cpm_is_not_a_number'
      WHEN timestamp_ms >= $as_of_ms
      THEN 'after_watermark'
    END AS unread
  FROM bid_events AS e
), placed AS (
  SELECT
    *,
    MIN(CASE WHEN type = 'bid' AND unread IS NULL THEN timestamp_ms ELSE NULL END) OVER (PARTITION BY auction_id) AS bid_ms
  FROM checked
), noticed AS (
  SELECT
    *,
    CASE
      WHEN NOT unread IS NULL
      THEN unread
      WHEN NOT type IN ('win', 'loss', 'impression')
      THEN NULL
      WHEN timestamp_ms < bid_ms - $clock_skew_ms
      THEN 'out_of_time: ' || type || '_before_bid'
      WHEN timestamp_ms > bid_ms + $notice_window_ms
      THEN 'out_of_time: late_' || type
    END AS dropped
  FROM placed
), shown AS (
  SELECT
    *,
    CASE
      WHEN bid_ms IS NULL
      THEN NULL
      ELSE CASE
        WHEN COALESCE(
          MIN(
            CASE WHEN type = 'impression' AND dropped IS NULL THEN timestamp_ms ELSE NULL END
          ) OVER (PARTITION BY auction_id),
          MIN(CASE WHEN type = 'win' AND dropped IS NULL THEN timestamp_ms ELSE NULL END) OVER (PARTITION BY auction_id),
          bid_ms
        ) IS NULL
        OR CASE WHEN $clock_skew_ms IS NULL THEN 0 ELSE bid_ms END IS NULL
        THEN NULL
        ELSE GREATEST(
          COALESCE(
            MIN(
              CASE WHEN type = 'impression' AND dropped IS NULL THEN timestamp_ms ELSE NULL END
            ) OVER (PARTITION BY auction_id),
            MIN(CASE WHEN type = 'win' AND dropped IS NULL THEN timestamp_ms ELSE NULL END) OVER (PARTITION BY auction_id),
            bid_ms
          ),
          CASE WHEN $clock_skew_ms IS NULL THEN 0 ELSE bid_ms END
        )
      END
    END AS shown_ms
  FROM noticed
), click_judged AS (
  SELECT
    *
    REPLACE (CASE
      WHEN NOT dropped IS NULL OR type <> 'click'
      THEN dropped
      WHEN timestamp_ms < shown_ms - $clock_skew_ms
      THEN 'out_of_time: click_before_impression'
      WHEN timestamp_ms > shown_ms + $click_window_ms
      THEN 'out_of_time: late_click'
    END AS dropped)
  FROM shown
), clicked AS (
  SELECT
    *,
    CASE
      WHEN bid_ms IS NULL
      THEN NULL
      ELSE COALESCE(
        CASE
          WHEN MIN(CASE WHEN type = 'click' AND dropped IS NULL THEN timestamp_ms ELSE NULL END) OVER (PARTITION BY auction_id) IS NULL
          OR CASE WHEN $clock_skew_ms IS NULL THEN 0 ELSE shown_ms END IS NULL
          THEN NULL
          ELSE GREATEST(
            MIN(CASE WHEN type = 'click' AND dropped IS NULL THEN timestamp_ms ELSE NULL END) OVER (PARTITION BY auction_id),
            CASE WHEN $clock_skew_ms IS NULL THEN 0 ELSE shown_ms END
          )
        END,
        shown_ms
      )
    END AS click_cause_ms
  FROM click_judged
), timed AS (
  SELECT
    *
    REPLACE (CASE
      WHEN NOT dropped IS NULL OR type <> 'conversion'
      THEN dropped
      WHEN timestamp_ms < click_cause_ms - $clock_skew_ms
      THEN 'out_of_time: conversion_before_click'
      WHEN timestamp_ms > click_cause_ms + $conversion_window_ms
      THEN 'out_of_time: late_conversion'
    END AS dropped),
    CASE
      WHEN $clock_skew_ms IS NULL OR bid_ms IS NULL
      THEN timestamp_ms
      ELSE CASE
        WHEN timestamp_ms IS NULL
        OR CASE type
          WHEN 'click'
          THEN shown_ms
          WHEN 'conversion'
          THEN click_cause_ms
          ELSE bid_ms
        END IS NULL
        THEN NULL
        ELSE GREATEST(
          timestamp_ms,
          CASE type
            WHEN 'click'
            THEN shown_ms
            WHEN 'conversion'
            THEN click_cause_ms
            ELSE bid_ms
          END
        )
      END
    END AS event_ms
  FROM clicked
), resolved AS (
  SELECT
    *
    REPLACE (CASE
      WHEN NOT dropped IS NULL
      THEN dropped
      WHEN ROW_NUMBER() OVER (
        PARTITION BY auction_id, type, dropped
        ORDER BY event_ms NULLS FIRST, copy_number NULLS FIRST
      ) > 1
      THEN 'repeated: ' || type
    END AS dropped)
  FROM timed
), converted AS (
  SELECT
    r.*,
    CASE WHEN $currency IS NULL OR r.currency = $currency THEN 1.0 ELSE x.rate END AS rate
  FROM resolved AS r
  LEFT JOIN exchange_rates AS x
    ON x.day = CAST(EPOCH_MS(CAST(FLOOR(r.bid_ms) AS BIGINT)) AS DATE)
    AND x.currency = r.currency
), aside AS (
  SELECT
    *,
    CASE
      WHEN BOOL_OR(CAST(dropped IS NULL AND type IN ('win', 'impression') AS BOOLEAN)) OVER (PARTITION BY auction_id)
      AND BOOL_OR(CAST(dropped IS NULL AND type = 'loss' AS BOOLEAN)) OVER (PARTITION BY auction_id)
      THEN 'set_aside: won_and_lost'
      WHEN CAST(EPOCH_MS(CAST(FLOOR(bid_ms) AS BIGINT)) AS DATE) < $first_day
      OR CAST(EPOCH_MS(CAST(FLOOR(bid_ms) AS BIGINT)) AS DATE) > $last_day
      THEN 'set_aside: outside_days'
      WHEN BOOL_OR(CAST(dropped IS NULL AND type = 'bid' AND rate IS NULL AS BOOLEAN)) OVER (PARTITION BY auction_id)
      THEN 'set_aside: no_exchange_rate'
    END AS why_aside
  FROM converted
)
SELECT
  *
  EXCLUDE (copy_number, unread, dropped, bid_ms, shown_ms, click_cause_ms, why_aside),
  COALESCE(dropped, CASE WHEN bid_ms IS NULL THEN 'without_bid' ELSE NULL END, why_aside, 'used') AS fate
FROM aside;
