-- Every sequence of no extension, and those whose value an extension wants to be dumped.
select n.nspname::text as schema_name, c.relname::text as sequence_name
  from pg_catalog.pg_class c
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind = 'S'
   and c.relpersistence in ('p', 'u')
   and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
   and (not exists (select from pg_catalog.pg_depend d
                     where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
        or exists (select from pg_catalog.pg_extension e where c.oid = any (e.extconfig)))
 order by 1, 2
