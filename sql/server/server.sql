-- What a server and its database are. Facts of pg_database are read by name from its row as JSON: which
-- columns say how text is sorted differs from version to version.
select current_setting('server_version_num')::int as version,
       split_part(current_setting('server_version'), ' ', 1) as version_text,
       current_database()::text as database,
       current_user::text as user,
       r.rolsuper as superuser,
       r.rolsuper or r.rolcreaterole as may_create_roles,
       case coalesce(d.facts ->> 'datlocprovider', 'c') when 'i' then 'icu' when 'b' then 'builtin' else 'libc' end as provider,
       coalesce(d.facts ->> 'datlocale', d.facts ->> 'daticulocale', d.facts ->> 'datcollate') as collate,
       d.facts ->> 'datctype' as ctype,
       d.facts ->> 'datcollversion' as collation_version,
       current_setting('max_connections')::bigint as max_connections,
       current_setting('superuser_reserved_connections')::bigint
       + coalesce(current_setting('reserved_connections', true)::bigint, 0) as reserved,
       (select count(*) from pg_catalog.pg_stat_activity where backend_type = 'client backend') as used,
       oldest.datname::text as oldest_database,
       oldest.transactions,
       current_setting('autovacuum_freeze_max_age')::bigint as freeze_max_age,
       nullif(least(nullif(r.rolconnlimit, -1), nullif((d.facts ->> 'datconnlimit')::int, -1)), -1)::bigint as own_limit,
       case when pg_catalog.has_database_privilege(d.oid, 'connect') then pg_catalog.pg_database_size(d.oid) end as bytes
  from (select oid, to_jsonb(d) as facts from pg_catalog.pg_database d where datname = current_database()) d,
       pg_catalog.pg_roles r,
       -- Transactions and multixacts run out alike.
       lateral (select datname, greatest(age(datfrozenxid), mxid_age(datminmxid))::bigint as transactions
                  from pg_catalog.pg_database order by 2 desc limit 1) oldest
 where r.rolname = current_user
