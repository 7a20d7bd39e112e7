-- What the other files read. Features that you bid with are further columns of bid_events, filled on bids.
CREATE TABLE IF NOT EXISTS bid_events (
  type STRING,
  auction_id STRING,
  timestamp_ms FLOAT64,
  utc_offset_minutes FLOAT64,
  exchange STRING,
  line_item_id STRING,
  currency STRING,
  auction_type INT64,
  bid_cpm FLOAT64,
  floor_cpm FLOAT64,
  value_per_click FLOAT64,
  propensity FLOAT64,
  price_cpm FLOAT64,
  min_bid_to_win_cpm FLOAT64,
  loss_reason INT64
);
-- Units of the log's currency for one of `currency`, on the UTC day of the bid; empty if no money is converted.
CREATE TABLE IF NOT EXISTS exchange_rates (
  day DATE,
  currency STRING,
  rate FLOAT64
)
