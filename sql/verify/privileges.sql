-- Owners and privileges. What the owner has is told apart from its name, and who granted does not matter.
with thing (class, oid, kind, name, owner, letter, acl) as (
    select 'pg_class'::regclass, c.oid,
           case c.relkind when 'S' then 'sequence' when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table' else 'table' end,
           pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner,
           case c.relkind when 'S' then 's' else 'r' end::"char", c.relacl
      from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and c.relpersistence <> 't'
       and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
    union all
    select 'pg_proc'::regclass, p.oid, 'routine', p.oid::regprocedure::text, p.proowner, 'f', p.proacl
      from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
     where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
    union all
    select 'pg_type'::regclass, t.oid, 'type', t.oid::regtype::text, t.typowner, 'T', t.typacl
      from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace
     where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
    union all
    select 'pg_namespace'::regclass, oid, 'schema', pg_catalog.quote_ident(nspname), nspowner, 'n', nspacl
      from pg_catalog.pg_namespace
     where nspname !~ '^pg_' and nspname not in ('information_schema', 'pgmig')
    union all
    select 'pg_language'::regclass, oid, 'language', pg_catalog.quote_ident(lanname), lanowner, 'l', lanacl
      from pg_catalog.pg_language where oid >= 16384
    union all
    select 'pg_foreign_data_wrapper'::regclass, oid, 'foreign data wrapper', pg_catalog.quote_ident(fdwname), fdwowner, 'F', fdwacl
      from pg_catalog.pg_foreign_data_wrapper
    union all
    select 'pg_foreign_server'::regclass, oid, 'foreign server', pg_catalog.quote_ident(srvname), srvowner, 'S', srvacl
      from pg_catalog.pg_foreign_server
    union all
    select 'pg_publication'::regclass, oid, 'publication', pg_catalog.quote_ident(pubname), pubowner, null, null
      from pg_catalog.pg_publication
    union all
    select 'pg_event_trigger'::regclass, oid, 'event trigger', pg_catalog.quote_ident(evtname), evtowner, null, null
      from pg_catalog.pg_event_trigger
    union all
    select 'pg_statistic_ext'::regclass, oid, 'statistics', pg_catalog.format('%s.%I', stxnamespace::regnamespace, stxname), stxowner, null, null
      from pg_catalog.pg_statistic_ext
    union all
    select 'pg_collation'::regclass, oid, 'collation', oid::regcollation::text, collowner, null, null
      from pg_catalog.pg_collation where oid >= 16384
    union all
    select 'pg_operator'::regclass, oid, 'operator', null, oprowner, null, null from pg_catalog.pg_operator where oid >= 16384
    union all
    select 'pg_opclass'::regclass, oid, 'operator class', null, opcowner, null, null from pg_catalog.pg_opclass where oid >= 16384
    union all
    select 'pg_opfamily'::regclass, oid, 'operator family', null, opfowner, null, null from pg_catalog.pg_opfamily where oid >= 16384
    union all
    select 'pg_conversion'::regclass, oid, 'conversion', null, conowner, null, null from pg_catalog.pg_conversion where oid >= 16384
    union all
    select 'pg_ts_config'::regclass, oid, 'text search configuration', oid::regconfig::text, cfgowner, null, null from pg_catalog.pg_ts_config where oid >= 16384
    union all
    select 'pg_ts_dict'::regclass, oid, 'text search dictionary', oid::regdictionary::text, dictowner, null, null from pg_catalog.pg_ts_dict where oid >= 16384
), granted as (
    select t.class, t.oid, t.kind, t.name, '' as of_column, a.grantee, t.owner, a.privilege_type, a.is_grantable
      from thing t, lateral pg_catalog.aclexplode(coalesce(t.acl, pg_catalog.acldefault(t.letter, t.owner))) a
     where t.letter is not null
    union all
    select t.class, t.oid, t.kind, t.name, pg_catalog.quote_ident(c.attname), a.grantee, t.owner, a.privilege_type, a.is_grantable
      from thing t
           join pg_catalog.pg_attribute c on c.attrelid = t.oid and c.attacl is not null and not c.attisdropped,
           lateral pg_catalog.aclexplode(c.attacl) a
     where t.class = 'pg_class'::regclass
), held as (
    select class, oid, case kind when 'view' then 'table' when 'materialized view' then 'table' when 'foreign table' then 'table' else kind end as kind,
           name, of_column, grantee, owner,
           case grantee when 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(grantee)) end as role,
           pg_catalog.string_agg(pg_catalog.lower(privilege_type) || case when is_grantable and grantee <> owner then '*' else '' end, ', ' order by privilege_type) as privileges,
           pg_catalog.string_agg(pg_catalog.lower(privilege_type) || case of_column when '' then '' else ' (' || of_column || ')' end, ', ' order by privilege_type) as granted,
           pg_catalog.string_agg(case when is_grantable and grantee <> owner then pg_catalog.lower(privilege_type) || case of_column when '' then '' else ' (' || of_column || ')' end end, ', ' order by privilege_type) as grantable
      from (select distinct * from granted) g
     -- Older servers do not know it.
     where privilege_type <> 'MAINTAIN' or @both_since_17
     group by 1, 2, 3, 4, 5, 6, 7, 8
)
select t.class::oid, t.oid, 'owner' as label, pg_catalog.pg_get_userbyid(t.owner)::text as value,
       pg_catalog.format('alter %s %s owner to %I', t.kind, t.name, pg_catalog.pg_get_userbyid(t.owner)) as mend, null as undo, null as probe
  from thing t
union all
select h.class::oid, h.oid,
       'privileges of ' || case when h.grantee = h.owner then 'the owner' else h.role end || case h.of_column when '' then '' else ' on column ' || h.of_column end,
       h.privileges,
       pg_catalog.format('revoke all%s on %s %s from %s; grant %s on %s %s to %s', case h.of_column when '' then '' else ' (' || h.of_column || ')' end,
                         h.kind, h.name, h.role, h.granted, h.kind, h.name, h.role)
           || coalesce(pg_catalog.format('; grant %s on %s %s to %s with grant option', h.grantable, h.kind, h.name, h.role), ''),
       pg_catalog.format('revoke all%s on %s %s from %s', case h.of_column when '' then '' else ' (' || h.of_column || ')' end, h.kind, h.name, h.role),
       null
  from held h
union all
select 'pg_default_acl'::regclass::oid, d.oid, 'privileges of ' || case a.grantee when 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) end,
       pg_catalog.string_agg(pg_catalog.lower(a.privilege_type) || case when a.is_grantable then '*' else '' end, ', ' order by a.privilege_type), null, null, null
  from pg_catalog.pg_default_acl d, lateral pg_catalog.aclexplode(d.defaclacl) a
 where a.privilege_type <> 'MAINTAIN' or @both_since_17
 group by d.oid, a.grantee
