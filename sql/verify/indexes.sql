-- Indexes, in pieces: the server's versions print one index in different words.
with one as (
    select i.*, c.relam, c.reloptions, c.reltablespace, c.relkind, pg_catalog.pg_get_indexdef(i.indexrelid) as definition,
           pg_catalog.format('%I.%I', n.nspname, c.relname) as name
      from pg_catalog.pg_index i
           join pg_catalog.pg_class c on c.oid = i.indexrelid
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
)
select 'pg_class'::regclass::oid as class, i.indexrelid as oid, p.label, p.value, p.mend, p.undo, p.probe
  from one i,
       lateral (values
           ('', '', i.definition, null, null),
           ('table', i.indrelid::regclass::text, null, null, null),
           ('kind', pg_catalog.concat_ws(' ', case when i.indisunique then 'unique' end,
                              case when (pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::boolean then 'nulls not distinct' end,
                              case when i.indisprimary then 'primary' end, case when i.indisexclusion then 'exclusion' end,
                              case when not i.indimmediate then 'deferrable' end,
                              (select amname from pg_catalog.pg_am where oid = i.relam)), null, null, null),
           ('keys', (select pg_catalog.string_agg(
                            pg_catalog.concat_ws(' ', case when k.n <= i.indnkeyatts then 'key' else 'included' end,
                                (select a.attname from pg_catalog.pg_attribute a where a.attrelid = i.indrelid and a.attnum = i.indkey[k.n - 1]),
                                (select o.opcnamespace::regnamespace || '.' || o.opcname from pg_catalog.pg_opclass o where o.oid = i.indclass[k.n - 1]),
                                nullif(i.indcollation[k.n - 1], 0)::regcollation, nullif(i.indoption[k.n - 1], 0),
                                (select nullif(a.attstattarget, -1) from pg_catalog.pg_attribute a where a.attrelid = i.indexrelid and a.attnum = k.n)),
                            ', ' order by k.n)
                       from pg_catalog.generate_series(1, i.indnatts) k (n)), null, null, null),
           ('predicate', pg_catalog.pg_get_expr(i.indpred, i.indrelid), null, null,
            pg_catalog.format('create temporary view pgmig_verify as select (%s) as e from %s', pg_catalog.pg_get_expr(i.indpred, i.indrelid), i.indrelid::regclass)),
           ('expressions', pg_catalog.pg_get_expr(i.indexprs, i.indrelid), null, null,
            pg_catalog.format('create temporary view pgmig_verify as select row(%s) as e from %s', pg_catalog.pg_get_expr(i.indexprs, i.indrelid), i.indrelid::regclass)),
           ('options', (select pg_catalog.string_agg(o, ', ' order by o collate "C") from pg_catalog.unnest(i.reloptions) o), null, null, null),
           ('tablespace', (select spcname::text from pg_catalog.pg_tablespace where oid = i.reltablespace), null, null, null),
           ('part of', (select h.inhparent::regclass::text from pg_catalog.pg_inherits h where h.inhrelid = i.indexrelid), null, null, null),
           ('valid', case when i.indisvalid and i.indisready then 'yes' else 'no' end,
            case when i.indisvalid and i.relkind = 'i' then pg_catalog.format('reindex index %s', i.name) end, null, null),
           ('clustered', case when i.indisclustered then 'yes' else 'no' end,
            case when i.indisclustered then pg_catalog.format('alter table %s cluster on %I', i.indrelid::regclass, (select relname from pg_catalog.pg_class where oid = i.indexrelid))
                 else pg_catalog.format('alter table %s set without cluster', i.indrelid::regclass) end, null, null)
       ) p (label, value, mend, undo, probe)
 where p.value is not null
