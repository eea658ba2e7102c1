-- Which materialized view reads which, through views and functions too.
with recursive need as
(
    select c.oid as view, 'pg_class'::regclass::oid as class, c.oid as object
      from pg_catalog.pg_class c
     where c.relkind = 'm'
    union
    select n.view, d.refclassid, d.refobjid
      from need n
           cross join lateral
           (
               select d.refclassid, d.refobjid
                 from pg_catalog.pg_rewrite r
                      join pg_catalog.pg_class v on v.oid = r.ev_class and v.relkind in ('v', 'm')
                      join pg_catalog.pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
                -- What another materialized view reads is its own matter.
                where n.class = 'pg_class'::regclass and r.ev_class = n.object and (v.relkind = 'v' or v.oid = n.view)
                union all
               select d.refclassid, d.refobjid
                 from pg_catalog.pg_depend d
                where n.class = 'pg_proc'::regclass and d.classid = n.class and d.objid = n.object
           ) d
     where d.refclassid in ('pg_class'::regclass, 'pg_proc'::regclass)
       and d.refobjid >= 16384
)
select vn.nspname::text, v.relname::text, rn.nspname::text, r.relname::text
  from need
       join pg_catalog.pg_class v on v.oid = need.view
       join pg_catalog.pg_namespace vn on vn.oid = v.relnamespace
       join pg_catalog.pg_class r on r.oid = need.object and need.class = 'pg_class'::regclass and r.relkind = 'm'
       join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
 where need.view <> need.object
