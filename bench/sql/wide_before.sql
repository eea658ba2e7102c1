-- What the wide table refers to.
create table customers
(
    id      int primary key,
    name    text        not null,
    email   text        not null unique,
    country char(2)     not null,
    since   timestamptz not null
);
insert into customers
select n, 'Customer ' || md5(n::text), 'c' || n || '@customers.example', chr(65 + n % 26) || chr(65 + n / 26 % 26),
       timestamptz '2015-01-01 00:00:00+00' + n * interval '17 minutes'
  from generate_series(1, {customers}) n;
create table products
(
    id          int primary key,
    sku         text           not null unique,
    description text           not null,
    price       numeric(10, 2) not null
);
insert into products
select n, 'SKU-' || n, repeat(md5(n::text), 4), n % 10000 / 100.0
  from generate_series(1, {products}) n;
