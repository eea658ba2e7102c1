-- Every table whose rows pgmig moves: ordinary tables and leaf partitions, of no extension.
-- $1: sizes are taken from pg_class as the last VACUUM or ANALYZE left them; asking the files takes long
-- where tables are many. $2: names of types that never travel in binary.
-- Collations that order text by its bytes in UTF-8, as no later version of a library can change: C, and
-- those of the builtin provider, which came with PostgreSQL 17. libc's C.UTF-8 is none of them.
with bytewise as (
    select l.oid
      from pg_catalog.pg_collation l
           join pg_catalog.pg_database d on d.datname = current_database()
           cross join lateral (select coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') as provider) o
     where pg_catalog.pg_encoding_to_char(d.encoding) = 'UTF8'
       and case l.collprovider
           when 'd' then o.provider = 'b' or o.provider = 'c' and d.datcollate in ('C', 'POSIX')
           when 'c' then l.collcollate in ('C', 'POSIX')
           else l.collprovider = 'b'
           end)
select c.oid,
       n.nspname::text as schema_name,
       c.relname::text as table_name,
       c.relpersistence::text as persistence,
       c.relreplident::text as replica_identity,
       case when $1::boolean
            then (greatest(c.relpages, 0)
                  + coalesce((select greatest(t.relpages, 0) from pg_catalog.pg_class t where t.oid = c.reltoastrelid), 0))
                 * current_setting('block_size')::bigint
            else coalesce(pg_catalog.pg_table_size(c.oid), 0)
       end as bytes,
       case when $1::boolean
            then greatest(c.relpages, 0)::bigint
            else coalesce(pg_catalog.pg_relation_size(c.oid), 0) / current_setting('block_size')::bigint
       end as blocks,
       -- As the planner counts: how dense the rows lay at the last VACUUM or ANALYZE. Before the first one
       -- the statistics know how many were written.
       case when c.reltuples > 0 and c.relpages > 0 then c.reltuples::float8 / c.relpages end as rows_per_block,
       pg_catalog.pg_stat_get_live_tuples(c.oid) as live_rows,
       -- What key ranges are cut by: the leading column of the primary key, or of another unique index
       -- that leaves no row out.
       k.attname::text as split_key,
       pg_catalog.format_type(k.atttypid, k.atttypmod) as split_key_type,
       coalesce(k.tells_part, false) as split_key_tells_part,
       -- Columns that are copied: generated ones are computed again on the target.
       array(select a.attname::text
               from pg_catalog.pg_attribute a
              where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
              order by a.attnum) as columns,
       -- Types with oids of their own in each database, or that are oids, do not travel in binary.
       not exists (select from pg_catalog.pg_attribute a
                    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
                      and (a.atttypid >= 10000
                           or a.atttypid in (select t.oid from pg_catalog.pg_type t
                                              where t.typname ~ $2
                                                and t.oid < 10000))) as binary_safe,
       -- wal2json before 2.6 prints NaN and infinities of these as null.
       (select a.attname::text
          from pg_catalog.pg_attribute a
         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
           and a.atttypid in ('float4'::regtype, 'float8'::regtype, 'numeric'::regtype)
         order by a.attnum limit 1) as float_column,
       -- Without one of these an UPDATE or DELETE in the stream does not say which row it means.
       case c.relreplident
            -- From 18 on an UPDATE fails on the source if a column of the identity is not published, as
            -- no virtual one is.
            when 'f' then not exists (select from pg_catalog.pg_attribute a
                                       where a.attrelid = c.oid and a.attgenerated = 'v' and not a.attisdropped)
            when 'n' then false
            -- A deferrable key is none to logical decoding; a generated column is not in pgoutput's stream.
            else exists (select from pg_catalog.pg_index i
                          where i.indrelid = c.oid and i.indisvalid and i.indimmediate
                            and case c.relreplident when 'd' then i.indisprimary else i.indisreplident end
                            and not exists (select from pg_catalog.pg_attribute a
                                             where a.attrelid = c.oid and a.attgenerated <> ''
                                               and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])))
       end as identified,
       c.relrowsecurity as row_security
  from pg_catalog.pg_class c
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       left join lateral (select a.attname, a.atttypid, a.atttypmod,
                                 -- Whether a change says by it in which range its row is: its order is the same
                                 -- on every server, and it is in what identifies a row. The primary key and what
                                 -- indexes of a parent are made of must be there before all Parts are of one moment.
                                 c.relpersistence = 'p'
                                 and (a.atttypid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'uuid'::regtype,
                                                     'numeric'::regtype, 'date'::regtype, 'timestamp'::regtype,
                                                     'timestamptz'::regtype)
                                      or a.atttypid in ('text'::regtype, 'varchar'::regtype)
                                         and a.attcollation in (select b.oid from bytewise b))
                                 and case c.relreplident
                                     when 'f' then true
                                     when 'n' then false
                                     else exists (select from pg_catalog.pg_index r
                                                   where r.indrelid = c.oid and r.indisvalid and r.indimmediate
                                                     and case c.relreplident when 'd' then r.indisprimary else r.indisreplident end
                                                     and a.attnum = any (r.indkey[0:r.indnkeyatts - 1]))
                                     end
                                 and not exists (select from pg_catalog.pg_index r
                                                  where r.indrelid = c.oid and (r.indisunique or r.indisexclusion)
                                                    and (r.indisprimary or c.relispartition)
                                                    and (r.indisexclusion or a.attnum <> all (r.indkey[0:r.indnkeyatts - 1])))
                                 as tells_part
                            from pg_catalog.pg_index i
                                 join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
                                 join pg_catalog.pg_class x on x.oid = i.indexrelid
                                 join pg_catalog.pg_am m on m.oid = x.relam
                           where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null
                             and a.attnotnull and m.amname = 'btree'
                           order by tells_part desc, i.indisprimary desc, i.indnkeyatts, i.indexrelid
                           limit 1) k on true
 where c.relkind = 'r'
   and c.relpersistence in ('p', 'u')
   and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
   and not exists (select from pg_catalog.pg_depend d
                    where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
 order by bytes desc, 2, 3
