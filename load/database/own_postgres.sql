-- Statements that the database benches send as the superuser. What they measure goes through the product's roles.

-- name: version
select split_part(version(), ' ', 2)
-- name: written_transactions
select pg_snapshot_xmax(pg_current_snapshot())::text::bigint
