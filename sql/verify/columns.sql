-- Columns of tables, views and composite types.
with relation as (
    select c.oid, c.relkind, c.reltype, pg_catalog.format('%I.%I', n.nspname, c.relname) as name
      from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p', 'v', 'm', 'f', 'c') and c.relpersistence <> 't'
       and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
), attribute as (
    select c.relkind, c.name as relation, pg_catalog.format('%I', a.attname) as name, a.*,
           t.typcollation, t.typstorage,
           case c.relkind when 'c' then 'pg_type'::regclass else 'pg_class'::regclass end::oid as class,
           case c.relkind when 'c' then c.reltype else c.oid end as object
      from relation c
           join pg_catalog.pg_attribute a on a.attrelid = c.oid
           join pg_catalog.pg_type t on t.oid = a.atttypid
     where a.attnum > 0 and not a.attisdropped
)
select a.class, a.object as oid, 'column ' || a.name as label,
       pg_catalog.concat_ws(', ',
           pg_catalog.format_type(a.atttypid, a.atttypmod),
           case when a.attcollation <> a.typcollation then 'collate ' || a.attcollation::regcollation::text end,
           case when a.relkind in ('r', 'p', 'm') and a.attstorage <> a.typstorage then 'storage ' || a.attstorage::text end,
           'compression ' || (@compression)::text,
           case when a.attgenerated <> '' then 'generated ' || a.attgenerated::text end,
           'statistics ' || nullif(a.attstattarget, -1),
           -- Only what people can set: a server may keep marks of its own there.
           'options ' || (select pg_catalog.string_agg(o, ' ' order by o) from pg_catalog.unnest(a.attoptions) o where o ~ '^n_distinct'),
           'options of the server ' || (select pg_catalog.string_agg(o, ' ' order by o) from pg_catalog.unnest(a.attfdwoptions) o)) as value,
       null as mend, null as undo, null as probe
  from attribute a
union all
select a.class, a.object, 'not null of column ' || a.name, 'not null',
       pg_catalog.format('alter table %s alter column %s set not null', a.relation, a.name),
       pg_catalog.format('alter table %s alter column %s drop not null', a.relation, a.name), null
  from attribute a
 where a.attnotnull and a.relkind in ('r', 'p', 'f')
union all
select a.class, a.object, 'identity of column ' || a.name, case a.attidentity when 'a' then 'always' else 'by default' end,
       pg_catalog.format('alter table %s alter column %s set generated %s', a.relation, a.name, case a.attidentity when 'a' then 'always' else 'by default' end), null, null
  from attribute a
 where a.attidentity <> ''
union all
select a.class, a.object, case a.attgenerated when '' then 'default' else 'expression' end || ' of column ' || a.name,
       pg_catalog.pg_get_expr(d.adbin, d.adrelid),
       case a.attgenerated when '' then pg_catalog.format('alter table %s alter column %s set default %s', a.relation, a.name, pg_catalog.pg_get_expr(d.adbin, d.adrelid)) end,
       case a.attgenerated when '' then pg_catalog.format('alter table %s alter column %s drop default', a.relation, a.name) end,
       pg_catalog.format('create temporary view pgmig_verify as select (%s) as e from %s', pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.relation)
  from attribute a
       join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
union all
select a.class, a.object, 'order of columns', pg_catalog.string_agg(a.name, ', ' order by a.attnum), null, null, null
  from attribute a
 group by 1, 2
