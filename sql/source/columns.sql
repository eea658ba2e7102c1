-- Columns of the tables named in $1 (schemas) and $2 (tables), as DDL would have them; asked on both sides.
select n.nspname::text as schema_name,
       c.relname::text as table_name,
       a.attname::text as column_name,
       pg_catalog.format_type(a.atttypid, a.atttypmod) as type_name,
       a.attnotnull as not_null,
       a.attgenerated <> '' as generated,
       a.attidentity::text as identity,
       pg_catalog.pg_get_expr(d.adbin, d.adrelid) as default_value
  from pg_catalog.pg_attribute a
       join pg_catalog.pg_class c on c.oid = a.attrelid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
 where (n.nspname::text, c.relname::text) in (select * from unnest($1::text[], $2::text[]))
   and a.attnum > 0 and not a.attisdropped
 order by 1, 2, a.attnum
