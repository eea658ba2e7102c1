-- The vacuums that run in this database.
select v.pid,
       coalesce(format('%I.%I', n.nspname, c.relname), '?') as relation,
       v.phase,
       case when v.heap_blks_total > 0 then v.heap_blks_scanned::float8 / v.heap_blks_total end as done,
       a.backend_type = 'autovacuum worker' as automatic,
       coalesce(a.query, '') like '%(to prevent wraparound)%' as against_wraparound,
       coalesce(extract(epoch from clock_timestamp() - a.xact_start), 0)::float8 as seconds
  from pg_catalog.pg_stat_progress_vacuum v
       join pg_catalog.pg_stat_activity a on a.pid = v.pid
       left join pg_catalog.pg_class c on c.oid = v.relid
       left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where v.datname = current_database()
 order by a.xact_start nulls last
