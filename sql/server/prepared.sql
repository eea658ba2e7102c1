-- Prepared transactions that hold what these sessions wait for. They have no session of their own: a lock of
-- theirs has no pid, and shares its virtual transaction with the lock on their number.
select distinct p.gid::text,
       coalesce(extract(epoch from clock_timestamp() - p.prepared), 0)::float8 as seconds
  from pg_catalog.pg_locks w
       join pg_catalog.pg_locks h
         on h.granted and h.pid is null and h.locktype = w.locktype
        and h.database is not distinct from w.database and h.relation is not distinct from w.relation
        and h.transactionid is not distinct from w.transactionid
       join pg_catalog.pg_locks x
         on x.granted and x.pid is null and x.locktype = 'transactionid' and x.virtualtransaction = h.virtualtransaction
       join pg_catalog.pg_prepared_xacts p on p.transaction = x.transactionid
 where not w.granted and w.pid = any ($1::int[])
 order by 2 desc
