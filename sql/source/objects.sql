-- What the dump's table of contents does not say of an object: the table it belongs to and how it
-- behaves. Keyed by catalog and oid, as the table of contents is.
select 'pg_class'::regclass::oid as catalog, i.indexrelid as oid,
       n.nspname::text as schema_name, c.relname::text as table_name,
       case when i.indisunique then 'u' else 'i' end as kind, null::text as definition, null::text as index_name
  from pg_catalog.pg_index i
       join pg_catalog.pg_class c on c.oid = i.indrelid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where n.nspname !~ '^pg_'
union all
-- Primary keys and unique constraints of ordinary tables are built as indexes, then attached. Not the
-- primary key of a table that inherits: from 18 on the columns' NOT NULL would become the table's own.
select 'pg_constraint'::regclass::oid, k.oid, n.nspname::text, c.relname::text,
       case when k.contype in ('p', 'u') and c.relkind = 'r' then k.contype::text
            when k.contype = 'f' and not k.convalidated then 'not valid'
            -- NOT VALID and VALIDATE do not reach the constraints of partitions, on either end of the key.
            when k.contype = 'f' and (c.relkind = 'p' or rc.relkind = 'p') then 'partitioned'
            else 'x' end,
       case when (k.contype = 'u'
                  or k.contype = 'p'
                     and (c.relispartition
                          or not exists (select from pg_catalog.pg_inherits h where h.inhrelid = c.oid)))
                 and c.relkind = 'r'
            then pg_catalog.pg_get_indexdef(k.conindid)
       end,
       ic.relname::text
  from pg_catalog.pg_constraint k
       join pg_catalog.pg_class c on c.oid = k.conrelid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       left join pg_catalog.pg_class ic on ic.oid = k.conindid
       left join pg_catalog.pg_class rc on rc.oid = k.confrelid
 where n.nspname !~ '^pg_'
union all
select 'pg_statistic_ext'::regclass::oid, s.oid, n.nspname::text, c.relname::text, 's', null, null
  from pg_catalog.pg_statistic_ext s
       join pg_catalog.pg_class c on c.oid = s.stxrelid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
union all
-- Those that fire under session_replication_role = replica would fire while changes are applied.
select 'pg_trigger'::regclass::oid, t.oid, n.nspname::text, c.relname::text,
       case when t.tgenabled in ('A', 'R') then 'fires' else 'quiet' end, null, null
  from pg_catalog.pg_trigger t
       join pg_catalog.pg_class c on c.oid = t.tgrelid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where not t.tgisinternal
union all
select 'pg_rewrite'::regclass::oid, r.oid, n.nspname::text, c.relname::text,
       case when r.ev_enabled in ('A', 'R') then 'fires' else 'quiet' end, null, null
  from pg_catalog.pg_rewrite r
       join pg_catalog.pg_class c on c.oid = r.ev_class
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where n.nspname !~ '^pg_'
union all
select 'pg_event_trigger'::regclass::oid, e.oid, null, null,
       case when e.evtenabled in ('A', 'R') then 'fires' else 'quiet' end, null, null
  from pg_catalog.pg_event_trigger e
