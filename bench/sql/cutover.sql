-- What is cut over: the table that clients write to, some that are only copied, and a view that is
-- refreshed before writes are stopped.
create table note (id bigint generated always as identity primary key, client int not null, number bigint not null,
                   at timestamptz not null default clock_timestamp());
create index on note (client, number);
create table stock (id int primary key, name text not null, price numeric not null);
insert into stock select n, 'article ' || n, n * 0.01 from generate_series(1, {rows}) n;
create index on stock (name);
create materialized view prices as select id % 100 as kind, avg(price) as mean from stock group by 1;
