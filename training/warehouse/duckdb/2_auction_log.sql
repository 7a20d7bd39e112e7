/* The auction log (docs/auction_log.md) of the judged events, and its features: whatever else is a column of bid_events. */
/* Parameter: @keep_unclicked (FLOAT64 in (0, 1], or null for all): the share of rows without a click that is kept, */
/* by a hash of the auction: the rows of bidml.log.read_sample(keep_unclicked=...). */
CREATE OR REPLACE TABLE auction_log AS
WITH outcomes AS (
  SELECT
    auction_id,
    BOOL_OR(CAST(type IN ('win', 'impression') AS BOOLEAN)) AS won,
    MAX(CASE WHEN type = 'win' AND NOT ISNAN(price_cpm) THEN price_cpm ELSE NULL END) AS price_cpm,
    COALESCE(
      MAX(
        CASE
          WHEN type = 'win' AND NOT ISNAN(min_bid_to_win_cpm)
          THEN min_bid_to_win_cpm
          ELSE NULL
        END
      ),
      MAX(
        CASE
          WHEN type = 'loss' AND NOT ISNAN(min_bid_to_win_cpm)
          THEN min_bid_to_win_cpm
          ELSE NULL
        END
      )
    ) AS min_bid_to_win_cpm,
    MAX(CASE WHEN type = 'loss' THEN loss_reason ELSE NULL END) AS loss_reason,
    MAX(CASE WHEN type = 'click' THEN event_ms ELSE NULL END) AS click_ms,
    MAX(CASE WHEN type = 'conversion' THEN event_ms ELSE NULL END) AS conversion_ms
  FROM judged_events
  WHERE
    fate = 'used' AND type <> 'bid'
  GROUP BY
    auction_id
), joined AS (
  SELECT
    b.auction_id,
    MAKE_TIMESTAMP(
      CAST(FLOOR(b.timestamp_ms) AS BIGINT) * 1000 + CAST(FLOOR(FLOOR(ROUND(b.timestamp_ms - FLOOR(b.timestamp_ms), 6) * 1000000) / 1000) AS BIGINT)
    ) AS timestamp,
    CASE WHEN ISNAN(b.utc_offset_minutes) THEN NULL ELSE b.utc_offset_minutes END AS utc_offset_minutes,
    b.exchange,
    b.line_item_id,
    COALESCE($currency, b.currency) AS currency,
    b.auction_type,
    b.bid_cpm * b.rate AS bid_cpm,
    CASE WHEN ISNAN(b.floor_cpm) THEN NULL ELSE b.floor_cpm * b.rate END AS floor_cpm,
    COALESCE(o.won, FALSE) AS won,
    o.price_cpm * b.rate AS price_cpm,
    o.min_bid_to_win_cpm * b.rate AS min_bid_to_win_cpm,
    o.loss_reason,
    NOT o.click_ms IS NULL AS clicked,
    MAKE_TIMESTAMP(
      CAST(FLOOR(o.click_ms) AS BIGINT) * 1000 + CAST(FLOOR(FLOOR(ROUND(o.click_ms - FLOOR(o.click_ms), 6) * 1000000) / 1000) AS BIGINT)
    ) AS click_timestamp,
    NOT o.conversion_ms IS NULL AS converted,
    MAKE_TIMESTAMP(
      CAST(FLOOR(o.conversion_ms) AS BIGINT) * 1000 + CAST(FLOOR(FLOOR(ROUND(o.conversion_ms - FLOOR(o.conversion_ms), 6) * 1000000) / 1000) AS BIGINT)
    ) AS conversion_timestamp,
    CASE WHEN ISNAN(b.value_per_click) THEN NULL ELSE b.value_per_click * b.rate END AS value_per_click,
    CASE WHEN ISNAN(b.propensity) THEN NULL ELSE b.propensity END AS propensity,
    CASE WHEN NOT o.click_ms IS NULL THEN 1.0 ELSE $keep_unclicked END AS sampling_rate,
    b.*
    EXCLUDE (type, auction_id, timestamp_ms, utc_offset_minutes, exchange, line_item_id, currency, auction_type, bid_cpm, floor_cpm, value_per_click, propensity, price_cpm, min_bid_to_win_cpm, loss_reason, event_ms, rate, fate)
  FROM judged_events AS b
  LEFT JOIN outcomes AS o
    ON b.auction_id = o.auction_id
  WHERE
    b.fate = 'used' AND b.type = 'bid'
)
SELECT
  *
  REPLACE (CASE WHEN $keep_unclicked IS NULL THEN NULL ELSE sampling_rate END AS sampling_rate)
FROM joined
WHERE
  clicked
  OR $keep_unclicked IS NULL
  OR CAST('0x' || SUBSTRING(MD5(auction_id), 1, 13) AS BIGINT) < FLOOR($keep_unclicked * 4503599627370496);
