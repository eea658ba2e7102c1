-- The sessions that others wait for. What another role does may be hidden from us.
select a.pid,
       coalesce(a.backend_type, '') as backend,
       coalesce(a.usename::text, '') as role,
       coalesce(a.application_name, '') as application,
       coalesce(a.state, '') as state,
       coalesce(extract(epoch from clock_timestamp() - a.xact_start), 0)::float8 as transaction_seconds,
       coalesce(extract(epoch from clock_timestamp() - a.query_start), 0)::float8 as query_seconds,
       coalesce(a.query, '') as statement
  from pg_catalog.pg_stat_activity a
 where a.pid = any ($1::int[])
 order by a.xact_start nulls last, a.pid
