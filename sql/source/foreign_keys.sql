-- Every foreign key with both its tables; those that partitions have from their root are the root's.
select k.oid,
       pg_catalog.format('%I on %I.%I', k.conname, n.nspname, c.relname) as title,
       k.conrelid as table_oid,
       k.confrelid as referenced,
       c.relkind = 'p' or r.relkind = 'p' as partitioned
  from pg_catalog.pg_constraint k
       join pg_catalog.pg_class c on c.oid = k.conrelid
       join pg_catalog.pg_class r on r.oid = k.confrelid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where k.contype = 'f' and k.conparentid = 0
 order by 2
