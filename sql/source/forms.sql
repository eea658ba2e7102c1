-- What every table looks like, in one number each: asked on both sides now and then while changes are
-- followed, so that DDL is noticed that the stream says nothing of. $1: the kinds of relations.
select n.nspname::text as schema_name,
       c.relname::text as table_name,
       c.oid,
       c.relpersistence::text as persistence,
       c.relkind = 'p' as partitioned,
       case c.relreplident
            when 'f' then true
            when 'n' then false
            else exists (select from pg_catalog.pg_index i
                          where i.indrelid = c.oid and i.indisvalid and i.indimmediate
                            and case c.relreplident when 'd' then i.indisprimary else i.indisreplident end)
       end as identified,
       (select sum(pg_catalog.hashtextextended(
                   a.attname::text || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod), 0)::numeric)
          from pg_catalog.pg_attribute a
         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)::text as form,
       -- Tells a column from another one that has taken its name.
       array(select a.attnum::text || ' ' || a.attname::text
               from pg_catalog.pg_attribute a
              where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
              order by a.attnum) as attributes
  from pg_catalog.pg_class c
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind = any ($1)
   and c.relpersistence in ('p', 'u')
   and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
   and not exists (select from pg_catalog.pg_depend d
                    where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
