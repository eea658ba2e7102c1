-- What a person or a script may call. Same names and meanings in both flavours.

create function pgmig.version()
returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return '0.1.0';
comment on function pgmig.version() is 'version of the pgmig schema';

-- The migration a call without a name means: the only one there is.
create function pgmig.only_migration()
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    names text[] := (select array_agg(migration order by migration) from pgmig.sentinel);
begin
    if names is null then
        raise exception 'no migration in this database'
              using errcode = 'no_data_found', hint = 'start one with: pgmig run';
    elsif cardinality(names) > 1 then
        raise exception 'more than one migration in this database: %', array_to_string(names, ', ')
              using errcode = 'ambiguous_parameter', hint = 'name it in the last argument';
    end if;
    return names[1];
end
$$;
comment on function pgmig.only_migration() is 'name of the migration in this database; an error if there is none or more than one';

create function pgmig.set_endpos(lsn pg_lsn, migration text)
returns pg_lsn
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    s pgmig.sentinel;
begin
    select * into s from pgmig.sentinel t where t.migration = set_endpos.migration for update;
    if not found then
        raise exception 'no migration named %', quote_literal(set_endpos.migration)
              using errcode = 'no_data_found', hint = 'see: select migration from pgmig.progress';
    elsif s.phase = 'done' then
        raise exception 'migration % is done', quote_literal(s.migration)
              using errcode = 'object_not_in_prerequisite_state';
    elsif not s.follow then
        raise exception 'migration % does not follow the source', quote_literal(s.migration)
              using errcode = 'object_not_in_prerequisite_state';
    elsif coalesce(s.interrupted_phase, s.phase) = 'cutover' and s.endpos is distinct from lsn then
        raise exception 'endpos % is reached and the migration is being finished', s.endpos
              using errcode = 'object_not_in_prerequisite_state';
    elsif lsn < s.startpos then
        raise exception 'endpos % is behind startpos %', lsn, s.startpos
              using errcode = 'invalid_parameter_value',
                    hint = 'the copy already holds every change up to startpos';
    elsif lsn < s.replay_lsn then
        raise exception 'endpos % is behind replay_lsn %', lsn, s.replay_lsn
              using errcode = 'invalid_parameter_value',
                    hint = 'what is applied cannot be taken back: give a position at or after replay_lsn';
    end if;
    update pgmig.sentinel t set endpos = lsn where t.migration = s.migration;
    insert into pgmig.event (migration, level, message)
    values (s.migration, 'info', coalesce('endpos set to ' || lsn, 'endpos cleared'));
    perform pg_notify('pgmig', s.migration);
    return lsn;
end
$$;
comment on function pgmig.set_endpos(pg_lsn, text) is 'sets where the named migration stops; null opens it again; returns it; an error if that position is already passed';

create function pgmig.set_endpos(lsn pg_lsn)
returns pg_lsn
language sql
set search_path = pg_catalog, pg_temp
as $$ select pgmig.set_endpos(lsn, pgmig.only_migration()) $$;
comment on function pgmig.set_endpos(pg_lsn) is 'sets where the only migration of this database stops; see set_endpos(pg_lsn, text)';

create function pgmig.switch_apply(migration text, on_or_off boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    update pgmig.sentinel t
       set apply = on_or_off,
           phase = case when on_or_off and t.phase = 'paused' then coalesce(t.interrupted_phase, 'follow')
                        when not on_or_off and t.phase in ('catchup', 'follow') then 'paused'
                        else t.phase end,
           interrupted_phase = case when on_or_off and t.phase = 'paused' then null
                                    when not on_or_off and t.phase in ('catchup', 'follow') then t.phase
                                    else t.interrupted_phase end
     where t.migration = switch_apply.migration;
    if not found then
        raise exception 'no migration named %', quote_literal(migration)
              using errcode = 'no_data_found', hint = 'see: select migration from pgmig.progress';
    end if;
    insert into pgmig.event (migration, level, message)
    values (switch_apply.migration, 'info', case when on_or_off then 'apply resumed' else 'apply paused' end);
    perform pg_notify('pgmig', switch_apply.migration);
end
$$;
comment on function pgmig.switch_apply(text, boolean) is 'turns apply on or off; what pause and resume call';

create function pgmig.pause(migration text)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select pgmig.switch_apply(migration, false) $$;
comment on function pgmig.pause(text) is 'holds apply back after the Batch in hand; copying and receiving go on';

create function pgmig.pause()
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select pgmig.switch_apply(pgmig.only_migration(), false) $$;
comment on function pgmig.pause() is 'holds apply of the only migration back; see pause(text)';

create function pgmig.resume(migration text)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select pgmig.switch_apply(migration, true) $$;
comment on function pgmig.resume(text) is 'lets apply go on';

create function pgmig.resume()
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select pgmig.switch_apply(pgmig.only_migration(), true) $$;
comment on function pgmig.resume() is 'lets apply of the only migration go on; see resume(text)';

-- A run holds an advisory lock for as long as it is alive, and no longer.
create function pgmig.is_running(migration text)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select
          from pg_locks l
         where l.locktype = 'advisory'
           and l.granted
           and l.database = (select d.oid from pg_database d where d.datname = current_database())
           and l.objsubid = 1
           and ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended('pgmig ' || migration, 0))
$$;
comment on function pgmig.is_running(text) is 'whether a run of the named migration is alive';

create function pgmig.stop(now boolean default false, migration text default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    name text := coalesce(migration, pgmig.only_migration());
begin
    if not exists (select from pgmig.sentinel t where t.migration = name) then
        raise exception 'no migration named %', quote_literal(name)
              using errcode = 'no_data_found', hint = 'see: select migration from pgmig.progress';
    elsif not pgmig.is_running(name) then
        raise exception 'migration % is not running', quote_literal(name)
              using errcode = 'object_not_in_prerequisite_state',
                    hint = 'there is nothing to stop; pgmig run goes on with it';
    end if;
    update pgmig.sentinel t
       set stop = case when stop.now then 'now' else 'border' end
     where t.migration = name;
    insert into pgmig.event (migration, level, message)
    values (name, 'info', case when now then 'asked to stop at once' else 'asked to stop' end);
    perform pg_notify('pgmig', name);
end
$$;
comment on function pgmig.stop(boolean, text) is 'asks the run of a migration, of the only one if none is named, to end: once the Parts and the Batch in hand are committed, or with now => true at once; pgmig run goes on from there';

create function pgmig.throttle(max_rate bigint default null, max_source_connections int default null,
                               max_slowdown int default null, max_standby_lag interval default null,
                               probe text default null, migration text default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    name text := coalesce(migration, pgmig.only_migration());
begin
    if max_rate < 0 or max_source_connections < 0 or max_slowdown < 0 or max_standby_lag < interval '0' then
        raise exception 'a limit cannot be negative'
              using errcode = 'invalid_parameter_value', hint = '0 lifts a limit, null leaves it as it is';
    end if;
    update pgmig.sentinel t
       set max_rate = nullif(coalesce(throttle.max_rate, t.max_rate), 0),
           max_source_connections = nullif(coalesce(throttle.max_source_connections, t.max_source_connections), 0),
           max_slowdown = nullif(coalesce(throttle.max_slowdown, t.max_slowdown), 0),
           max_standby_lag = nullif(coalesce(throttle.max_standby_lag, t.max_standby_lag), interval '0'),
           probe = nullif(coalesce(throttle.probe, t.probe), '')
     where t.migration = name;
    if not found then
        raise exception 'no migration named %', quote_literal(name)
              using errcode = 'no_data_found', hint = 'see: select migration from pgmig.progress';
    end if;
    insert into pgmig.event (migration, level, message)
    select name, 'info', format('throttled: %s bytes a second, %s connections with the source, %s slower, standbys %s behind',
                                coalesce(t.max_rate::text, 'any'), coalesce(t.max_source_connections::text, 'any'),
                                coalesce(t.max_slowdown || ' %', 'any'), coalesce(t.max_standby_lag::text, 'any time'))
      from pgmig.sentinel t
     where t.migration = name;
    perform pg_notify('pgmig', name);
end
$$;
comment on function pgmig.throttle(bigint, int, int, interval, text, text) is 'limits what the copy asks of the source: bytes a second, sessions at once, how many percent slower the probe may become, how far its standbys may be behind; 0 lifts a limit, an empty probe is pgmig''s own, null leaves it as it is; works while a run is alive';

create function pgmig.request_cutover(migration text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    s pgmig.sentinel;
begin
    select * into s from pgmig.sentinel t where t.migration = request_cutover.migration for update;
    if not found then
        raise exception 'no migration named %', quote_literal(request_cutover.migration)
              using errcode = 'no_data_found', hint = 'see: select migration from pgmig.progress';
    elsif s.phase = 'done' then
        raise exception 'migration % is done', quote_literal(s.migration)
              using errcode = 'object_not_in_prerequisite_state';
    elsif not s.follow then
        raise exception 'migration % does not follow the source', quote_literal(s.migration)
              using errcode = 'object_not_in_prerequisite_state';
    elsif s.cutover in ('running', 'verifying') then
        raise exception 'migration % is being cut over or compared', quote_literal(s.migration)
              using errcode = 'object_not_in_prerequisite_state', hint = 'see: select * from pgmig.cutover';
    end if;
    update pgmig.sentinel t set cutover = 'requested' where t.migration = s.migration;
    insert into pgmig.event (migration, level, message) values (s.migration, 'info', 'cutover requested');
    perform pg_notify('pgmig', s.migration);
end
$$;
comment on function pgmig.request_cutover(text) is 'has the run of the named migration cut over as soon as it is level, in the way that its own flags say; see pgmig.cutover';

create function pgmig.request_cutover()
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select pgmig.request_cutover(pgmig.only_migration()) $$;
comment on function pgmig.request_cutover() is 'has the run of the only migration cut over; see request_cutover(text)';

create function pgmig.ddl_done(migration text default null)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    name text := coalesce(migration, pgmig.only_migration());
    seen bigint;
begin
    update pgmig.ddl d set state = 'done' where d.migration = name and d.state = 'pending';
    get diagnostics seen = row_count;
    if seen = 0 then
        raise exception 'no DDL of migration % waits', quote_literal(name)
              using errcode = 'object_not_in_prerequisite_state', hint = 'see: select * from pgmig.ddl';
    end if;
    insert into pgmig.event (migration, level, message) values (name, 'info', 'DDL of the source was seen to');
    return seen;
end
$$;
comment on function pgmig.ddl_done(text) is 'says that what apply stopped at was run on the target, or need not be: the next run goes on behind it; returns how many statements that are';

-- Called last in the transaction that applied a Batch. The row lock puts it in one order with
-- set_endpos and pause, so neither can slip in between the check and the commit.
create function pgmig.advance(migration text, replay_lsn pg_lsn, commit_at timestamptz, transactions bigint, changes bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    update pgmig.sentinel t
       set replay_lsn = advance.replay_lsn,
           replay_commit_at = commit_at,
           applied_transactions = t.applied_transactions + transactions,
           applied_rows = t.applied_rows + changes
     where t.migration = advance.migration
       and t.apply
       and (t.endpos is null or advance.replay_lsn <= t.endpos)
       and (t.replay_lsn is null or t.replay_lsn < advance.replay_lsn);
    if not found then
        raise exception 'replay_lsn of migration % may not move to %', quote_literal(migration), advance.replay_lsn
              using errcode = 'PGM01',
                    hint = 'apply is paused, endpos was moved, or another run has applied this already';
    end if;
end
$$;
comment on function pgmig.advance(text, pg_lsn, timestamptz, bigint, bigint) is 'moves replay_lsn in the transaction that applied up to it; SQLSTATE PGM01 if apply is paused, endpos lies before it or it is already there';

create function pgmig.request_table(verb text, name text, migration text)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    s pgmig.sentinel;
    words text[] := parse_ident(name);
    planned boolean;
    id bigint;
begin
    select * into s from pgmig.sentinel t where t.migration = request_table.migration;
    if not found then
        raise exception 'no migration named %', quote_literal(request_table.migration)
              using errcode = 'no_data_found', hint = 'see: select migration from pgmig.progress';
    elsif cardinality(words) <> 2 then
        raise exception '% is not a schema and a table', quote_literal(name)
              using errcode = 'invalid_parameter_value', hint = 'name it as in public.orders';
    elsif not s.follow or coalesce(s.interrupted_phase, s.phase) in ('cutover', 'done') then
        raise exception 'migration % does not follow its source', quote_literal(s.migration)
              using errcode = 'object_not_in_prerequisite_state';
    end if;
    planned := exists (select from pgmig.part p
                        where p.migration = s.migration and p.schema_name = words[1] and p.table_name = words[2]);
    if verb = 'resync' and not planned then
        raise exception '% is not part of migration %', name, quote_literal(s.migration)
              using errcode = 'undefined_table', hint = 'select pgmig.add_table(table) makes it one';
    elsif verb = 'add' and planned then
        raise exception '% is part of migration % already', name, quote_literal(s.migration)
              using errcode = 'duplicate_table', hint = 'select pgmig.resync_table(table) copies it again';
    end if;
    insert into pgmig.request as r (migration, verb, schema_name, table_name)
    values (s.migration, request_table.verb, words[1], words[2])
    returning r.request_id into id;
    insert into pgmig.event (migration, level, message)
    values (s.migration, 'info', format('%s of %s asked for', request_table.verb, name));
    perform pg_notify('pgmig', s.migration);
    return id;
end
$$;
comment on function pgmig.request_table(text, text, text) is 'asks for add or resync of a table; what add_table and resync_table call';

create function pgmig.resync_table(name text, migration text)
returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$ select pgmig.request_table('resync', name, migration) $$;
comment on function pgmig.resync_table(text, text) is 'has the run copy a table again, as in resync_table(''public.orders''), while changes are followed; returns the request';

create function pgmig.resync_table(name text)
returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$ select pgmig.request_table('resync', name, pgmig.only_migration()) $$;
comment on function pgmig.resync_table(text) is 'has the run of the only migration copy a table again; see resync_table(text, text)';

create function pgmig.add_table(name text, migration text)
returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$ select pgmig.request_table('add', name, migration) $$;
comment on function pgmig.add_table(text, text) is 'has the run take a table in that was left out: made, copied and followed; returns the request';

create function pgmig.add_table(name text)
returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$ select pgmig.request_table('add', name, pgmig.only_migration()) $$;
comment on function pgmig.add_table(text) is 'has the run of the only migration take a table in; see add_table(text, text)';
