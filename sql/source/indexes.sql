-- Every index that a filter can name, with the constraint that owns it, and whether it says which row
-- an UPDATE or DELETE in the stream means.
select i.indexrelid as oid,
       n.nspname::text as schema_name,
       c.relname::text as index_name,
       i.indrelid as table_oid,
       (select k.oid
          from pg_catalog.pg_constraint k
         where k.conindid = i.indexrelid and k.conrelid = i.indrelid and k.contype in ('p', 'u', 'x')
         limit 1) as constraint_oid,
       case t.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end as is_identity
  from pg_catalog.pg_index i
       join pg_catalog.pg_class c on c.oid = i.indexrelid
       join pg_catalog.pg_class t on t.oid = i.indrelid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
 order by 2, 3
