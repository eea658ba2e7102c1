//! A database with something for each section of a filter file, changes to all of it, and such a file.

/// What is left out has comments, privileges and dependents: none of them may stay.
pub const SCHEMA: &str = r#"
create schema app; create schema audit; create schema scratch;
create type app.mood as enum ('sad', 'ok');
create table app.customers (id serial primary key, name text not null, mood app.mood default 'ok');
create table app.orders (id bigint generated always as identity primary key,
                         customer_id int references app.customers on delete cascade, note text, size int);
create index orders_note on app.orders (note);
create index orders_customer on app.orders (customer_id);
create table app.sessions (id serial primary key, customer_id int references app.customers on delete cascade, data text);
create table app.session_hits (id serial primary key, session_id int references app.sessions, n int);
create table audit.log (id serial primary key, what text, size float8 default 'NaN');
create table app.notes (id serial primary key, log_id int references audit.log, body text);
create view app.log_view as select * from audit.log;
create view app.log_count as select count(*) from app.log_view;
create view app.customer_names as select name from app.customers;
create function audit.stamp() returns text language sql as 'select ''x''::text';
alter table app.notes enable row level security;
create policy seen on app.notes using (exists (select from audit.log l where l.id = log_id));
create policy everybody on app.notes using (true);
comment on table audit.log is 'left out'; comment on column audit.log.what is 'left out';
comment on view app.log_view is 'left out'; comment on policy seen on app.notes is 'left out';
comment on constraint notes_log_id_fkey on app.notes is 'left out';
comment on index app.orders_note is 'left out'; comment on table app.orders is 'stays';
grant select on audit.log to public; grant select on app.orders to public;
create table app.tmp_1 (id int primary key, v text); create table app.tmp_2 (id int primary key);
create table app.tmp_kept (id int primary key);
create table app."Weird, T#1" ("Id #" int primary key, v text);
create table app."Upper" (id int primary key, v text);
create table app.measures (at date not null, v int, primary key (at, v)) partition by range (at);
create table app.measures_1 partition of app.measures for values from ('2026-01-01') to ('2026-02-01');
create table app.measures_2 partition of app.measures for values from ('2026-02-01') to ('2026-03-01');
create table app.events (kind text not null, n int) partition by list (kind);
create table app.events_a partition of app.events for values in ('a');
create table app.events_b partition of app.events for values in ('b') partition by list (n);
create table app.events_b1 partition of app.events_b default;
create table app.keyless (v text);
create materialized view app.summary as select count(*) from app.orders;
create materialized view app.big as select generate_series(1, 100) n;
create materialized view app.big_count as select count(*) from app.big;
create sequence app.loose; select setval('app.loose', 77);
create table scratch.t (id serial primary key, v text);
create table scratch.u (id int primary key default nextval('scratch.t_id_seq'));
create function app.hook() returns event_trigger language plpgsql as 'begin end';
create event trigger hook on ddl_command_end execute function app.hook();
create event trigger kept on sql_drop execute function app.hook();
insert into app.customers (name) select 'c' || n from generate_series(1, 50) n;
insert into app.orders (customer_id, note, size) select n, 'n' || n, n from generate_series(1, 50) n;
insert into app.sessions (customer_id, data) select n, 's' from generate_series(1, 50) n;
insert into app.session_hits (session_id, n) select n, n from generate_series(1, 50) n;
insert into audit.log (what) select 'w' from generate_series(1, 20) n;
insert into app.notes (log_id, body) select n, 'b' from generate_series(1, 20) n;
insert into app.measures select '2026-01-01'::date + n, n from generate_series(0, 50) n;
insert into app.events select case n % 2 when 0 then 'a' else 'b' end, n from generate_series(1, 20) n;
insert into app.tmp_1 select n, 'v' from generate_series(1, 20) n;
insert into app."Weird, T#1" select n, 'v' from generate_series(1, 20) n;
insert into app."Upper" select n, 'v' from generate_series(1, 20) n;
insert into scratch.t (v) select 'v' from generate_series(1, 20) n;
insert into app.keyless select 'k' from generate_series(1, 5);
refresh materialized view app.summary;
"#;

/// Touches every table, left out or not.
pub const CHANGES: &str = r#"
insert into app.customers (name) values ('new'); update app.customers set name = name || '!' where id % 3 = 0;
insert into app.orders (customer_id, note, size) values (1, 'new', 7); delete from app.orders where id % 7 = 0;
insert into app.sessions (customer_id, data) values (1, 'x'); update app.sessions set data = 'y' where id % 2 = 0;
insert into app.session_hits (session_id, n) select max(id), 1 from app.sessions;
insert into audit.log (what) values ('x'); update audit.log set what = 'y'; delete from audit.log where id > 20;
insert into app.notes (log_id, body) values (1, 'n'); update app.notes set body = 'c' where id = 2;
insert into app.tmp_1 select coalesce(max(id), 0) + 1, 'x' from app.tmp_1; update app.tmp_1 set v = 'y'; truncate app.tmp_2;
update app."Weird, T#1" set v = v || 'x'; update app."Upper" set v = v || 'x';
update app.measures set v = v + 1000 where at < '2026-02-01'; insert into app.measures values ('2026-02-20', 1);
insert into app.events values ('a', 5), ('b', 6);
insert into scratch.t (v) values ('x'); delete from scratch.t where id % 2 = 0;
truncate app.tmp_1, app.tmp_kept; insert into app.tmp_kept values (1);
delete from app.measures where v = 1; refresh materialized view app.summary; refresh materialized view app.big;
select nextval('app.loose');
"#;

/// A file with every kind of entry, as an editor on Windows would leave it.
pub const EXCLUDE: &str = "\u{feff}# what stays behind\r
[EXCLUDE-SCHEMA]     # in capitals\r
audit                # a comment behind a name\r
~/^scrat/            ; a pattern\r
\r
[exclude-table]\r
app.~/^tmp_[0-9]+$/\r
app.\"Weird, T#1\"     # a # inside quotes is part of the name\r
app.Upper\r
app.events\r
app.keyless\r
[exclude-table-data]\r
app.sessions\r
app.big\r
[exclude-index]\r
app.orders_note\r
[exclude-event-trigger]\r
hook\r
; again\r
[exclude-table]\r
app.nope\r
";
