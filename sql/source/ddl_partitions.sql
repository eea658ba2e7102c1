-- Puts partitions that the source makes into the publication of pgmig, if partitions beside them are in it and
-- they have the key of their table: from the first row on, and before the trigger of ddl.sql tells of them, since
-- event triggers run by name. It has the rights of pgmig's role. An error in here is never one of the DDL, and the
-- one lock that it may wait for, that of the publication, it waits for shortly, and keeps until the transaction
-- ends: a partition that is made meanwhile in another one stays outside. migration_name stands for the name of
-- the migration.
create or replace function pgmig."tell_ddl_:migration_name"()
returns event_trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '250ms'
as $body$
declare
    made record;
begin
    for made in
        select n.nspname, c.relname
          from pg_event_trigger_ddl_commands() d
               join pg_class c on c.oid = d.objid and d.classid = 'pg_class'::regclass
               join pg_namespace n on n.oid = c.relnamespace
         where d.command_tag = 'CREATE TABLE' and c.relispartition and c.relkind = 'r' and c.relpersistence = 'p'
           and c.relreplident = 'd'
           -- As tables.sql has it.
           and exists (select from pg_index i
                        where i.indrelid = c.oid and i.indisprimary and i.indimmediate
                          and not exists (select from pg_attribute a
                                           where a.attrelid = c.oid and a.attgenerated <> ''
                                             and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])))
           -- pg_partition_tree would lock all of it.
           and exists (with recursive tree (oid) as (
                           select pg_partition_root(c.oid)::oid
                           union all
                           select i.inhrelid from tree t join pg_inherits i on i.inhparent = t.oid)
                       select from tree t
                                   join pg_publication_rel r on r.prrelid = t.oid
                                   join pg_publication p on p.oid = r.prpubid
                        where p.pubname = 'pgmig_migration_name')
    loop
        -- What is altered here is not told.
        perform set_config('pgmig.publishes', 'on', true);
        execute format('alter publication %I add table only %I.%I', 'pgmig_migration_name', made.nspname, made.relname);
        perform set_config('pgmig.publishes', '', true);
    end loop;
exception when others then
    raise log 'pgmig: a partition is not published: %', sqlerrm;
end
$body$;

create event trigger pgmig_add_migration_name on ddl_command_end when tag in ('CREATE TABLE')
  execute function pgmig."tell_ddl_:migration_name"();
