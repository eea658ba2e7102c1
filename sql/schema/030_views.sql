-- What a person reads. Live progress of a COPY comes from pg_stat_progress_copy, its session found
-- by application_name: nothing is written outside the Part's own transaction.

create view pgmig.parts as
select p.migration,
       p.part_id,
       p.schema_name,
       p.table_name,
       p.part_number,
       p.parts,
       case when p.state = 'pending' and a.pid is not null then 'copying' else p.state end as state,
       p.bytes,
       -- A byte of the table is not one of COPY: rows tell better how far it is.
       case when p.state = 'done' then p.bytes
            when p.planned_rows > 0
            then (p.bytes * least(1, coalesce(c.tuples_processed, 0)::float8 / p.planned_rows))::bigint
            else least(p.bytes, coalesce(c.bytes_processed, 0)) end as bytes_done,
       p.planned_rows,
       p.planned_copy_bytes,
       coalesce(p.copied_bytes, c.bytes_processed) as copied_bytes,
       coalesce(p.copied_rows, c.tuples_processed) as copied_rows,
       p.format,
       p.snapshot,
       coalesce(p.started_at, a.xact_start) as started_at,
       p.finished_at,
       a.pid
  from pgmig.part p
       left join pg_catalog.pg_stat_activity a
              on p.state = 'pending'
             and a.datname = current_database()
             and a.application_name = 'pgmig part ' || p.part_id
       left join pg_catalog.pg_stat_progress_copy c on c.pid = a.pid;
comment on view pgmig.parts is 'every Part of the copy with its live progress';
comment on column pgmig.parts.migration is 'migration it belongs to';
comment on column pgmig.parts.part_id is 'number of the Part';
comment on column pgmig.parts.schema_name is 'schema of the table';
comment on column pgmig.parts.table_name is 'name of the table';
comment on column pgmig.parts.part_number is 'from 1 to parts';
comment on column pgmig.parts.parts is 'how many Parts the table is copied in';
comment on column pgmig.parts.state is 'pending, copying or done';
comment on column pgmig.parts.bytes is 'size on the source when it was planned, TOAST included';
comment on column pgmig.parts.bytes_done is 'how much of bytes is done';
comment on column pgmig.parts.planned_rows is 'about how many rows the source held when it was planned; null where its statistics do not say';
comment on column pgmig.parts.planned_copy_bytes is 'about how many bytes of COPY its rows are, by a sample of them; null where nobody has looked';
comment on column pgmig.parts.copied_bytes is 'bytes of the COPY stream so far';
comment on column pgmig.parts.copied_rows is 'rows stored so far';
comment on column pgmig.parts.format is 'format of the COPY stream';
comment on column pgmig.parts.snapshot is 'tag: the snapshot the rows were read under';
comment on column pgmig.parts.started_at is 'when its worker took it';
comment on column pgmig.parts.finished_at is 'when its rows were committed';
comment on column pgmig.parts.pid is 'backend that is copying it now';

create view pgmig.tables as
select p.migration,
       p.schema_name,
       p.table_name,
       case when bool_and(p.state = 'done') then 'done'
            when bool_or(p.state <> 'pending') then 'copying'
            else 'pending' end as state,
       count(*) as parts,
       count(*) filter (where p.state = 'done') as parts_done,
       sum(p.bytes)::bigint as bytes,
       sum(p.bytes_done)::bigint as bytes_done,
       -- Known of all Parts, or of none.
       case when count(p.planned_rows) = count(*) then sum(p.planned_rows)::bigint end as planned_rows,
       case when count(p.planned_copy_bytes) = count(*) then sum(p.planned_copy_bytes)::bigint end as planned_copy_bytes,
       coalesce(sum(p.copied_rows), 0)::bigint as copied_rows,
       coalesce(sum(p.copied_bytes), 0)::bigint as copied_bytes,
       min(p.started_at) as started_at,
       case when bool_and(p.state = 'done') then max(p.finished_at) end as finished_at
  from pgmig.parts p
 group by p.migration, p.schema_name, p.table_name;
comment on view pgmig.tables is 'every table of the copy with its live progress, its Parts together; pg_catalog.pg_largeobject stands for the large objects';
comment on column pgmig.tables.migration is 'migration it belongs to';
comment on column pgmig.tables.schema_name is 'schema of the table';
comment on column pgmig.tables.table_name is 'name of the table';
comment on column pgmig.tables.state is 'pending, copying or done';
comment on column pgmig.tables.parts is 'how many Parts the table is copied in';
comment on column pgmig.tables.parts_done is 'how many of them are committed';
comment on column pgmig.tables.bytes is 'size on the source when it was planned, TOAST included';
comment on column pgmig.tables.bytes_done is 'how much of bytes is done, Parts in flight included';
comment on column pgmig.tables.planned_rows is 'about how many rows the source held when it was planned; null where its statistics do not say';
comment on column pgmig.tables.planned_copy_bytes is 'about how many bytes of COPY its rows are, by a sample of them; null where nobody has looked';
comment on column pgmig.tables.copied_rows is 'rows stored so far';
comment on column pgmig.tables.copied_bytes is 'bytes of the COPY streams so far';
comment on column pgmig.tables.started_at is 'when its first Part was taken';
comment on column pgmig.tables.finished_at is 'when its last Part was committed';

create view pgmig.steps as
select s.migration,
       s.step_id,
       s.stage,
       s.kind,
       s.schema_name,
       s.table_name,
       s.name,
       case when s.state = 'pending' and a.pid is not null then 'running' else s.state end as state,
       s.blocking,
       s.sqlstate,
       s.message,
       s.statement,
       coalesce(s.started_at, a.xact_start) as started_at,
       s.finished_at,
       a.pid
  from pgmig.step s
       left join pg_catalog.pg_stat_activity a
              on s.state = 'pending'
             and a.datname = current_database()
             and a.application_name = 'pgmig step ' || s.step_id;
comment on view pgmig.steps is 'every object that is made on the target, with its statement and how it went';
comment on column pgmig.steps.migration is 'migration it belongs to';
comment on column pgmig.steps.step_id is 'number of the step';
comment on column pgmig.steps.stage is 'when it runs; see pgmig.step.stage';
comment on column pgmig.steps.kind is 'what it makes';
comment on column pgmig.steps.schema_name is 'schema of the object';
comment on column pgmig.steps.table_name is 'table that must be copied first';
comment on column pgmig.steps.name is 'name of the object';
comment on column pgmig.steps.state is 'pending, running, done or failed';
comment on column pgmig.steps.blocking is 'whether its failure stops the run';
comment on column pgmig.steps.sqlstate is 'SQLSTATE of its failure';
comment on column pgmig.steps.message is 'message of its failure';
comment on column pgmig.steps.statement is 'SQL that makes it';
comment on column pgmig.steps.started_at is 'when it was begun';
comment on column pgmig.steps.finished_at is 'when it ended';
comment on column pgmig.steps.pid is 'backend that runs it now';

create view pgmig.events as
select e.migration, e.event_id, e.at, e.level, e.message
  from pgmig.event e;
comment on view pgmig.events is 'what happened, in the order of event_id';
comment on column pgmig.events.migration is 'migration it belongs to';
comment on column pgmig.events.event_id is 'order of the events';
comment on column pgmig.events.at is 'when it happened';
comment on column pgmig.events.level is 'info, warn or error';
comment on column pgmig.events.message is 'what happened';

create view pgmig.cutover as
select c.migration, c.attempt, c.position, c.step, c.state, c.started_at, c.finished_at,
       round(extract(epoch from coalesce(c.finished_at, clock_timestamp()) - c.started_at), 3) as seconds,
       c.message
  from pgmig.cutover_step c;
comment on view pgmig.cutover is 'the steps of every cutover that was tried, with their times; order by attempt, position';
comment on column pgmig.cutover.migration is 'migration it belongs to';
comment on column pgmig.cutover.attempt is 'number of the try, from 1';
comment on column pgmig.cutover.position is 'order of the steps in one try';
comment on column pgmig.cutover.step is 'what is done';
comment on column pgmig.cutover.state is 'running, done, failed, or undone';
comment on column pgmig.cutover.started_at is 'when it was begun';
comment on column pgmig.cutover.finished_at is 'when it ended';
comment on column pgmig.cutover.seconds is 'how long it took, or has taken so far';
comment on column pgmig.cutover.message is 'what it came to, or why it failed';

create view pgmig.conflicts as
select c.migration, c.schema_name, c.table_name, c.kind, c.key_columns,
       count(*) as changes, min(c.lsn) as first_lsn, max(c.lsn) as last_lsn, max(c.at) as last_at
  from pgmig.conflict c
 group by c.migration, c.schema_name, c.table_name, c.kind, c.key_columns;
comment on view pgmig.conflicts is 'changes that did not fit the rows of the target and were passed over, by table and kind; one by one in pgmig.conflict';
comment on column pgmig.conflicts.migration is 'migration it belongs to';
comment on column pgmig.conflicts.schema_name is 'schema of the table';
comment on column pgmig.conflicts.table_name is 'name of the table';
comment on column pgmig.conflicts.kind is 'insert_exists, update_missing, update_exists, delete_missing; see pgmig.conflict.kind';
comment on column pgmig.conflicts.key_columns is 'names of the columns that identify a row';
comment on column pgmig.conflicts.changes is 'how many changes were passed over';
comment on column pgmig.conflicts.first_lsn is 'end of the source transaction of the first';
comment on column pgmig.conflicts.last_lsn is 'end of the source transaction of the last';
comment on column pgmig.conflicts.last_at is 'when the last was passed over';

create view pgmig.progress as
with copy as (
    select p.migration,
           -- One Part may stand for the large objects, which are no table.
           count(distinct (p.schema_name, p.table_name)) filter (where p.schema_name <> 'pg_catalog') as tables_total,
           count(distinct (p.schema_name, p.table_name)) filter (where p.schema_name <> 'pg_catalog')
           - count(distinct (p.schema_name, p.table_name))
             filter (where p.schema_name <> 'pg_catalog' and p.state <> 'done') as tables_done,
           sum(p.bytes)::bigint as bytes_total,
           sum(p.bytes_done)::bigint as bytes_done,
           sum(p.copied_rows)::bigint as copied_rows
      from pgmig.parts p
     group by p.migration
), steps as (
    select s.migration,
           count(*) as steps_total,
           count(*) filter (where s.state <> 'pending') as steps_done,
           count(*) filter (where s.state = 'failed') as steps_failed
      from pgmig.step s
     group by s.migration
), calc as (
    select s.*,
           c.tables_done, c.tables_total, c.bytes_done, c.bytes_total, c.copied_rows,
           t.steps_done, t.steps_total, t.steps_failed,
           extract(epoch from coalesce(s.copy_finished_at, clock_timestamp()) - s.copy_started_at) as copy_seconds,
           -- With nothing waiting in the spool all that was received is applied.
           case when s.spool_bytes = 0 then greatest(s.replay_lsn, s.write_lsn) else coalesce(s.replay_lsn, s.startpos) end as reached_lsn
      from pgmig.sentinel s
           left join copy c using (migration)
           left join steps t using (migration)
)
select k.migration,
       k.phase,
       k.interrupted_phase,
       k.tables_done,
       k.tables_total,
       k.bytes_done,
       k.bytes_total,
       k.copied_rows,
       case when k.phase = 'copy' and k.copy_bytes_per_second is not null then k.copy_bytes_per_second
            when k.copy_seconds > 0 then (k.bytes_done / k.copy_seconds)::bigint end as copy_bytes_per_second,
       k.steps_done,
       k.steps_total,
       k.steps_failed,
       k.startpos,
       k.write_lsn,
       k.flush_lsn,
       k.replay_lsn,
       k.source_lsn,
       -- greatest() would make 0 of what is not known yet.
       case when k.phase = 'done' and k.follow then 0
            when k.follow and k.source_lsn is not null and k.reached_lsn is not null
            then greatest(0, pg_wal_lsn_diff(k.source_lsn, k.reached_lsn))::bigint end as lag_bytes,
       case when not k.follow or k.stream_at is null then null
            when k.phase = 'done' then 0
            when k.spool_bytes = 0 then 0
            else round(extract(epoch from k.stream_at - coalesce(k.replay_commit_at, k.copy_started_at))::numeric, 3)
       end as lag_seconds,
       k.spool_bytes,
       k.applied_transactions,
       k.applied_rows,
       k.endpos,
       k.apply,
       -- What a run that looks no more has said counts for nothing.
       case when k.phase = 'copy' and k.copy_seen_at > clock_timestamp() - interval '1 minute' and pgmig.is_running(k.migration)
            then case when k.copy_left is not null
                      then greatest(interval '0', k.copy_left - (clock_timestamp() - k.copy_seen_at)) end
       end as eta,
       k.last_error,
       k.plugin,
       k.slot_name,
       k.started_at,
       k.done_at,
       (select count(*) from pgmig.conflict c where c.migration = k.migration) as conflicts,
       pgmig.is_running(k.migration) as running,
       k.replay_bytes_per_second,
       k.source_bytes_per_second,
       case when k.phase in ('catchup', 'follow') and k.replay_bytes_per_second > k.source_bytes_per_second
                 and k.source_lsn > k.reached_lsn
            then make_interval(secs => (pg_wal_lsn_diff(k.source_lsn, k.reached_lsn)
                                        / (k.replay_bytes_per_second - k.source_bytes_per_second))::float8)
       end as catch_up,
       k.max_rate,
       k.max_source_connections,
       k.max_slowdown,
       k.max_standby_lag,
       -- Left by a run that died, it is nobody's.
       case when pgmig.is_running(k.migration) then k.gives_way end as gives_way,
       k.stop,
       k.way_back,
       k.is_way_back,
       k.retries
  from calc k;
comment on view pgmig.progress is 'one row a migration: how far it is';
comment on column pgmig.progress.migration is 'name of the migration';
comment on column pgmig.progress.phase is 'where it is: planned, schema, copy, indexes, catchup, follow, cutover, done, failed, paused';
comment on column pgmig.progress.interrupted_phase is 'the phase that failed or paused interrupts';
comment on column pgmig.progress.tables_done is 'tables whose last Part is committed';
comment on column pgmig.progress.tables_total is 'tables that are copied';
comment on column pgmig.progress.bytes_done is 'how much of bytes_total is copied, Parts in flight included';
comment on column pgmig.progress.bytes_total is 'size of the tables on the source when planned';
comment on column pgmig.progress.copied_rows is 'rows stored by the copy, Parts in flight included';
comment on column pgmig.progress.copy_bytes_per_second is 'bytes of COPY that were stored a second, over the last minute; bytes_total a second once the copy is over';
comment on column pgmig.progress.steps_done is 'objects made or failed';
comment on column pgmig.progress.steps_total is 'objects to make';
comment on column pgmig.progress.steps_failed is 'objects that could not be made; see pgmig.steps';
comment on column pgmig.progress.startpos is 'where the stream starts';
comment on column pgmig.progress.write_lsn is 'received from the source';
comment on column pgmig.progress.flush_lsn is 'durable on our side';
comment on column pgmig.progress.replay_lsn is 'end of the last source transaction committed here';
comment on column pgmig.progress.source_lsn is 'last known write position of the source';
comment on column pgmig.progress.lag_bytes is 'bytes of the source''s WAL that are not applied here';
comment on column pgmig.progress.lag_seconds is 'age of the last applied source transaction while more wait; 0 when none waits';
comment on column pgmig.progress.spool_bytes is 'bytes of changes received and not yet applied';
comment on column pgmig.progress.applied_transactions is 'source transactions applied';
comment on column pgmig.progress.applied_rows is 'rows written; changes to one row in one Batch count once';
comment on column pgmig.progress.endpos is 'where to stop; null while open';
comment on column pgmig.progress.apply is 'the apply switch';
comment on column pgmig.progress.eta is 'time until every row is copied, at the rate of the last minute; indexes and constraints that are made meanwhile may take longer; null before it can be said, and where no run is alive';
comment on column pgmig.progress.retries is 'how often the last run has opened a session again, or tried again what the server refused for the moment';
comment on column pgmig.progress.last_error is 'the last error that stopped the run';
comment on column pgmig.progress.plugin is 'output plugin of the slot';
comment on column pgmig.progress.slot_name is 'logical replication slot on the source';
comment on column pgmig.progress.started_at is 'when the migration was begun';
comment on column pgmig.progress.done_at is 'when the migration was done';
comment on column pgmig.progress.conflicts is 'changes that did not fit the rows of the target and were passed over; see pgmig.conflicts';
comment on column pgmig.progress.running is 'whether a run of it is alive';
comment on column pgmig.progress.replay_bytes_per_second is 'WAL of the source that was applied a second, over the last minute';
comment on column pgmig.progress.source_bytes_per_second is 'WAL that the source wrote a second, over the last minute';
comment on column pgmig.progress.catch_up is 'time until nothing waits, at the rates of the last minute; null where nothing waits, or where the source writes faster than is applied';
comment on column pgmig.progress.max_rate is 'bytes a second that the copy may read from the source; null sets no limit';
comment on column pgmig.progress.max_source_connections is 'sessions with the source that a run may have; null sets no limit';
comment on column pgmig.progress.max_slowdown is 'by how many percent the probe on the source may become slower; null sets no limit';
comment on column pgmig.progress.max_standby_lag is 'how far a physical standby of the source may be behind; null sets no limit';
comment on column pgmig.progress.gives_way is 'why the copy gives way to the work of the source, and to what rate; null if it does not';
comment on column pgmig.progress.stop is 'how the run that is alive was asked to stop: border, now; null if it was not';
comment on column pgmig.progress.way_back is 'open: since the cutover every change of this database is carried back to the old source, whose pgmig.progress says how far; taken: the cutover was gone back; null: there is no way back';
comment on column pgmig.progress.is_way_back is 'true: this is the way back of a migration that was cut over, into its old source';
