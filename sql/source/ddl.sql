-- Has the source tell its DDL in its own stream: event triggers write it into a logical message, which comes
-- in order with the changes around it, or not at all if the transaction is rolled back. A failure in here is
-- never one of the DDL. migration_name stands for the name of the migration, ddl_key for what a message is known
-- to be from here by: anybody may write one, and what is told is run on the target with pgmig's rights.
create schema if not exists pgmig;

create table pgmig."tell_ddl_key:migration_name" (key pg_catalog.text not null);
revoke all on pgmig."tell_ddl_key:migration_name" from public;
-- Without a policy: who may read all data, but bypasses no row security, sees no row.
alter table pgmig."tell_ddl_key:migration_name" enable row level security;
insert into pgmig."tell_ddl_key:migration_name" values ('ddl_key');

-- It has the rights of pgmig's role, to read the key. Its search path is its own from its first statement on; until
-- then, and with it, names are written in full.
create or replace function pgmig.tell_ddl_migration_name()
returns event_trigger
language plpgsql
security definer
as $body$
declare
    -- Tables that it alters, makes or drops, or whose trigger, policy, privilege ... it is about.
    tables pg_catalog.jsonb;
    -- Dropped objects whose table nobody can name any more.
    dropped pg_catalog.jsonb;
    -- What else it is about, if it is about no table.
    others pg_catalog.jsonb;
    definition pg_catalog.text;
    -- Whether its role owns all of the tables. GRANT by another may be a warning and no more.
    owned pg_catalog.bool;
    -- A background worker may have none.
    told_statement pg_catalog.text := coalesce(pg_catalog.current_query(), '');
    -- What names without a schema meant to the session.
    told_path pg_catalog.text := pg_catalog.current_setting('search_path');
    told_role pg_catalog.name := case when pg_catalog.current_setting('role') operator(pg_catalog.=) 'none' then session_user
                                      else pg_catalog.current_setting('role')::pg_catalog.name end;
    told_schemas pg_catalog.name[];
begin
    -- What pgmig does here is not for the other side; what is filled again is no DDL; what ALTER TABLE drops it
    -- tells at its end.
    if pg_catalog.current_setting('application_name') operator(pg_catalog.~~) 'pgmig %'
       or pg_catalog.current_setting('pgmig.publishes', true) operator(pg_catalog.=) 'on'
       or tg_tag operator(pg_catalog.=) any ('{REFRESH MATERIALIZED VIEW,REINDEX}'::pg_catalog.text[])
       or tg_event operator(pg_catalog.=) 'sql_drop' and tg_tag operator(pg_catalog.!~~) 'DROP %'
    then
        return;
    end if;
    -- Here $user would be pgmig's role; it may stand there without quotes, too.
    perform pg_catalog.set_config('search_path', pg_catalog.regexp_replace(
        pg_catalog.replace(told_path, '"$user"', pg_catalog.quote_ident(told_role::pg_catalog.text)),
        '(?<![^, ])[$]user(?![^, ])',
        pg_catalog.replace(pg_catalog.quote_ident(told_role::pg_catalog.text), E'\\', E'\\\\'), 'gi'), true);
    told_schemas := pg_catalog.current_schemas(false);
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    if tg_event operator(pg_catalog.=) 'sql_drop' then
        with gone as (
            select o.original, o.object_type, o.schema_name, o.object_name, o.object_identity,
                   case when o.object_type operator(pg_catalog.=) 'table' then array[o.schema_name, o.object_name]
                        when o.object_type operator(pg_catalog.=) any
                             ('{table column,table constraint,default value,trigger,rule,policy}'::pg_catalog.text[])
                             and o.address_names[3] is distinct from '_RETURN'
                        then o.address_names[1:2]
                   end as of_table
              from pg_catalog.pg_event_trigger_dropped_objects() o
             where not o.is_temporary
               and o.schema_name is distinct from 'pgmig'
        )
        select (select pg_catalog.jsonb_agg(distinct pg_catalog.jsonb_build_object('schema', g.of_table[1], 'name', g.of_table[2]))
                  from gone g where g.of_table[2] is not null),
               (select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('kind', g.object_type, 'schema', g.schema_name, 'name', g.object_name))
                  from gone g
                 where g.original and g.object_type operator(pg_catalog.=) any ('{index,statistics object}'::pg_catalog.text[])),
               (select pg_catalog.jsonb_agg(pg_catalog.concat(g.object_type, ' ', g.object_identity)) from gone g where g.original)
          into tables, dropped, others;
    else
        with recursive told as (
            select d.classid, d.objid, d.object_type, d.object_identity
              from pg_catalog.pg_event_trigger_ddl_commands() d
             where not d.in_extension and d.schema_name is distinct from 'pg_temp'
               and d.schema_name is distinct from 'pgmig'
        ), about as (
            select coalesce(i.indrelid, c.oid) as oid
              from told d
                   join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) d.objid
                   left join pg_catalog.pg_index i on i.indexrelid operator(pg_catalog.=) c.oid
             where d.classid operator(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
            union
            select t.tgrelid
              from told d join pg_catalog.pg_trigger t on t.oid operator(pg_catalog.=) d.objid
             where d.classid operator(pg_catalog.=) 'pg_catalog.pg_trigger'::pg_catalog.regclass
            union
            select r.ev_class
              from told d join pg_catalog.pg_rewrite r on r.oid operator(pg_catalog.=) d.objid
             where d.classid operator(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
            union
            select p.polrelid
              from told d join pg_catalog.pg_policy p on p.oid operator(pg_catalog.=) d.objid
             where d.classid operator(pg_catalog.=) 'pg_catalog.pg_policy'::pg_catalog.regclass
            union
            select s.stxrelid
              from told d join pg_catalog.pg_statistic_ext s on s.oid operator(pg_catalog.=) d.objid
             where d.classid operator(pg_catalog.=) 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass
            union
            select n.conrelid
              from told d join pg_catalog.pg_constraint n on n.oid operator(pg_catalog.=) d.objid
             where d.classid operator(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass
            union
            -- A type, by the columns that are of it, of an array of it, or of a domain over it.
            select a.attrelid
              from told d
                   join pg_catalog.pg_type t
                     on d.objid operator(pg_catalog.=) any (array[t.oid, t.typelem, t.typbasetype])
                   join pg_catalog.pg_attribute a on a.atttypid operator(pg_catalog.=) t.oid and not a.attisdropped
             where d.classid operator(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
               and tg_tag operator(pg_catalog.=) any ('{ALTER TYPE,ALTER DOMAIN}'::pg_catalog.text[])
            union
            -- GRANT and REVOKE tell no object: rows of the catalog that this transaction wrote, of tables that
            -- the statement has the name of.
            select w.oid
              from (select c.oid, c.xmin as written from pg_catalog.pg_class c
                    union all
                    select a.attrelid, a.xmin from pg_catalog.pg_attribute a
                     where pg_catalog.strpos(told_statement, '(') operator(pg_catalog.>) 0) w
                   join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) w.oid
             where tg_tag operator(pg_catalog.=) any ('{GRANT,REVOKE}'::pg_catalog.text[])
               and exists (select from told d where d.object_type operator(pg_catalog.=) 'TABLE')
               and ((w.written::pg_catalog.text::pg_catalog.int8 operator(pg_catalog.-) pg_catalog.txid_current())
                    operator(pg_catalog.&) 4294967295) operator(pg_catalog.<) 16777216
               and (pg_catalog.strpos(told_statement, c.relname::pg_catalog.text) operator(pg_catalog.>) 0
                    or pg_catalog.strpos(pg_catalog.lower(told_statement), c.relname::pg_catalog.text) operator(pg_catalog.>) 0
                    or told_statement operator(pg_catalog.~*) 'all[[:space:]]+tables')
        ), of_them as (
            select c.oid
              from about a join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) a.oid
             where c.relkind operator(pg_catalog.=) any ('{r,p}'::"char"[]) and c.relpersistence operator(pg_catalog.<>) 't'
        ), all_of_them as (
            select o.oid from of_them o
            union
            -- pg_partition_tree would wait for a lock on each of them, and keep it until the transaction ends.
            select i.inhrelid
              from all_of_them o
                   join pg_catalog.pg_inherits i on i.inhparent operator(pg_catalog.=) o.oid
                   join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) i.inhrelid and c.relispartition
        )
        select (select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                   'schema', n.nspname,
                   'name', c.relname,
                   'oid', c.oid::pg_catalog.int8,
                   'kind', c.relkind,
                   -- The table that it is a partition of.
                   'under', (select pg_catalog.jsonb_build_object('schema', u.nspname, 'name', p.relname)
                               from pg_catalog.pg_inherits i
                                    join pg_catalog.pg_class p on p.oid operator(pg_catalog.=) i.inhparent
                                    join pg_catalog.pg_namespace u on u.oid operator(pg_catalog.=) p.relnamespace
                              where c.relispartition and i.inhrelid operator(pg_catalog.=) c.oid),
                   -- pg_get_expr locks the table: asked for only where the command has locked it itself.
                   'bound', case when tg_tag operator(pg_catalog.=) 'CREATE TABLE' then pg_catalog.pg_get_expr(c.relpartbound, c.oid) end,
                   'owner', pg_catalog.pg_get_userbyid(c.relowner),
                   'grants', array(
                       select pg_catalog.jsonb_build_object('role', r.rolname, 'privilege', x.privilege_type, 'grantable', x.is_grantable)
                         from pg_catalog.aclexplode(c.relacl) x
                              left join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) x.grantee
                        where x.grantee operator(pg_catalog.<>) c.relowner),
                   -- What CREATE TABLE gives no partition, and another event trigger may have by now.
                   'more', pg_catalog.array_remove(array[
                       case when c.relrowsecurity or c.relforcerowsecurity
                                 or exists (select from pg_catalog.pg_policy y where y.polrelid operator(pg_catalog.=) c.oid)
                            then 'row security' end,
                       (select pg_catalog.concat('trigger ', pg_catalog.string_agg(g.tgname, ', '))
                          from pg_catalog.pg_trigger g
                         where g.tgrelid operator(pg_catalog.=) c.oid and not g.tgisinternal
                           -- Those of its table are its own as parts of them.
                           and not exists (select from pg_catalog.pg_depend e
                                            where e.classid operator(pg_catalog.=) 'pg_catalog.pg_trigger'::pg_catalog.regclass
                                              and e.objid operator(pg_catalog.=) g.oid
                                              and e.refclassid operator(pg_catalog.=) e.classid)
                        having pg_catalog.count(*) operator(pg_catalog.>) 0),
                       case when exists (select from pg_catalog.pg_rewrite w where w.ev_class operator(pg_catalog.=) c.oid)
                            then 'rules' end], null),
                   -- Whether all that is done to it from here on is in the stream, as tables.sql has it.
                   'followed', c.relpersistence operator(pg_catalog.=) 'p'
                       and c.relreplident operator(pg_catalog.=) 'd'
                       and exists (select from pg_catalog.pg_index i
                                    where i.indrelid operator(pg_catalog.=) c.oid and i.indisprimary and i.indimmediate
                                      and not exists (select from pg_catalog.pg_attribute a
                                                       where a.attrelid operator(pg_catalog.=) c.oid
                                                         and a.attgenerated operator(pg_catalog.<>) ''
                                                         and a.attnum operator(pg_catalog.=) any (i.indkey[0:i.indnkeyatts operator(pg_catalog.-) 1])))
                       and (not exists (select from pg_catalog.pg_publication p
                                         where p.pubname operator(pg_catalog.=) 'pgmig_migration_name')
                            or exists (select from pg_catalog.pg_publication_rel r
                                              join pg_catalog.pg_publication p on p.oid operator(pg_catalog.=) r.prpubid
                                        where p.pubname operator(pg_catalog.=) 'pgmig_migration_name'
                                          and r.prrelid operator(pg_catalog.=) c.oid)),
                   'computed', array(
                       select pg_catalog.jsonb_build_object('column', a.attname, 'default', pg_catalog.pg_get_expr(d.adbin, d.adrelid))
                         from pg_catalog.pg_attribute a
                              left join pg_catalog.pg_attrdef d
                                on d.adrelid operator(pg_catalog.=) a.attrelid and d.adnum operator(pg_catalog.=) a.attnum
                        where tg_tag operator(pg_catalog.=) 'ALTER TABLE' and told_statement operator(pg_catalog.~*) '[[:<:]]add[[:>:]]'
                          and a.attrelid operator(pg_catalog.=) c.oid and a.attnum operator(pg_catalog.>) 0
                          and not a.attisdropped and a.attgenerated operator(pg_catalog.=) ''
                          and (a.atthasdef or a.attidentity operator(pg_catalog.<>) ''))))
                  from all_of_them o
                       join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) o.oid
                       join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace),
               (select pg_catalog.jsonb_agg(pg_catalog.concat_ws(' ', d.object_type, d.object_identity)) from told d),
               (select pg_catalog.pg_get_indexdef(d.objid) from told d where tg_tag operator(pg_catalog.=) 'CREATE INDEX' limit 1),
               (select pg_catalog.bool_and(pg_catalog.pg_has_role(told_role, c.relowner, 'usage'))
                  from of_them o join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) o.oid)
          into tables, others, definition, owned;
    end if;
    if coalesce(tables, dropped, others) is not null then
        perform pg_catalog.pg_logical_emit_message(true, 'pgmig ddl migration_name', pg_catalog.jsonb_build_object(
            'key', (select k.key from pgmig."tell_ddl_key:migration_name" k),
            'at', pg_catalog.pg_current_wal_insert_lsn(),
            'tag', tg_tag,
            'statement', told_statement,
            'role', told_role,
            'owned', owned,
            'definition', definition,
            'on', coalesce(tables, '[]'),
            'dropped', coalesce(dropped, '[]'),
            'others', case when tables is null and dropped is null then others else '[]' end,
            'settings', pg_catalog.jsonb_build_object(
                'search_path', (select pg_catalog.string_agg(pg_catalog.quote_ident(s.name), ', ' order by s.at)
                                  from pg_catalog.unnest(told_schemas) with ordinality as s (name, at)
                                 where pg_catalog.has_schema_privilege(told_role, s.name::pg_catalog.text, 'usage')),
                'strings', pg_catalog.current_setting('standard_conforming_strings'),
                'timezone', pg_catalog.current_setting('timezone'),
                'datestyle', pg_catalog.current_setting('datestyle'),
                'intervalstyle', pg_catalog.current_setting('intervalstyle'),
                'lc_monetary', pg_catalog.current_setting('lc_monetary')))::pg_catalog.text);
        -- A message counts as written where the next record begins: in a subtransaction that record could come
        -- first. This one may.
        perform pg_catalog.pg_logical_emit_message(true, 'pgmig', '');
    end if;
    perform pg_catalog.set_config('search_path', told_path, true);
exception when others then
    raise log 'pgmig: DDL is not told: %', sqlerrm;
end
$body$;

create event trigger pgmig_ddl_migration_name on ddl_command_end
  execute function pgmig.tell_ddl_migration_name();

create event trigger pgmig_drop_migration_name on sql_drop
  execute function pgmig.tell_ddl_migration_name();
