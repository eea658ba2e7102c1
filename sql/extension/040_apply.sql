-- The compiled half: only the extension pgmig_sentinel has these bodies.

create function pgmig.flavour()
returns text
language c immutable strict parallel safe
as 'MODULE_PATHNAME', 'flavour_wrapper';
comment on function pgmig.flavour() is 'extension or plain: how this schema was installed';

create function pgmig.apply(migration text, batch bytea, replay_lsn pg_lsn, commit_at timestamptz, transactions bigint)
returns bigint
language c
as 'MODULE_PATHNAME', 'apply_wrapper';
comment on function pgmig.apply(text, bytea, pg_lsn, timestamptz, bigint) is 'applies a Batch (format: model/wire.rs of the CLI) and, where replay_lsn is not null, moves replay_lsn in the same transaction; returns the rows changed';
