-- Physical standbys that receive from this server: how each is called, what it has replayed, and how long that
-- took by the server's own account. A logical walsender has a logical slot. Who only receives replays nothing.
select coalesce(nullif(r.application_name, ''), r.client_addr::text, 'pid ' || r.pid) as name,
       r.replay_lsn,
       extract(epoch from r.replay_lag)::float8 as replay_lag_seconds
  from pg_catalog.pg_stat_replication r
 where r.state in ('catchup', 'streaming')
   and r.replay_lsn is not null
   and not exists (
           select
             from pg_catalog.pg_replication_slots s
            where s.active_pid = r.pid
              and s.slot_type = 'logical')
