-- Prepared transactions that hold what these sessions wait for: they have no session of their own.
select distinct p.gid::text,
       coalesce(extract(epoch from clock_timestamp() - p.prepared), 0)::float8 as seconds
  from pg_catalog.pg_locks w
       join pg_catalog.pg_locks h
         on h.granted and h.pid is null and h.locktype = w.locktype
        and h.database is not distinct from w.database and h.relation is not distinct from w.relation
        and h.transactionid is not distinct from w.transactionid
       join pg_catalog.pg_prepared_xacts p on h.virtualtransaction = '-1/' || p.transaction::text
 where not w.granted and w.pid = any ($1::int[])
 order by 2 desc
