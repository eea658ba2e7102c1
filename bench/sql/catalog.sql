-- {tables} tables of ten rows with an index each. It commits now and then: a transaction that makes
-- them all holds more locks than a server has by default.
do $$
begin
    for n in 1 .. {tables} loop
        execute format('create table many_%s (id int not null, name text, at timestamptz)', n);
        execute format('insert into many_%s select i, ''name '' || i, timestamptz ''2024-01-01 00:00:00+00'' from generate_series(1, 10) i', n);
        execute format('create index many_%s_id on many_%s (id)', n, n);
        if n % 200 = 0 then
            commit;
        end if;
    end loop;
end
$$;
