insert into cdc_wide
select n, n % 100000, (array ['new', 'paid', 'sent', 'done'])[1 + n % 4], n * 37 % 1000000, n * 1000003,
       timestamptz '2024-01-01 00:00:00+00' + n * interval '7 seconds', date '2024-01-01' + (n % 1000)::int, n % 3 = 0,
       'C' || n, decode(md5(n::text), 'hex'), repeat(md5(n::text), 4)
  from generate_series(1::bigint, {rows}) n;
-- next
update cdc_wide set status = 'late', cents = cents + 1, points = points * 11 where id <= {half};
-- next
delete from cdc_wide where id > {half};
