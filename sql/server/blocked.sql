-- Which of these sessions wait for a lock, which one, and who stands before them, to the end of the line.
with recursive waiting as (
    select l.pid,
           l.locktype,
           l.mode,
           case when l.relation is not null and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
                then (select format('%I.%I', n.nspname, c.relname)
                        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                       where c.oid = l.relation) end as relation
      from pg_catalog.pg_locks l
     where not l.granted and l.pid = any ($1::int[])
), line (waiter, pid, blocked_by) as (
    select w.pid, w.pid, pg_catalog.pg_blocking_pids(w.pid)
      from waiting w
     union
    select l.waiter, b.pid, pg_catalog.pg_blocking_pids(b.pid)
      from line l, unnest(l.blocked_by) b (pid)
)
select w.pid,
       w.locktype,
       w.mode,
       w.relation,
       coalesce((select array_agg(distinct l.pid) from line l where l.waiter = w.pid and l.pid <> w.pid and cardinality(l.blocked_by) = 0),
                '{}') as holders
  from waiting w
 order by w.pid
