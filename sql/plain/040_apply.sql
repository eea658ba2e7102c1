-- Where no extension can be loaded, the CLI applies a Batch with set-based statements of its own.

create function pgmig.flavour()
returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return 'plain';
comment on function pgmig.flavour() is 'extension or plain: how this schema was installed';

create function pgmig.apply(migration text, batch bytea, replay_lsn pg_lsn, commit_at timestamptz, transactions bigint)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'pgmig.apply needs the extension pgmig_sentinel'
          using errcode = 'feature_not_supported',
                hint = 'this is the plain flavour: pgmig run writes with statements of its own here';
end
$$;
comment on function pgmig.apply(text, bytea, pg_lsn, timestamptz, bigint) is 'applies a Batch in the server; here, in the plain flavour, only an error that says so';
