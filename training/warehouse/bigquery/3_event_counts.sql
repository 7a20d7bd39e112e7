-- What was left out, and why: each event counts once, by its fate. The numbers of docs/events.md, "The report".
SELECT fate, type, COUNT(*) AS events, MIN(auction_id) AS example
FROM judged_events
GROUP BY fate, type
ORDER BY fate, type
