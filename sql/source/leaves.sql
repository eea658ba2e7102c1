-- The partitions that hold the rows of each of the partitioned tables $1 (oids), as the session's snapshot shows
-- them. pg_partition_tree would show those of now, and keep a lock on each until the transaction ends.
with recursive tree (root, relation, parents, attached, born_one) as (
    select w.root, w.root, '{}'::oid[], '', true
      from unnest($1::oid[]) w (root)
    union all
    select t.root, h.inhrelid, t.parents || t.relation, t.attached || ' ' || h.xmin::text,
           -- Made by CREATE TABLE … PARTITION OF: its columns are from its parent, and as they were made, by the
           -- same command as those of the system (AddNewAttributeTuples in heap.c; ATTACH writes each of them
           -- anew, MergeAttributesIntoExisting in tablecmds.c). So it was empty when it became a partition. What
           -- a rolled-back command has marked as deleted tells no cmin.
           t.born_one and exists (select from pg_catalog.pg_attribute a
                                              join pg_catalog.pg_attribute s on s.attrelid = a.attrelid and s.attnum = -1
                                   where a.attrelid = h.inhrelid and a.attnum > 0 and a.attinhcount > 0 and not a.attislocal
                                     and a.xmin::text = s.xmin::text and a.cmin::text = s.cmin::text
                                     and a.xmax::text = '0' and s.xmax::text = '0' and h.xmin::text = s.xmin::text)
      from tree t
           join pg_catalog.pg_inherits h on h.inhparent = t.relation),
below as (
    select t.*, t.relation as leaf
      from tree t
           join pg_catalog.pg_class c on c.oid = t.relation
     where c.relkind <> 'p'),
-- What their rows are divided by, at each level.
levels as (
    select b.leaf, p.partdefid, p.partstrat, p.partexprs, p.partcollation::oid[] as collations,
           array(select a.attname from unnest(p.partattrs::int2[]) k (attnum)
                                       join pg_catalog.pg_attribute a on a.attrelid = p.partrelid and a.attnum = k.attnum) as names,
           array(select a.atttypid from unnest(p.partattrs::int2[]) k (attnum)
                                        join pg_catalog.pg_attribute a on a.attrelid = p.partrelid and a.attnum = k.attnum) as types
      from below b
           join pg_catalog.pg_partitioned_table p on p.partrelid = any (b.parents))
select rn.nspname::text as root_schema,
       r.relname::text as root_name,
       c.oid,
       n.nspname::text as schema_name,
       c.relname::text as table_name,
       c.relkind = 'r' and c.relpersistence = 'p' as followed,
       -- When it and what is above it became partitions: by which transactions.
       b.attached,
       b.born_one,
       -- Whether its bounds say which rows are its own, on every server alike: hashes of some types, the order of
       -- text and types of the user's own differ from one to the other, and what a default partition holds
       -- changes with its siblings.
       not exists (select from levels l
                              where l.leaf = c.oid
                                and (l.partstrat not in ('r', 'l') or l.partexprs is not null
                                     or exists (select from unnest(l.types) t (oid) where t.oid >= 10000)
                                     or l.partstrat = 'r' and exists (select from unnest(l.collations) o (oid) where o.oid <> 0)
                                     or exists (select from unnest(l.collations) o (oid)
                                                            join pg_catalog.pg_collation k on k.oid = o.oid
                                                     where not k.collisdeterministic)
                                     or l.partdefid = c.oid or l.partdefid = any (b.parents))) as nameable,
       -- Whether its replica identity is what it was when it became a partition, as far as pg_class tells.
       c.xmin::text = (select h.xmin::text from pg_catalog.pg_inherits h where h.inhrelid = c.oid) as identity_kept,
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
       as told_apart
  from below b
       join pg_catalog.pg_class c on c.oid = b.leaf
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       join pg_catalog.pg_class r on r.oid = b.root
       join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
 order by 1, 2, 4, 5
