-- The types that travel in binary in the stream: their binary form means the same on two servers of one
-- major version (the same rule as for a copy). Null if a column of the published tables is of
-- another, if the database holds bytes of no known encoding, or if the servers differ. $1: the
-- publications; $2: the target's major version; $3: names of types that never do. pgoutput knows binary from 14 on.
with safe as (
    select t.oid
      from pg_catalog.pg_type t
     where t.oid < 10000
       and t.typtype in ('b', 'r', 'm')
       and t.typsend <> 0
       and t.typname !~ $3
)
select case
           when pg_catalog.current_setting('server_encoding') <> 'SQL_ASCII'
               and pg_catalog.current_setting('server_version_num')::int / 10000 = $2 and $2 >= 14
               and not exists (select
                                 from pg_catalog.pg_publication p
                                      join pg_catalog.pg_publication_rel r on r.prpubid = p.oid
                                      join pg_catalog.pg_attribute a on a.attrelid = r.prrelid
                                where p.pubname::text = any ($1)
                                  and a.attnum > 0 and not a.attisdropped
                                  and a.atttypid not in (select safe.oid from safe))
               then (select pg_catalog.array_agg(safe.oid) from safe)
       end as types
