-- The sessions of pgmig in this database, those that only look left out, and pg_dump, which it runs.
select a.pid,
       coalesce(a.application_name, '') as name,
       coalesce(a.state, '') as state,
       a.wait_event_type,
       a.wait_event,
       coalesce(extract(epoch from clock_timestamp() - a.query_start), 0)::float8 as seconds
  from pg_catalog.pg_stat_activity a
 where a.datname = current_database()
   and a.pid <> pg_backend_pid()
   and a.application_name ~ '^(pgmig (run|control|monitor|apply|copy|index|schema|receive|snapshot|budget|watch|cutover|join|part [0-9]+|step [0-9]+)|pg_dump)$'
 order by a.pid
