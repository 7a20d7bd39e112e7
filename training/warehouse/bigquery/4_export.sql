-- The log as Parquet, a folder a day, as `bidml train` and `training.retrain` read it. Set the bucket.
DECLARE bucket STRING DEFAULT 'gs://your-bucket/auction_log';
FOR found IN (SELECT DISTINCT DATE(timestamp) AS day FROM auction_log ORDER BY day) DO
  EXECUTE IMMEDIATE FORMAT("""
    EXPORT DATA OPTIONS (uri = '%s/day=%t/auctions-*.parquet', format = 'PARQUET', overwrite = true) AS
    SELECT * FROM auction_log WHERE DATE(timestamp) = DATE '%t' ORDER BY timestamp, auction_id
  """, bucket, found.day, found.day);
END FOR;
