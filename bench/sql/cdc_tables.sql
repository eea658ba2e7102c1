-- What is written to beside pgbench's own tables. No numeric or float column: under wal2json before
-- 2.6 they lose NaN, and pgmig refuses them.
create table cdc_wide
(
    id       bigint primary key,
    customer int         not null,
    status   text        not null,
    cents    bigint      not null,
    points   bigint,
    at       timestamptz not null,
    due      date,
    paid     boolean     not null,
    code     varchar(20) not null,
    payload  bytea,
    note     text
);
create index cdc_wide_customer on cdc_wide (customer);
create table last_row (id int primary key);
create table heartbeat (id int primary key, beat bigint not null);
insert into heartbeat values (1, 0);
