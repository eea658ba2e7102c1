-- What acts by itself: triggers, rules, policies, event triggers. A trigger or rule is read again on a table
-- of the same form.
with relation as (
    select c.oid, c.relkind, c.oid::regclass::text as name,
           case c.relkind when 'v' then 'create temporary view pgmig_verify as select * from ' || c.oid::regclass
                          else pg_catalog.format('create temporary table pgmig_verify (like %s)', c.oid::regclass) end as again
      from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relpersistence <> 't'
       and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
)
select 'pg_trigger'::regclass::oid as class, t.oid, p.label, p.value, p.mend, p.undo, p.probe
  from pg_catalog.pg_trigger t
       join relation c on c.oid = t.tgrelid,
       lateral (select pg_catalog.pg_get_triggerdef(t.oid) as definition) d,
       lateral (values
           ('', '', d.definition, null, null),
           ('definition', d.definition, null, null,
            c.again || '; ' || pg_catalog.replace(d.definition, ' ON ' || c.name || ' ', ' ON pg_temp.pgmig_verify ')),
           ('enabled', case t.tgenabled when 'O' then 'yes' when 'D' then 'no' when 'R' then 'for replicas' else 'always' end,
            pg_catalog.format('alter table %s %s trigger %I', c.name, case t.tgenabled when 'O' then 'enable' when 'D' then 'disable' when 'R' then 'enable replica' else 'enable always' end, t.tgname),
            null, null)
       ) p (label, value, mend, undo, probe)
 where not t.tgisinternal or (t.tgparentid <> 0 and t.tgconstraint = 0)
union all
select 'pg_rewrite'::regclass, r.oid, p.label, p.value, p.mend, p.undo, p.probe
  from pg_catalog.pg_rewrite r
       join relation c on c.oid = r.ev_class,
       lateral (select pg_catalog.pg_get_ruledef(r.oid) as definition) d,
       lateral (values
           ('', '', d.definition, null, null),
           ('definition', d.definition, pg_catalog.regexp_replace(d.definition, '^CREATE RULE', 'CREATE OR REPLACE RULE'), null,
            c.again || '; ' || pg_catalog.replace(d.definition, ' TO ' || c.name, ' TO pg_temp.pgmig_verify')),
           ('enabled', case r.ev_enabled when 'O' then 'yes' when 'D' then 'no' when 'R' then 'for replicas' else 'always' end,
            pg_catalog.format('alter table %s %s rule %I', c.name, case r.ev_enabled when 'O' then 'enable' when 'D' then 'disable' when 'R' then 'enable replica' else 'enable always' end, r.rulename),
            null, null)
       ) p (label, value, mend, undo, probe)
 where r.rulename <> '_RETURN'
union all
select 'pg_policy'::regclass, o.oid, p.label, p.value, p.mend, p.undo, p.probe
  from pg_catalog.pg_policy o
       join relation c on c.oid = o.polrelid,
       lateral (select pg_catalog.pg_get_expr(o.polqual, o.polrelid) as qual, pg_catalog.pg_get_expr(o.polwithcheck, o.polrelid) as with_check,
                       (select pg_catalog.string_agg(coalesce(pg_catalog.quote_ident(r.rolname), 'public'), ', ' order by r.rolname)
                          from pg_catalog.unnest(o.polroles) u left join pg_catalog.pg_roles r on r.oid = u) as roles,
                       case o.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end as command) d,
       lateral (values
           ('', '', pg_catalog.concat_ws(' ', pg_catalog.format('create policy %I on %s', o.polname, c.name),
                          case when not o.polpermissive then 'as restrictive' end, 'for ' || d.command, 'to ' || d.roles,
                          'using (' || d.qual || ')', 'with check (' || d.with_check || ')'), null, null),
           ('command', d.command, null, null, null),
           ('permissive', case when o.polpermissive then 'yes' else 'no' end, null, null, null),
           ('roles', d.roles, pg_catalog.format('alter policy %I on %s to %s', o.polname, c.name, d.roles), null, null),
           ('using', d.qual, pg_catalog.format('alter policy %I on %s using (%s)', o.polname, c.name, d.qual), null,
            pg_catalog.format('create temporary view pgmig_verify as select (%s) as e from %s', d.qual, c.name)),
           ('with check', d.with_check, pg_catalog.format('alter policy %I on %s with check (%s)', o.polname, c.name, d.with_check), null,
            pg_catalog.format('create temporary view pgmig_verify as select (%s) as e from %s', d.with_check, c.name))
       ) p (label, value, mend, undo, probe)
 where p.value is not null
union all
select 'pg_event_trigger'::regclass, e.oid, p.label, p.value, p.mend, p.undo, null
  from pg_catalog.pg_event_trigger e,
       lateral (values
           ('event', e.evtevent::text, null, null),
           ('function', e.evtfoid::regproc::text, null, null),
           ('tags', pg_catalog.array_to_string(e.evttags, ', '), null, null),
           ('enabled', case e.evtenabled when 'O' then 'yes' when 'D' then 'no' when 'R' then 'for replicas' else 'always' end,
            pg_catalog.format('alter event trigger %I %s', e.evtname, case e.evtenabled when 'O' then 'enable' when 'D' then 'disable' when 'R' then 'enable replica' else 'enable always' end),
            null)
       ) p (label, value, mend, undo)
 where p.value is not null
