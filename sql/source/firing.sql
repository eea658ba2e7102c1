-- Triggers and rules that fire in a replica session too, by table; asked on both sides.
select n.nspname::text as schema_name, c.relname::text as table_name,
       string_agg(f.what || ' ' || f.name, ', ' order by f.what desc, f.name) as firing
  from pg_catalog.pg_class c
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       join (select t.tgrelid as relid, 'trigger' as what, t.tgname::text as name
               from pg_catalog.pg_trigger t
              where t.tgenabled in ('A', 'R') and not t.tgisinternal
              union all
             select r.ev_class, 'rule', r.rulename::text
               from pg_catalog.pg_rewrite r
              where r.ev_enabled in ('A', 'R') and r.ev_type <> '1') f on f.relid = c.oid
 where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
 group by 1, 2
 order by 1, 2
