-- Tables whose rows an extension wants to be dumped, with the condition that says which: those that the
-- user added to what CREATE EXTENSION put in.
select c.oid,
       n.nspname::text as schema_name,
       c.relname::text as table_name,
       e.oid as extension,
       e.extname::text as extension_name,
       t.condition,
       array(select a.attname::text
               from pg_catalog.pg_attribute a
              where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
              order by a.attnum) as columns,
       pg_catalog.pg_table_size(c.oid) as bytes,
       pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select') as readable,
       -- Others of these tables that it refers to.
       array(select k.confrelid
               from pg_catalog.pg_constraint k
              where k.conrelid = c.oid and k.contype = 'f' and k.confrelid <> c.oid) as refers_to
  from pg_catalog.pg_extension e
       cross join lateral unnest(e.extconfig, e.extcondition) as t (oid, condition)
       join pg_catalog.pg_class c on c.oid = t.oid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind = 'r'
 order by 2, 3
