-- The log as Parquet, a folder a day, as `bidml train` and `training.retrain` read it.
SET TimeZone = 'UTC';
COPY (
  SELECT
    * REPLACE (
      timestamp AT TIME ZONE 'UTC' AS timestamp,
      click_timestamp AT TIME ZONE 'UTC' AS click_timestamp,
      conversion_timestamp AT TIME ZONE 'UTC' AS conversion_timestamp
    ),
    CAST(timestamp AS DATE) AS day
  FROM auction_log
  ORDER BY timestamp, auction_id
) TO 'auction_log' (FORMAT parquet, PARTITION_BY (day), OVERWRITE_OR_IGNORE);
