-- For each of the tables $1 (oids): its replica identity, and the unique index that would make the best one.
-- Such an index holds every row once under columns that are never null: whole, immediate, without
-- expressions, and without generated columns, which are not in every stream.
select c.oid,
       n.nspname::text as schema_name,
       c.relname::text as table_name,
       c.relreplident::text as now,
       (select x.relname::text
          from pg_catalog.pg_index i join pg_catalog.pg_class x on x.oid = i.indexrelid
         where i.indrelid = c.oid and i.indisreplident) as now_index,
       b.index_name,
       coalesce(b.is_primary, false) as is_primary,
       -- From 18 on a virtual generated column is never published, so FULL is no identity there.
       not exists (select from pg_catalog.pg_attribute a
                    where a.attrelid = c.oid and a.attgenerated = 'v' and not a.attisdropped) as full_does,
       pg_catalog.pg_has_role(c.relowner, 'usage') as owned,
       pg_catalog.pg_get_userbyid(c.relowner)::text as owner
  from pg_catalog.pg_class c
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       left join lateral (select x.relname::text as index_name, i.indisprimary as is_primary
                            from pg_catalog.pg_index i
                                 join pg_catalog.pg_class x on x.oid = i.indexrelid
                                 join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])
                           where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indisready and i.indimmediate
                             and i.indpred is null and i.indexprs is null
                           group by x.relname, i.indisprimary, i.indnkeyatts, i.indexrelid
                          having bool_and(a.attnotnull and a.attgenerated = '')
                           -- The fewer and the narrower the columns, the less WAL an update costs.
                           order by i.indisprimary desc, i.indnkeyatts,
                                    sum(case when a.attlen > 0 then a.attlen else 32 end), i.indexrelid
                           limit 1) b on true
 where c.oid = any ($1)
 order by 2, 3
