-- Enums, domains, ranges and base types; the columns of composite ones are among the columns.
select 'pg_type'::regclass::oid as class, t.oid, p.label, p.value, p.mend, p.undo, p.probe
  from pg_catalog.pg_type t
       join pg_catalog.pg_namespace n on n.oid = t.typnamespace
       left join pg_catalog.pg_range r on r.rngtypid = t.oid,
       lateral (values
           ('kind', case t.typtype when 'e' then 'enum' when 'd' then 'domain' when 'r' then 'range' when 'c' then 'composite' when 'p' then 'shell' else 'base' end, null, null, null),
           ('labels', (select pg_catalog.string_agg(pg_catalog.quote_literal(e.enumlabel), ', ' order by e.enumsortorder)
                         from pg_catalog.pg_enum e where e.enumtypid = t.oid), null, null, null),
           ('base type', case t.typtype when 'd' then pg_catalog.format_type(t.typbasetype, t.typtypmod) end, null, null, null),
           ('collation', case when t.typtype = 'd' and t.typcollation <> 0 then t.typcollation::regcollation::text end, null, null, null),
           ('not null', case t.typtype when 'd' then case when t.typnotnull then 'yes' else 'no' end end,
            pg_catalog.format('alter domain %s %s not null', t.oid::regtype, case when t.typnotnull then 'set' else 'drop' end), null, null),
           ('default', case t.typtype when 'd' then pg_catalog.pg_get_expr(t.typdefaultbin, 0) else t.typdefault end,
            case t.typtype when 'd' then pg_catalog.format('alter domain %s set default %s', t.oid::regtype, pg_catalog.pg_get_expr(t.typdefaultbin, 0)) end,
            case t.typtype when 'd' then pg_catalog.format('alter domain %s drop default', t.oid::regtype) end,
            case t.typtype when 'd' then 'create temporary view pgmig_verify as select (' || pg_catalog.pg_get_expr(t.typdefaultbin, 0) || ') as e' end),
           ('range', case when r.rngtypid is not null
                          then pg_catalog.concat_ws(' ', r.rngsubtype::regtype, nullif(r.rngcollation, 0)::regcollation, r.rngcanonical, r.rngsubdiff,
                                         (pg_catalog.to_jsonb(r) ->> 'rngmultitypid')::oid::regtype,
                                         (select o.opcnamespace::regnamespace || '.' || o.opcname from pg_catalog.pg_opclass o where o.oid = r.rngsubopc)) end, null, null, null),
           ('functions', case t.typtype when 'b' then pg_catalog.concat_ws(' ', t.typinput, t.typoutput, t.typreceive, t.typsend, t.typmodin, t.typmodout, t.typanalyze) end, null, null, null),
           ('properties', case when t.typtype = 'b' then pg_catalog.concat_ws(' ', t.typlen, t.typbyval, t.typalign, t.typstorage, t.typcategory, t.typispreferred, t.typdelim,
                                         nullif(t.typelem, 0)::regtype, t.typcollation > 0) end, null, null, null)
       ) p (label, value, mend, undo, probe)
 where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
   and (t.typrelid = 0 or exists (select from pg_catalog.pg_class c where c.oid = t.typrelid and c.relkind = 'c'))
   and p.value is not null
