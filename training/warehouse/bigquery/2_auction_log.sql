-- The auction log (docs/auction_log.md) of the judged events, and its features: whatever else is a column of bid_events.
-- Parameter: @keep_unclicked (FLOAT64 in (0, 1], or null for all): the share of rows without a click that is kept,
-- by a hash of the auction: the rows of bidml.log.read_sample(keep_unclicked=...).
CREATE OR REPLACE TABLE auction_log AS
WITH outcomes AS (
  SELECT
    auction_id,
    LOGICAL_OR(type IN ('win', 'impression')) AS won,
    MAX(IF(type = 'win' AND NOT IS_NAN(price_cpm), price_cpm, NULL)) AS price_cpm,
    COALESCE(
      MAX(IF(type = 'win' AND NOT IS_NAN(min_bid_to_win_cpm), min_bid_to_win_cpm, NULL)),
      MAX(IF(type = 'loss' AND NOT IS_NAN(min_bid_to_win_cpm), min_bid_to_win_cpm, NULL))
    ) AS min_bid_to_win_cpm,
    MAX(IF(type = 'loss', loss_reason, NULL)) AS loss_reason,
    MAX(IF(type = 'click', event_ms, NULL)) AS click_ms,
    MAX(IF(type = 'conversion', event_ms, NULL)) AS conversion_ms
  FROM judged_events
  WHERE fate = 'used' AND type <> 'bid'
  GROUP BY auction_id
), joined AS (
  SELECT
    b.auction_id,
    TIMESTAMP_MICROS(
      CAST(FLOOR(b.timestamp_ms) AS INT64) * 1000
      + CAST(FLOOR(FLOOR(ROUND(b.timestamp_ms - FLOOR(b.timestamp_ms), 6) * 1000000) / 1000) AS INT64)
    ) AS timestamp,
    IF(IS_NAN(b.utc_offset_minutes), NULL, b.utc_offset_minutes) AS utc_offset_minutes,
    b.exchange,
    b.line_item_id,
    COALESCE(@currency, b.currency) AS currency,
    b.auction_type,
    b.bid_cpm * b.rate AS bid_cpm,
    IF(IS_NAN(b.floor_cpm), NULL, b.floor_cpm * b.rate) AS floor_cpm,
    COALESCE(o.won, FALSE) AS won,
    o.price_cpm * b.rate AS price_cpm,
    o.min_bid_to_win_cpm * b.rate AS min_bid_to_win_cpm,
    o.loss_reason,
    o.click_ms IS NOT NULL AS clicked,
    TIMESTAMP_MICROS(
      CAST(FLOOR(o.click_ms) AS INT64) * 1000
      + CAST(FLOOR(FLOOR(ROUND(o.click_ms - FLOOR(o.click_ms), 6) * 1000000) / 1000) AS INT64)
    ) AS click_timestamp,
    o.conversion_ms IS NOT NULL AS converted,
    TIMESTAMP_MICROS(
      CAST(FLOOR(o.conversion_ms) AS INT64) * 1000
      + CAST(FLOOR(FLOOR(ROUND(o.conversion_ms - FLOOR(o.conversion_ms), 6) * 1000000) / 1000) AS INT64)
    ) AS conversion_timestamp,
    IF(IS_NAN(b.value_per_click), NULL, b.value_per_click * b.rate) AS value_per_click,
    IF(IS_NAN(b.propensity), NULL, b.propensity) AS propensity,
    IF(o.click_ms IS NOT NULL, 1.0, @keep_unclicked) AS sampling_rate,
    b.* EXCEPT (
      type, auction_id, timestamp_ms, utc_offset_minutes, exchange, line_item_id, currency, auction_type, bid_cpm,
      floor_cpm, value_per_click, propensity, price_cpm, min_bid_to_win_cpm, loss_reason,
      event_ms, rate, fate
    )
  FROM judged_events AS b
  LEFT JOIN outcomes AS o ON b.auction_id = o.auction_id
  WHERE b.fate = 'used' AND b.type = 'bid'
)
SELECT
  * REPLACE (IF(@keep_unclicked IS NULL, NULL, sampling_rate) AS sampling_rate)
FROM joined
WHERE
  clicked
  OR @keep_unclicked IS NULL
  OR CAST(CONCAT('0x', SUBSTR(TO_HEX(MD5(auction_id)), 1, 13)) AS INT64) < FLOOR(@keep_unclicked * 4503599627370496)
