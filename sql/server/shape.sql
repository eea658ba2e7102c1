-- Names and types of the columns of table $1, as the session's snapshot shows them: asked on both sides.
select pg_catalog.string_agg(a.attname || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod), ', ' order by a.attname)
  from pg_catalog.pg_attribute a
 where a.attrelid = pg_catalog.to_regclass($1)
   and a.attnum > 0
   and not a.attisdropped
