-- Has the source tell its DDL in its own stream: event triggers write it into a logical message, which comes
-- in order with the changes around it, or not at all if the transaction is rolled back. A failure in here is
-- never one of the DDL. migration_name stands for the name of the migration. Names are written in full: the
-- search path is that of the session, and is told.
create schema if not exists pgmig;

create or replace function pgmig.tell_ddl_migration_name()
returns event_trigger
language plpgsql
as $body$
declare
    found pg_catalog.jsonb;
begin
    if tg_event operator(pg_catalog.=) 'sql_drop' then
        select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('schema', o.schema_name, 'name', o.object_name))
          into found
          from pg_catalog.pg_event_trigger_dropped_objects() o
         where o.original and o.object_type operator(pg_catalog.=) 'index' and not o.is_temporary;
    else
        with altered as (
            select distinct coalesce(i.indrelid, c.oid) as oid
              from pg_catalog.pg_event_trigger_ddl_commands() d
                   join pg_catalog.pg_class c
                     on d.classid operator(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                    and c.oid operator(pg_catalog.=) d.objid
                   left join pg_catalog.pg_index i on i.indexrelid operator(pg_catalog.=) c.oid
             where not d.in_extension and c.relpersistence operator(pg_catalog.<>) 't'
               and c.relkind operator(pg_catalog.=) any ('{r,p,i,I}'::"char"[])
        ), of_them as (
            select a.oid from altered a
            union
            select t.relid::pg_catalog.oid from altered a, lateral pg_catalog.pg_partition_tree(a.oid) t
        )
        select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                   'schema', n.nspname,
                   'name', c.relname,
                   'computed', array(
                       select pg_catalog.jsonb_build_object('column', a.attname, 'default', pg_catalog.pg_get_expr(d.adbin, d.adrelid))
                         from pg_catalog.pg_attribute a
                              left join pg_catalog.pg_attrdef d
                                on d.adrelid operator(pg_catalog.=) a.attrelid and d.adnum operator(pg_catalog.=) a.attnum
                        where a.attrelid operator(pg_catalog.=) c.oid and a.attnum operator(pg_catalog.>) 0
                          and not a.attisdropped and a.attgenerated operator(pg_catalog.=) ''
                          and (a.atthasdef or a.attidentity operator(pg_catalog.<>) ''))))
          into found
          from of_them o
               join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) o.oid
               join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace;
    end if;
    if found is not null then
        perform pg_catalog.pg_logical_emit_message(true, 'pgmig ddl migration_name', pg_catalog.jsonb_build_object(
            'at', pg_catalog.pg_current_wal_insert_lsn(),
            'tag', tg_tag,
            'statement', pg_catalog.current_query(),
            'on', found,
            'settings', pg_catalog.jsonb_build_object(
                'search_path', (select pg_catalog.string_agg(pg_catalog.quote_ident(s.name), ', ' order by s.at)
                                  from pg_catalog.unnest(pg_catalog.current_schemas(false)) with ordinality as s (name, at)),
                'timezone', pg_catalog.current_setting('timezone'),
                'datestyle', pg_catalog.current_setting('datestyle'),
                'intervalstyle', pg_catalog.current_setting('intervalstyle'),
                'lc_monetary', pg_catalog.current_setting('lc_monetary')))::pg_catalog.text);
        -- A message counts as written where the next record begins: in a subtransaction that record could come
        -- first. This one may.
        perform pg_catalog.pg_logical_emit_message(true, 'pgmig', '');
    end if;
exception when others then
    raise log 'pgmig: DDL is not told: %', sqlerrm;
end
$body$;

create event trigger pgmig_ddl_migration_name on ddl_command_end
  when tag in ('ALTER TABLE', 'CREATE INDEX', 'ALTER INDEX')
  execute function pgmig.tell_ddl_migration_name();

create event trigger pgmig_drop_migration_name on sql_drop
  when tag in ('DROP INDEX')
  execute function pgmig.tell_ddl_migration_name();
