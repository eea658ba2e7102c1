-- {tables} tables named small_1, small_2 and so on, of {rows} rows each, with a key and an index.
do $$
begin
    for n in 1 .. {tables} loop
        execute format('create table small_%s (id int primary key, name text not null, at timestamptz, amount numeric)', n);
        execute format('insert into small_%s select i, md5(i::text), timestamptz ''2024-01-01 00:00:00+00'' + i * interval ''1 hour'', i / 3.0 from generate_series(1, {rows}) i', n);
        execute format('create index small_%s_name on small_%s (name)', n, n);
    end loop;
end
$$;
