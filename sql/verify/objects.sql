-- Every object of the user's, by the name that the server gives it. `relation` and `made_by` are what it
-- goes with: the table it hangs on, the constraint that made an index. `step` is what a dump calls it, where
-- it may be made late. What belongs to an extension comes with it.
with ours as (
    select oid, nspname
      from pg_catalog.pg_namespace
     where nspname !~ '^pg_' and nspname not in ('information_schema', 'pgmig')
), relation as (
    select c.oid, c.relkind, c.relname, n.nspname
      from pg_catalog.pg_class c
           join ours n on n.oid = c.relnamespace
     where c.relpersistence <> 't'
), object (class, oid, relation, made_by, step) as (
    select 'pg_namespace'::regclass, oid, 0::oid, 0::oid, null
      from ours
    union all
    select 'pg_class'::regclass, c.oid, coalesce(i.indrelid, 0), coalesce(o.oid, 0), c.nspname || '.' || c.relname
      from relation c
           left join pg_catalog.pg_index i on i.indexrelid = c.oid
           left join pg_catalog.pg_constraint o on o.conindid = c.oid and o.contype in ('p', 'u', 'x')
     where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S', 'i', 'I')
    union all
    select 'pg_constraint'::regclass, o.oid, o.conrelid, 0, r.nspname || '.' || r.relname || ' ' || o.conname
      from pg_catalog.pg_constraint o
           join relation c on c.oid = o.conrelid
           join relation r on r.oid = coalesce(pg_catalog.pg_partition_root(c.oid), c.oid)
     where (o.contype <> 'n' or @both_since_18)
       -- Follow from the foreign key of a root, and have other names in every version.
       and not (o.contype = 'f' and o.conparentid <> 0)
    union all
    select 'pg_constraint'::regclass, o.oid, 0, 0, n.nspname || '.' || t.typname || ' ' || o.conname
      from pg_catalog.pg_constraint o
           join pg_catalog.pg_type t on t.oid = o.contypid
           join ours n on n.oid = o.connamespace
     where o.contype <> 'n'
    union all
    select 'pg_trigger'::regclass, t.oid, t.tgrelid, 0, r.nspname || '.' || r.relname || ' ' || t.tgname
      from pg_catalog.pg_trigger t
           join relation c on c.oid = t.tgrelid
           join relation r on r.oid = coalesce(pg_catalog.pg_partition_root(c.oid), c.oid)
     where not t.tgisinternal or (t.tgparentid <> 0 and t.tgconstraint = 0)
    union all
    select 'pg_rewrite'::regclass, r.oid, r.ev_class, 0, c.nspname || '.' || c.relname || ' ' || r.rulename
      from pg_catalog.pg_rewrite r
           join relation c on c.oid = r.ev_class
     where r.rulename <> '_RETURN'
    union all
    select 'pg_policy'::regclass, p.oid, p.polrelid, 0, null
      from pg_catalog.pg_policy p
           join relation c on c.oid = p.polrelid
    union all
    select 'pg_statistic_ext'::regclass, s.oid, s.stxrelid, 0, n.nspname || '.' || s.stxname
      from pg_catalog.pg_statistic_ext s
           join ours n on n.oid = s.stxnamespace
    union all
    select 'pg_proc'::regclass, p.oid, 0, 0, null
      from pg_catalog.pg_proc p
           join ours n on n.oid = p.pronamespace
    union all
    -- Types of tables, arrays and multiranges go with what made them.
    select 'pg_type'::regclass, t.oid, 0, 0, null
      from pg_catalog.pg_type t
           join ours n on n.oid = t.typnamespace
           left join pg_catalog.pg_class c on c.oid = t.typrelid
     where t.typtype <> 'm' and (t.typrelid = 0 or c.relkind = 'c')
       and not exists (select from pg_catalog.pg_type e where e.typarray = t.oid)
    union all
    select 'pg_collation'::regclass, o.oid, 0, 0, null
      from pg_catalog.pg_collation o join ours n on n.oid = o.collnamespace
    union all
    select 'pg_conversion'::regclass, o.oid, 0, 0, null
      from pg_catalog.pg_conversion o join ours n on n.oid = o.connamespace
    union all
    select 'pg_operator'::regclass, o.oid, 0, 0, null
      from pg_catalog.pg_operator o join ours n on n.oid = o.oprnamespace
    union all
    select 'pg_opclass'::regclass, o.oid, 0, 0, null
      from pg_catalog.pg_opclass o join ours n on n.oid = o.opcnamespace
    union all
    select 'pg_opfamily'::regclass, o.oid, 0, 0, null
      from pg_catalog.pg_opfamily o join ours n on n.oid = o.opfnamespace
    union all
    select 'pg_ts_config'::regclass, o.oid, 0, 0, null
      from pg_catalog.pg_ts_config o join ours n on n.oid = o.cfgnamespace
    union all
    select 'pg_ts_dict'::regclass, o.oid, 0, 0, null
      from pg_catalog.pg_ts_dict o join ours n on n.oid = o.dictnamespace
    union all
    select 'pg_ts_parser'::regclass, o.oid, 0, 0, null
      from pg_catalog.pg_ts_parser o join ours n on n.oid = o.prsnamespace
    union all
    select 'pg_ts_template'::regclass, o.oid, 0, 0, null
      from pg_catalog.pg_ts_template o join ours n on n.oid = o.tmplnamespace
    union all
    -- Without a schema: what initdb made has a low number.
    select 'pg_extension'::regclass, oid, 0, 0, null
      from pg_catalog.pg_extension where extname <> 'pgmig_sentinel'
    union all
    select 'pg_publication'::regclass, oid, 0, 0, pubname::text
      from pg_catalog.pg_publication where pubname !~ '^pgmig_'
    union all
    select 'pg_publication_rel'::regclass, r.oid, r.prrelid, 0, c.nspname || '.' || p.pubname || ' ' || c.relname
      from pg_catalog.pg_publication_rel r
           join pg_catalog.pg_publication p on p.oid = r.prpubid
           join relation c on c.oid = r.prrelid
     where p.pubname !~ '^pgmig_'
    union all
    select 'pg_event_trigger'::regclass, oid, 0, 0, evtname::text
      from pg_catalog.pg_event_trigger where evtname !~ '^pgmig_'
    union all
    select 'pg_language'::regclass, oid, 0, 0, null from pg_catalog.pg_language where oid >= 16384
    union all
    select 'pg_am'::regclass, oid, 0, 0, null from pg_catalog.pg_am where oid >= 16384
    union all
    select 'pg_cast'::regclass, oid, 0, 0, null from pg_catalog.pg_cast where oid >= 16384
    union all
    select 'pg_transform'::regclass, oid, 0, 0, null from pg_catalog.pg_transform
    union all
    select 'pg_foreign_data_wrapper'::regclass, oid, 0, 0, null from pg_catalog.pg_foreign_data_wrapper
    union all
    select 'pg_foreign_server'::regclass, oid, 0, 0, null from pg_catalog.pg_foreign_server
    union all
    select 'pg_user_mapping'::regclass, umid, 0, 0, null from pg_catalog.pg_user_mappings
    union all
    select 'pg_default_acl'::regclass, oid, 0, 0, null from pg_catalog.pg_default_acl
), extension_member as (
    select classid, objid from pg_catalog.pg_depend where deptype = 'e'
)
select o.class::oid, o.oid, o.relation, o.made_by, o.step::text, i.type,
       -- Versions differ in that word.
       case when o.class = 'pg_transform'::regclass then pg_catalog.replace(i.identity, ' on language ', ' language ') else i.identity end
  from object o, lateral pg_catalog.pg_identify_object(o.class, o.oid, 0) i
 where i.type is not null
   and not exists (select from extension_member e where e.classid = o.class and e.objid = o.oid)
   and not exists (select from extension_member e where e.classid = 'pg_class'::regclass and e.objid = o.relation)
