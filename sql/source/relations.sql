-- Every relation that a filter can name, and what decides where it goes: partitions follow their
-- root, sequences their table, members of an extension the extension.
select c.oid,
       n.nspname::text as schema_name,
       c.relname::text as relation_name,
       c.relkind::text as kind,
       (select i.inhparent from pg_catalog.pg_inherits i where i.inhrelid = c.oid and c.relispartition limit 1) as parent,
       (select e.extname::text
          from pg_catalog.pg_depend d join pg_catalog.pg_extension e on e.oid = d.refobjid
         where d.classid = 'pg_class'::regclass and d.objid = c.oid
           and d.refclassid = 'pg_extension'::regclass and d.deptype = 'e'
         limit 1) as extension,
       (select d.refobjid
          from pg_catalog.pg_depend d
         where c.relkind = 'S' and d.classid = 'pg_class'::regclass and d.objid = c.oid
           and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')
         limit 1) as owner,
       pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select') as readable
  from pg_catalog.pg_class c
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p', 'm', 'v', 'f', 'S')
   and c.relpersistence in ('p', 'u')
   and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
 order by 2, 3
