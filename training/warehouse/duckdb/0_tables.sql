/* What the other files read. Features that you bid with are further columns of bid_events, filled on bids. */
CREATE TABLE IF NOT EXISTS bid_events (
  type TEXT,
  auction_id TEXT,
  timestamp_ms DOUBLE,
  utc_offset_minutes DOUBLE,
  exchange TEXT,
  line_item_id TEXT,
  currency TEXT,
  auction_type BIGINT,
  bid_cpm DOUBLE,
  floor_cpm DOUBLE,
  value_per_click DOUBLE,
  propensity DOUBLE,
  price_cpm DOUBLE,
  min_bid_to_win_cpm DOUBLE,
  loss_reason BIGINT
);
/* Units of the log's currency for one of `currency`, on the UTC day of the bid; empty if no money is converted. */
CREATE TABLE IF NOT EXISTS exchange_rates (
  day DATE,
  currency TEXT,
  rate DOUBLE
);
