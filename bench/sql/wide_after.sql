-- Keys and indexes of the wide table, and a longer, narrower one that refers to it.
alter table orders add primary key (id);
create index orders_customer on orders (customer_id);
create index orders_product on orders (product_id);
create unique index orders_reference on orders (reference);
create index orders_created on orders (created_at);
create index orders_status on orders (status, due);
create index orders_code on orders (code);
create index orders_email on orders (email);
alter table orders add foreign key (customer_id) references customers;
alter table orders add foreign key (product_id) references products;

create table order_lines
(
    id       bigint         not null,
    order_id bigint         not null,
    line     smallint       not null,
    sku      text           not null,
    quantity int            not null,
    price    numeric(10, 2) not null,
    at       timestamptz    not null
);
insert into order_lines
select n, 1 + (n - 1) / 2, n % 2, 'SKU-' || n * 31 % {products}, n % 50, n % 100000 / 100.0,
       timestamptz '2020-01-01 00:00:00+00' + n * interval '48 seconds'
  from generate_series(1::bigint, {rows} * 2) n;
alter table order_lines add primary key (id);
create index order_lines_order on order_lines (order_id);
create index order_lines_at on order_lines (at);
alter table order_lines add foreign key (order_id) references orders;
