-- Constraints of tables and domains.
with one as (
    select o.*, pg_catalog.format('%I', o.conname) as name,
           case when o.conrelid <> 0 then 'table ' || o.conrelid::regclass else 'domain ' || o.contypid::regtype end as of,
           pg_catalog.pg_get_constraintdef(o.oid) as definition
      from pg_catalog.pg_constraint o
           join pg_catalog.pg_namespace n on n.oid = o.connamespace
     where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
)
select 'pg_constraint'::regclass::oid as class, o.oid, p.label, p.value, p.mend, p.undo, p.probe
  from one o,
       lateral (values
           ('', '', case when o.contype <> 't' then pg_catalog.format('alter %s add constraint %s %s', o.of, o.name, o.definition) end, null, null),
           -- What its index says is compared there.
           ('definition', case when o.contype in ('f', 'p', 'u', 'n') then pg_catalog.replace(o.definition, ' NOT VALID', '') end, null, null, null),
           ('operators', (select pg_catalog.string_agg(x::regoperator::text, ', ' order by at)
                            from pg_catalog.unnest(o.conexclop) with ordinality x (x, at)), null, null, null),
           ('expression', case when o.contype = 'c' and o.conrelid <> 0 then pg_catalog.pg_get_expr(o.conbin, o.conrelid) end, null, null,
            pg_catalog.format('create temporary view pgmig_verify as select (%s) as e from %s', pg_catalog.pg_get_expr(o.conbin, o.conrelid), o.conrelid::regclass)),
           ('check', case when o.contype = 'c' and o.contypid <> 0 then pg_catalog.pg_get_expr(o.conbin, 0) end, null, null,
            (select pg_catalog.format('create temporary view pgmig_verify as select (%s) as e from (select null::%s as "value") v',
                                      pg_catalog.regexp_replace(pg_catalog.pg_get_expr(o.conbin, 0), '\mVALUE\M', '"value"', 'g'),
                                      pg_catalog.format_type(t.typbasetype, t.typtypmod))
               from pg_catalog.pg_type t where t.oid = o.contypid)),
           ('deferrable', pg_catalog.concat_ws(' ', case when o.condeferrable then 'yes' else 'no' end, case when o.condeferred then 'initially deferred' end), null, null, null),
           ('inherited by heirs', case when o.contype in ('c', 'n') then case when o.connoinherit then 'no' else 'yes' end end, null, null, null),
           ('enforced', case when not (pg_catalog.to_jsonb(o) ->> 'conenforced')::boolean then 'no' else 'yes' end, null, null, null),
           ('validated', case when o.convalidated then 'yes' else 'no' end,
            case when o.convalidated then pg_catalog.format('alter %s validate constraint %s', o.of, o.name) end, null, null),
           ('triggers', (select pg_catalog.string_agg(distinct case t.tgenabled when 'O' then 'on' when 'D' then 'off' when 'R' then 'on for replicas' else 'always on' end, ', ')
                           from pg_catalog.pg_trigger t where t.tgconstraint = o.oid and o.contype = 'f'),
            pg_catalog.format('alter table %s enable trigger all', o.conrelid::regclass), null, null)
       ) p (label, value, mend, undo, probe)
 where p.value is not null
