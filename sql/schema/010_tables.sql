-- The state of every migration into this database. One home per fact: what is here commits
-- together with the rows it speaks of, so that after a crash the target itself says what is done.
-- Read by the extension's install script and, on servers that take no custom extension, by the CLI.

create schema pgmig;
comment on schema pgmig is 'pgmig: state and control of migrations into this database';

create table pgmig.sentinel
(
    migration          text        primary key check (migration ~ '^[a-z0-9_]{1,40}$'),
    phase              text        not null default 'planned'
                       check (phase in ('planned', 'schema', 'copy', 'indexes', 'catchup', 'follow',
                                        'cutover', 'done', 'failed', 'paused')),
    interrupted_phase  text,
    follow             boolean     not null default true,
    apply              boolean     not null default true,
    stop               text        check (stop in ('border', 'now')),
    max_rate           bigint      check (max_rate > 0),
    max_source_connections int     check (max_source_connections > 0),
    max_slowdown       int         check (max_slowdown > 0),
    max_standby_lag    interval    check (max_standby_lag > interval '0'),
    probe              text        check (probe <> ''),
    wal_max_rate       bigint      check (wal_max_rate > 0),
    load_max_rate      bigint      check (load_max_rate > 0),
    load_max_workers   int         check (load_max_workers > 0),
    gives_way          text,
    plugin             text        not null,
    slot_name          text        not null,
    source_identity    text        not null,
    startpos           pg_lsn,
    endpos             pg_lsn,
    exported_snapshot  text,
    exported_lsn       pg_lsn,
    write_lsn          pg_lsn,
    flush_lsn          pg_lsn,
    replay_lsn         pg_lsn,
    source_lsn         pg_lsn,
    spool_bytes        bigint      not null default 0,
    replay_bytes_per_second bigint,
    source_bytes_per_second bigint,
    copy_bytes_per_second bigint,
    copy_left          interval,
    copy_seen_at       timestamptz,
    retries            bigint      not null default 0,
    applied_rows       bigint      not null default 0,
    applied_transactions bigint    not null default 0,
    replay_commit_at   timestamptz,
    stream_at          timestamptz,
    copy_started_at    timestamptz,
    copy_finished_at   timestamptz,
    started_at         timestamptz not null default now(),
    done_at            timestamptz,
    last_error         text,
    cutover            text        check (cutover in ('requested', 'running', 'verifying')),
    held_lsn           pg_lsn,
    way_back           text        check (way_back in ('open', 'taken')),
    is_way_back        boolean     not null default false
);
comment on table pgmig.sentinel is 'one row a migration: its phase, positions and switches';
comment on column pgmig.sentinel.migration is 'name of the migration; keys every other table';
comment on column pgmig.sentinel.phase is 'planned, schema, copy, indexes, catchup, follow, cutover, done; failed and paused keep the phase they interrupt in interrupted_phase';
comment on column pgmig.sentinel.interrupted_phase is 'the phase that failed or paused interrupts; null otherwise';
comment on column pgmig.sentinel.follow is 'whether changes are streamed after the copy';
comment on column pgmig.sentinel.apply is 'the apply switch: false holds apply back, receiving goes on';
comment on column pgmig.sentinel.stop is 'border: the run that is alive ends once the Parts and the Batch in hand are committed, now: at once; null: it goes on. A run that begins clears it';
comment on column pgmig.sentinel.max_rate is 'bytes a second that the copy may read from the source, all workers together; null sets no limit';
comment on column pgmig.sentinel.max_source_connections is 'sessions with the source that a run may have, those that are not for the copy included; null sets no limit';
comment on column pgmig.sentinel.max_slowdown is 'the copy gives way when the probe on the source takes by so many percent longer than without the copy, its 95th percentile; null: however long it takes';
comment on column pgmig.sentinel.max_standby_lag is 'the copy gives way when a physical standby of the source is further behind; null: however far it is';
comment on column pgmig.sentinel.probe is 'the query whose time on the source is measured for max_slowdown; null: a cheap one of pgmig''s own';
comment on column pgmig.sentinel.wal_max_rate is 'the same as max_rate, set by the run that is alive while the source keeps more than three quarters of the budget of WAL; null otherwise';
comment on column pgmig.sentinel.load_max_rate is 'the same as max_rate, set by the run that is alive while the copy gives way to the work of the source; null otherwise';
comment on column pgmig.sentinel.load_max_workers is 'how many workers may copy meanwhile, those of all processes together; null otherwise';
comment on column pgmig.sentinel.gives_way is 'why the copy gives way, as the run that is alive last said; null otherwise';
comment on column pgmig.sentinel.plugin is 'output plugin of the slot: wal2json or pgoutput; none without follow';
comment on column pgmig.sentinel.slot_name is 'logical replication slot on the source';
comment on column pgmig.sentinel.source_identity is 'system identifier and database oid of the source';
comment on column pgmig.sentinel.startpos is 'consistent point of the slot: where the stream starts';
comment on column pgmig.sentinel.endpos is 'where to stop: every transaction whose commit record ends at or before it is applied, none after it; null while open';
comment on column pgmig.sentinel.exported_snapshot is 'the snapshot on the source that Parts are read under, for as long as the run that holds it copies; empty: each Part under one of its own';
comment on column pgmig.sentinel.exported_lsn is 'whatever exported_snapshot shows was committed before this position';
comment on column pgmig.sentinel.write_lsn is 'received from the source';
comment on column pgmig.sentinel.flush_lsn is 'durable on our side: in the spool, or committed here';
comment on column pgmig.sentinel.replay_lsn is 'end of the commit record of the last source transaction committed here; moves in the same transaction as its rows';
comment on column pgmig.sentinel.source_lsn is 'last known write position of the source';
comment on column pgmig.sentinel.spool_bytes is 'bytes of changes received and not yet applied, as they lie in the spool';
comment on column pgmig.sentinel.replay_bytes_per_second is 'WAL of the source that was applied a second, over the last minute';
comment on column pgmig.sentinel.source_bytes_per_second is 'WAL that the source wrote a second, over the last minute';
comment on column pgmig.sentinel.copy_bytes_per_second is 'bytes of COPY that were stored a second, over the last minute';
comment on column pgmig.sentinel.copy_left is 'how long the copy of rows still took at copy_seen_at';
comment on column pgmig.sentinel.copy_seen_at is 'when the run that is alive last looked how fast the copy is';
comment on column pgmig.sentinel.retries is 'how often the last run has opened a session again, or tried again what the server refused for the moment';
comment on column pgmig.sentinel.applied_rows is 'rows written since the start of the stream; changes to one row in one Batch count once';
comment on column pgmig.sentinel.applied_transactions is 'source transactions applied since the start of the stream';
comment on column pgmig.sentinel.replay_commit_at is 'when the transaction at replay_lsn was committed on the source';
comment on column pgmig.sentinel.stream_at is 'when the positions of the stream were last written';
comment on column pgmig.sentinel.copy_started_at is 'when the first Part was taken';
comment on column pgmig.sentinel.copy_finished_at is 'when the last Part was done';
comment on column pgmig.sentinel.started_at is 'when the migration was begun';
comment on column pgmig.sentinel.done_at is 'when the migration was done';
comment on column pgmig.sentinel.last_error is 'the last error that stopped the run; cleared when it goes on';
comment on column pgmig.sentinel.cutover is 'requested: the run cuts over as soon as it is level; running: endpos is held, and what comes after it waits for the steps in pgmig.cutover; verifying: apply is held for a moment, to compare both sides at one position; null otherwise';
comment on column pgmig.sentinel.held_lsn is 'while endpos is held: nothing was committed on the source between it and here';

comment on column pgmig.sentinel.way_back is 'open: since the cutover every change of this database is carried back to the old source, where the state of that is; taken: the cutover was gone back; null: there is no way back';
comment on column pgmig.sentinel.is_way_back is 'true: this database is the old source of the migration of that name, and the source is its old target';

create table pgmig.part
(
    part_id       bigint      generated always as identity primary key,
    migration     text        not null references pgmig.sentinel on delete cascade,
    schema_name   text        not null,
    table_name    text        not null,
    leaf_schema   text,
    leaf_name     text,
    leaf_oid      oid,
    leaf_attached text,
    leaf_condition text,
    part_number   int         not null,
    parts         int         not null,
    predicate     text,
    key_column    text,
    key_type      text,
    key_lower     text,
    key_upper     text,
    columns       text[]      not null,
    format        text        not null default 'text' check (format in ('text', 'binary')),
    bytes         bigint      not null,
    planned_rows  bigint,
    planned_copy_bytes bigint,
    state         text        not null default 'pending' check (state in ('pending', 'done')),
    copied_rows   bigint,
    copied_bytes  bigint,
    snapshot      text,
    snapshot_lsn  pg_lsn,
    started_at    timestamptz,
    finished_at   timestamptz,
    unique (migration, schema_name, table_name, part_number)
);
create index part_queue on pgmig.part (migration, bytes, part_id) where state = 'pending';
comment on table pgmig.part is 'the copy, Part by Part; a Part is done in the transaction that stored its rows';
comment on column pgmig.part.part_id is 'number of the Part; its session is named pgmig part <part_id>';
comment on column pgmig.part.migration is 'migration it belongs to';
comment on column pgmig.part.schema_name is 'schema of the table';
comment on column pgmig.part.table_name is 'name of the table';
comment on column pgmig.part.leaf_schema is 'schema of the partition of the source that this Part reads, where all of them go into the one table here; null: the Part is of the table itself';
comment on column pgmig.part.leaf_name is 'name of that partition';
comment on column pgmig.part.leaf_oid is 'its oid on the source, which tells it from another one of that name';
comment on column pgmig.part.leaf_attached is 'stands for when it was attached: the transactions on the source that made it, and what it is a part of, partitions';
comment on column pgmig.part.leaf_condition is 'what is true of all rows of that partition and of no other row of the table; null where none says it on every server alike';
comment on column pgmig.part.part_number is 'from 1 to parts';
comment on column pgmig.part.parts is 'how many Parts the table is copied in';
comment on column pgmig.part.predicate is 'which rows of the source this Part holds; null for the whole table';
comment on column pgmig.part.key_column is 'column of the range of keys that this Part holds; null where it is cut in another way, or where the order of its values is not the same on every server';
comment on column pgmig.part.key_type is 'type of key_column';
comment on column pgmig.part.key_lower is 'the least key of the range; null: it has none';
comment on column pgmig.part.key_upper is 'the first key behind the range; null: it has none';
comment on column pgmig.part.columns is 'columns that are copied: all but the generated ones';
comment on column pgmig.part.format is 'format of the COPY stream: text or binary';
comment on column pgmig.part.bytes is 'size on the source when it was planned, TOAST included';
comment on column pgmig.part.planned_rows is 'about how many rows the source held when it was planned, by its statistics; null where they do not say';
comment on column pgmig.part.planned_copy_bytes is 'about how many bytes of COPY its rows are, by a sample of them; null where nobody has looked';
comment on column pgmig.part.state is 'pending or done; a Part in flight is a pending row that its worker has locked';
comment on column pgmig.part.copied_rows is 'rows stored';
comment on column pgmig.part.copied_bytes is 'bytes of the COPY stream';
comment on column pgmig.part.snapshot is 'tag: pg_current_snapshot() of the session that read the rows';
comment on column pgmig.part.snapshot_lsn is 'every transaction that the snapshot shows was committed before this position';
comment on column pgmig.part.started_at is 'when its worker took it';
comment on column pgmig.part.finished_at is 'when its rows were committed';

create table pgmig.step
(
    step_id       bigint      generated always as identity primary key,
    migration     text        not null references pgmig.sentinel on delete cascade,
    stage         text        not null
                  check (stage in ('schema', 'index', 'constraint', 'analyze', 'attach', 'rest',
                                   'refresh', 'unique', 'foreign_key', 'validate', 'finish')),
    kind          text        not null,
    schema_name   text,
    table_name    text,
    name          text        not null,
    statement     text        not null,
    blocking      boolean     not null default true,
    one_moment    boolean     not null default false,
    state         text        not null default 'pending' check (state in ('pending', 'done', 'failed')),
    sqlstate      text,
    message       text,
    started_at    timestamptz,
    finished_at   timestamptz
);
create index step_queue on pgmig.step (migration, stage, step_id) where state = 'pending';
create index step_table on pgmig.step (migration, schema_name, table_name);
comment on table pgmig.step is 'every object that is made on the target, with its statement; done in the transaction that made it';
comment on column pgmig.step.step_id is 'number of the step, in the order of the dump';
comment on column pgmig.step.migration is 'migration it belongs to';
comment on column pgmig.step.stage is 'when it runs: schema, then per table index, constraint, analyze, then attach, rest, refresh, unique, foreign_key, validate, finish';
comment on column pgmig.step.kind is 'what it makes, in the words of pg_restore --list';
comment on column pgmig.step.schema_name is 'schema of the object';
comment on column pgmig.step.table_name is 'table that must be copied first; null if none';
comment on column pgmig.step.name is 'name of the object';
comment on column pgmig.step.statement is 'SQL that makes it; *** stands in it for a password';
comment on column pgmig.step.blocking is 'whether its failure stops the run';
comment on column pgmig.step.one_moment is 'whether it needs all rows of its table as of one moment: a unique index without the column that the table is cut by. Where Parts were read under several snapshots it moves to stage unique, which comes when replay has passed the newest of them';
comment on column pgmig.step.state is 'pending, done or failed';
comment on column pgmig.step.sqlstate is 'SQLSTATE of its failure';
comment on column pgmig.step.message is 'message of its failure';
comment on column pgmig.step.started_at is 'when it was begun';
comment on column pgmig.step.finished_at is 'when it ended';

create table pgmig.event
(
    event_id   bigint      generated always as identity primary key,
    migration  text        not null references pgmig.sentinel on delete cascade,
    at         timestamptz not null default clock_timestamp(),
    level      text        not null check (level in ('info', 'warn', 'error')),
    message    text        not null
);
create index event_order on pgmig.event (migration, event_id);
comment on table pgmig.event is 'what happened, oldest first: phases, warnings, errors';
comment on column pgmig.event.event_id is 'order of the events';
comment on column pgmig.event.migration is 'migration it belongs to';
comment on column pgmig.event.at is 'when it happened';
comment on column pgmig.event.level is 'info, warn or error';
comment on column pgmig.event.message is 'what happened';

create table pgmig.conflict
(
    conflict_id   bigint      generated always as identity primary key,
    migration     text        not null references pgmig.sentinel on delete cascade,
    at            timestamptz not null default clock_timestamp(),
    lsn           pg_lsn,
    schema_name   text        not null,
    table_name    text        not null,
    kind          text        not null
                  check (kind in ('insert_exists', 'update_missing', 'update_exists', 'delete_missing')),
    key_columns   text[]      not null
);
create index conflict_order on pgmig.conflict (migration, conflict_id);
comment on table pgmig.conflict is 'changes that did not fit the rows of the target and were passed over (run --on-conflict=warn); stored in the transaction of the changes beside them';
comment on column pgmig.conflict.conflict_id is 'order of the conflicts';
comment on column pgmig.conflict.migration is 'migration it belongs to';
comment on column pgmig.conflict.at is 'when it was passed over';
comment on column pgmig.conflict.lsn is 'end of the commit record of the source transaction';
comment on column pgmig.conflict.schema_name is 'schema of the table';
comment on column pgmig.conflict.table_name is 'name of the table';
comment on column pgmig.conflict.kind is 'insert_exists, update_exists: a row with that unique key is there, and was left as it is; update_missing, delete_missing: no row with that key is there';
comment on column pgmig.conflict.key_columns is 'names of the columns that identify a row; their values are told nowhere';

create table pgmig.request
(
    request_id    bigint      generated always as identity primary key,
    migration     text        not null references pgmig.sentinel on delete cascade,
    verb          text        not null check (verb in ('add', 'resync')),
    schema_name   text        not null,
    table_name    text        not null,
    state         text        not null default 'pending' check (state in ('pending', 'running', 'done', 'refused')),
    message       text,
    requested_at  timestamptz not null default clock_timestamp(),
    finished_at   timestamptz
);
create index request_order on pgmig.request (migration, request_id);
comment on table pgmig.request is 'what people ask of a migration that follows its source; the run takes it up';
comment on column pgmig.request.request_id is 'order of the requests';
comment on column pgmig.request.migration is 'migration it is asked of';
comment on column pgmig.request.verb is 'add: a table that was left out becomes part of the migration; resync: a table is copied again';
comment on column pgmig.request.schema_name is 'schema of the table';
comment on column pgmig.request.table_name is 'name of the table';
comment on column pgmig.request.state is 'pending, running, done or refused';
comment on column pgmig.request.message is 'why it was refused';
comment on column pgmig.request.requested_at is 'when it was asked';
comment on column pgmig.request.finished_at is 'when it was done or refused';

create table pgmig.ddl
(
    migration    text        not null references pgmig.sentinel on delete cascade,
    at           pg_lsn      not null,
    tag          text        not null,
    statement    text        not null,
    state        text        not null check (state in ('pending', 'applied', 'done', 'left')),
    told_at      timestamptz not null default clock_timestamp(),
    primary key (migration, at)
);
comment on table pgmig.ddl is 'DDL that the source has told in its stream (run --ddl): what was run here, in the transaction of the changes beside it, what waits for a person, and what is not carried over';
comment on column pgmig.ddl.migration is 'migration it belongs to';
comment on column pgmig.ddl.at is 'position of the source at which it was run';
comment on column pgmig.ddl.tag is 'what it does, as ALTER TABLE';
comment on column pgmig.ddl.statement is 'the statement as it was sent to the source';
comment on column pgmig.ddl.state is 'pending: apply stops before it; applied: it was run here; done: a person has seen to it (pgmig.ddl_done); left: it makes or alters what is no table of the migration, and is not carried over';
comment on column pgmig.ddl.told_at is 'when apply came to it';

create table pgmig.cutover_step
(
    migration    text        not null references pgmig.sentinel on delete cascade,
    attempt      int         not null,
    position     int         not null,
    step         text        not null,
    state        text        not null default 'running'
                 check (state in ('running', 'done', 'failed', 'undone')),
    detail       jsonb       not null default '{}',
    message      text,
    started_at   timestamptz not null default clock_timestamp(),
    finished_at  timestamptz,
    primary key (migration, attempt, position)
);
comment on table pgmig.cutover_step is 'the steps of every cutover that was tried, each recorded before it is begun';
comment on column pgmig.cutover_step.migration is 'migration it belongs to';
comment on column pgmig.cutover_step.attempt is 'number of the try, from 1';
comment on column pgmig.cutover_step.position is 'order of the steps in one try';
comment on column pgmig.cutover_step.step is 'what is done: see the list in the README';
comment on column pgmig.cutover_step.state is 'running, done, failed, or undone';
comment on column pgmig.cutover_step.detail is 'what is needed to undo the step, and what it found';
comment on column pgmig.cutover_step.message is 'what it came to, or why it failed';
comment on column pgmig.cutover_step.started_at is 'when it was begun';
comment on column pgmig.cutover_step.finished_at is 'when it ended';

create table pgmig.verification
(
    verification_id bigint      generated always as identity primary key,
    migration       text        not null references pgmig.sentinel on delete cascade,
    at              timestamptz not null default clock_timestamp(),
    lsn             pg_lsn,
    quick           boolean     not null,
    tables          bigint      not null,
    rows            bigint      not null,
    bytes           bigint      not null,
    seconds         float8      not null,
    held_seconds    float8,
    differences     jsonb       not null default '[]'
);
create index verification_order on pgmig.verification (migration, verification_id);
comment on table pgmig.verification is 'what every comparison of both sides came to (pgmig verify)';
comment on column pgmig.verification.verification_id is 'order of the comparisons';
comment on column pgmig.verification.migration is 'migration whose tables were compared';
comment on column pgmig.verification.at is 'when it ended';
comment on column pgmig.verification.lsn is 'position at which both sides were compared; null once the migration is done';
comment on column pgmig.verification.quick is 'whether only columns and counts were compared';
comment on column pgmig.verification.tables is 'tables that were compared';
comment on column pgmig.verification.rows is 'rows that were compared';
comment on column pgmig.verification.bytes is 'bytes that were read';
comment on column pgmig.verification.seconds is 'how long it took';
comment on column pgmig.verification.held_seconds is 'how long apply was held; null once the migration is done';
comment on column pgmig.verification.differences is 'what differs: table and what, and no value of a row';
