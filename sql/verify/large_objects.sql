-- Large objects in sum: how many, with a digest of their oids, how many each owner has with a digest, and a digest of
-- their privileges. What the owner may do goes without its name, and who granted does not matter.
with granted as (
    select distinct l.oid, case a.grantee when l.lomowner then 'owner' when 0 then '' else pg_catalog.pg_get_userbyid(a.grantee)::text end as grantee,
           a.privilege_type, a.is_grantable and a.grantee <> l.lomowner as is_grantable
      from pg_catalog.pg_largeobject_metadata l,
           lateral pg_catalog.aclexplode(coalesce(l.lomacl, pg_catalog.acldefault('L', l.lomowner))) a
), owned as (
    select pg_catalog.format('%s %s (%s)', pg_catalog.pg_get_userbyid(lomowner), count(*),
                             sum(pg_catalog.hashint8extended(oid::int8, 0)::numeric)) as told
      from pg_catalog.pg_largeobject_metadata
     group by lomowner
)
select 'pg_largeobject_metadata'::regclass::oid,
       (select pg_catalog.format('%s (%s)', count(*), coalesce(sum(pg_catalog.hashint8extended(oid::int8, 0)::numeric), 0))
          from pg_catalog.pg_largeobject_metadata),
       (select pg_catalog.string_agg(told, ', ' order by told collate "C") from owned),
       (select sum(pg_catalog.hashtextextended(pg_catalog.format('%s %s %s %s', oid, grantee, privilege_type, is_grantable), 0)::numeric)::text
          from granted)
