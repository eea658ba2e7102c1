-- The partitions that hold the rows of each of the partitioned tables $1 (oids).
with below as (
    select w.root, t.relid as leaf
      from unnest($1::oid[]) w (root)
           cross join lateral pg_catalog.pg_partition_tree(w.root) t
     where t.isleaf),
-- What their rows are divided by, at each level.
levels as (
    select b.leaf, p.partstrat, p.partattrs::int2[] as numbers, p.partexprs, p.partcollation::oid[] as collations,
           array(select a.attname from unnest(p.partattrs::int2[]) k (attnum)
                                       join pg_catalog.pg_attribute a on a.attrelid = p.partrelid and a.attnum = k.attnum) as names,
           array(select a.atttypid from unnest(p.partattrs::int2[]) k (attnum)
                                        join pg_catalog.pg_attribute a on a.attrelid = p.partrelid and a.attnum = k.attnum) as types
      from below b
           cross join lateral pg_catalog.pg_partition_ancestors(b.leaf) a
           join pg_catalog.pg_partitioned_table p on p.partrelid = a.relid)
select r.oid as root_oid,
       rn.nspname::text as root_schema,
       r.relname::text as root_name,
       c.oid,
       n.nspname::text as schema_name,
       c.relname::text as table_name,
       c.relkind = 'r' and c.relpersistence = 'p' as followed,
       -- What a row of it says of itself, if it says so on every server: hashes of some types, the order of
       -- text and types of the user's own differ from one to the other, and what a default partition holds
       -- changes with its siblings.
       case when not exists (select from levels l
                              where l.leaf = c.oid
                                and (l.partstrat not in ('r', 'l') or l.partexprs is not null
                                     or exists (select from unnest(l.types) t (oid) where t.oid >= 10000)
                                     or l.partstrat = 'r' and exists (select from unnest(l.collations) o (oid)
                                                                              left join pg_catalog.pg_collation k on k.oid = o.oid
                                                                       where o.oid <> 0 and coalesce(k.collcollate, '') <> 'C')
                                     or exists (select from unnest(l.collations) o (oid)
                                                            join pg_catalog.pg_collation k on k.oid = o.oid
                                                     where not k.collisdeterministic)))
             and not exists (select from pg_catalog.pg_partition_ancestors(c.oid) a
                                         join pg_catalog.pg_partitioned_table p on p.partdefid = a.relid)
            then pg_catalog.pg_get_partition_constraintdef(c.oid)
       end as condition,
       -- Whether no other partition can hold a row of the same identity.
       c.relreplident = 'f'
       or not exists (select from levels l
                       where l.leaf = c.oid
                         and (l.partexprs is not null
                              or not l.names <@ array(select a.attname
                                                        from pg_catalog.pg_index i
                                                             join pg_catalog.pg_attribute a on a.attrelid = i.indrelid
                                                                  and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])
                                                       where i.indrelid = c.oid and i.indisvalid and i.indimmediate
                                                         and case c.relreplident when 'd' then i.indisprimary else i.indisreplident end)))
       as told_apart,
       -- Made by CREATE TABLE … PARTITION OF: its columns are from its parent, and as they were made, by the
       -- same command as those of the system (AddNewAttributeTuples in heap.c; ATTACH writes each of them
       -- anew, MergeAttributesIntoExisting in tablecmds.c). So it was empty when it became a partition.
       exists (select from pg_catalog.pg_attribute a
                           join pg_catalog.pg_attribute s on s.attrelid = a.attrelid and s.attnum = -1
                           join pg_catalog.pg_inherits h on h.inhrelid = a.attrelid
                where a.attrelid = c.oid and a.attnum > 0 and a.attinhcount > 0 and not a.attislocal
                  and a.xmin::text = s.xmin::text and a.cmin::text = s.cmin::text and h.xmin::text = s.xmin::text) as born_one
  from below b
       join pg_catalog.pg_class c on c.oid = b.leaf
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       join pg_catalog.pg_class r on r.oid = b.root
       join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
 order by 2, 3, 5, 6
