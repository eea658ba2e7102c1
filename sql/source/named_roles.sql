-- Roles that objects belong to or are granted to: catalog, oid, oid of the schema, whether it is the owner,
-- name, name of the schema. Of schemas, relations, types and functions that belong to no extension.
with objects (class, oid, namespace, owner, acl) as (
    select 'pg_namespace'::regclass::oid, oid, oid, nspowner, nspacl
      from pg_catalog.pg_namespace where nspname <> 'public'
     union all
    select 'pg_class'::regclass::oid, oid, relnamespace, relowner, relacl
      from pg_catalog.pg_class where relkind in ('r', 'p', 'v', 'm', 'f', 'S') and relpersistence in ('p', 'u')
     union all
    select 'pg_proc'::regclass::oid, oid, pronamespace, proowner, proacl from pg_catalog.pg_proc
     union all
    select 'pg_type'::regclass::oid, oid, typnamespace, typowner, typacl
      from pg_catalog.pg_type where typtype in ('d', 'e', 'r')
)
select o.class, o.oid, o.namespace, r.is_owner, pg_catalog.pg_get_userbyid(r.role)::text as role_name, n.nspname::text as schema_name
  from objects o
       join pg_catalog.pg_namespace n on n.oid = o.namespace
       cross join lateral (select true as is_owner, o.owner as role
                            union
                           select false, a.grantee from pg_catalog.aclexplode(o.acl) a
                            where a.grantee <> 0 and a.grantee <> o.owner) r
 where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
   and not exists (select from pg_catalog.pg_depend d
                    where d.classid = o.class and d.objid = o.oid and d.deptype = 'e')
