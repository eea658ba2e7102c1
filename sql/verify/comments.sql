-- Comments and security labels, whatever they are on.
select d.classoid as class, d.objoid as oid,
       'comment' || coalesce(' on column ' || pg_catalog.quote_ident(a.attname), '') as label,
       d.description as value,
       case when a.attname is null
            then pg_catalog.format('comment on %s %s is %L', pg_catalog.replace(pg_catalog.replace(i.type, 'table constraint', 'constraint'), 'statistics object', 'statistics'), i.identity, d.description)
            else pg_catalog.format('comment on column %s is %L', i.identity, d.description) end as mend,
       pg_catalog.format('comment on %s %s is null', case when a.attname is null then i.type else 'column' end, i.identity) as undo,
       null as probe
  from pg_catalog.pg_description d
       left join pg_catalog.pg_class c on d.classoid = 'pg_class'::regclass and c.oid = d.objoid and d.objsubid > 0
       left join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = d.objsubid,
       lateral pg_catalog.pg_identify_object(d.classoid, d.objoid, d.objsubid) i
 where d.objoid >= 16384 or (d.classoid = 'pg_namespace'::regclass and d.objoid = 'public'::regnamespace)
union all
select l.classoid, l.objoid, pg_catalog.format('security label of %I%s', l.provider, case when l.objsubid > 0 then ' on column ' || l.objsubid end), l.label, null, null, null
  from pg_catalog.pg_seclabel l
