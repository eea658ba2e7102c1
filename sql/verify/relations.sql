-- Tables, views, and what is like them.
with relation as (
    select c.*, pg_catalog.format('%I.%I', n.nspname, c.relname) as name
      from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relpersistence <> 't'
       and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
)
select 'pg_class'::regclass::oid as class, c.oid, p.label, p.value, p.mend, p.undo, p.probe
  from relation c,
       lateral (values
           ('persistence', case c.relpersistence when 'u' then 'unlogged' else 'permanent' end,
            pg_catalog.format('alter table %s set %s', c.name, case c.relpersistence when 'u' then 'unlogged' else 'logged' end), null, null),
           ('access method', (select amname::text from pg_catalog.pg_am where oid = c.relam and c.relkind in ('r', 'm')), null, null, null),
           ('tablespace', (select spcname::text from pg_catalog.pg_tablespace where oid = c.reltablespace), null, null, null),
           ('options', (select pg_catalog.string_agg(o, ', ' order by o collate "C") from pg_catalog.unnest(c.reloptions) o), null, null, null),
           ('options of its TOAST table',
            (select pg_catalog.string_agg(o, ', ' order by o collate "C")
               from pg_catalog.pg_class t, pg_catalog.unnest(t.reloptions) o where t.oid = c.reltoastrelid), null, null, null),
           ('type', case when c.reloftype <> 0 then c.reloftype::regtype::text end, null, null, null),
           ('parents', (select pg_catalog.string_agg(h.inhparent::regclass::text, ', ' order by h.inhseqno)
                          from pg_catalog.pg_inherits h where h.inhrelid = c.oid), null, null, null),
           ('partition key', case c.relkind when 'p' then pg_catalog.pg_get_partkeydef(c.oid) end, null, null, null),
           ('partition bound', case when c.relispartition then pg_catalog.pg_get_expr(c.relpartbound, c.oid) end, null, null, null),
           ('replica identity',
            case when c.relkind in ('r', 'p')
                 then case c.relreplident when 'd' then 'default' when 'f' then 'full' when 'n' then 'nothing'
                                          else 'using index ' || coalesce((select i.relname from pg_catalog.pg_index x join pg_catalog.pg_class i on i.oid = x.indexrelid where x.indrelid = c.oid and x.indisreplident), '?') end end,
            pg_catalog.format('alter table %s replica identity %s', c.name,
                              case c.relreplident when 'd' then 'default' when 'f' then 'full' when 'n' then 'nothing'
                                                  else (select pg_catalog.format('using index %I', i.relname) from pg_catalog.pg_index x join pg_catalog.pg_class i on i.oid = x.indexrelid where x.indrelid = c.oid and x.indisreplident) end),
            null, null),
           ('row security', case when c.relkind in ('r', 'p') then case when c.relrowsecurity then 'on' else 'off' end end,
            pg_catalog.format('alter table %s %s row level security', c.name, case when c.relrowsecurity then 'enable' else 'disable' end), null, null),
           ('row security of the owner', case when c.relkind in ('r', 'p') then case when c.relforcerowsecurity then 'forced' else 'not forced' end end,
            pg_catalog.format('alter table %s %s row level security', c.name, case when c.relforcerowsecurity then 'force' else 'no force' end), null, null),
           ('populated', case c.relkind when 'm' then case when c.relispopulated then 'yes' else 'no' end end,
            pg_catalog.format('refresh materialized view %s', c.name), null, null),
           ('server', (select pg_catalog.format('%I', s.srvname) from pg_catalog.pg_foreign_table f join pg_catalog.pg_foreign_server s on s.oid = f.ftserver where f.ftrelid = c.oid), null, null, null),
           ('options of the server', (select pg_catalog.string_agg(o, ', ' order by o collate "C") from pg_catalog.pg_foreign_table f, pg_catalog.unnest(f.ftoptions) o where f.ftrelid = c.oid), null, null, null),
           ('definition', case when c.relkind in ('v', 'm') then pg_catalog.pg_get_viewdef(c.oid) end,
            case c.relkind when 'v' then pg_catalog.format('create or replace view %s%s as %s', c.name, ' with (' || pg_catalog.array_to_string(c.reloptions, ', ') || ')', pg_catalog.pg_get_viewdef(c.oid)) end, null,
            'create temporary view pgmig_verify as ' || case when c.relkind in ('v', 'm') then pg_catalog.pg_get_viewdef(c.oid) end)
       ) p (label, value, mend, undo, probe)
 where p.value is not null
