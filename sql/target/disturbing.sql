-- The statements that take away what fires in a replica session or forbids what apply does: what domains ask of
-- new values only is asked of every value that apply reads.
select format('drop trigger %I on %I.%I', t.tgname, n.nspname, c.relname)
  from pg_catalog.pg_trigger t
       join pg_catalog.pg_class c on c.oid = t.tgrelid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where not t.tgisinternal and t.tgparentid = 0 and t.tgenabled in ('A', 'R')
   and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
union all
select format('drop rule %I on %I.%I', r.rulename, n.nspname, c.relname)
  from pg_catalog.pg_rewrite r
       join pg_catalog.pg_class c on c.oid = r.ev_class
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where r.ev_enabled in ('A', 'R') and c.relkind in ('r', 'p')
   and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
union all
select format('alter table %I.%I %s', n.nspname, c.relname, what.to_do)
  from pg_catalog.pg_class c
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace,
       lateral (values ('disable row level security', c.relrowsecurity), ('no force row level security', c.relforcerowsecurity)) what (to_do, set)
 where what.set and c.relkind in ('r', 'p')
   and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
union all
select format('drop publication %I', p.pubname)
  from pg_catalog.pg_publication p
 where p.pubname !~ '^pgmig_'
union all
select format('drop event trigger %I', e.evtname)
  from pg_catalog.pg_event_trigger e
 where e.evtname !~ '^pgmig_'
   and not exists (select from pg_catalog.pg_depend d
                    where d.classid = 'pg_catalog.pg_event_trigger'::regclass and d.objid = e.oid and d.deptype = 'e')
union all
select format('alter domain %I.%I drop constraint %I', n.nspname, t.typname, k.conname)
  from pg_catalog.pg_constraint k
       join pg_catalog.pg_type t on t.oid = k.contypid
       join pg_catalog.pg_namespace n on n.oid = t.typnamespace
 where not k.convalidated
   and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
