-- One of everything that pg_dump knows and a plain PostgreSQL 15 can make, with rows in every table.
-- It is sent as one query to a database named app, as a superuser.

-- In the order of their names, in which they are made again.
create role "Odd ""Role""" nologin;
create role everything_owner;
create role everything_reader;

create schema "Odd ""Schema""" authorization everything_owner;
create schema plain;
comment on schema plain is 'a schema; it''s "plain"';
grant usage on schema plain to everything_reader, everything_owner;
grant create on schema "Odd ""Schema""" to "Odd ""Role""";
alter schema public owner to everything_owner;
comment on schema public is 'not the standard one';
set search_path = plain, public;

-- Types.
create type mood as enum ('sad', 'o''k', 'happy');
alter type mood owner to everything_owner;
comment on type mood is 'how it feels';
grant usage on type mood to everything_reader;
create domain short as text collate "C" default 'short' not null constraint length check (length(value) < 40);
create domain positive as int constraint positive check (value > 0);
alter domain positive add constraint small check (value < 1000000) not valid;
comment on constraint positive on domain positive is 'above nothing';
create type pair as (a int, b text collate "C");
comment on column pair.b is 'the second';
create type person as (id int, name text, born date);
create function text_length_diff(a text, b text) returns double precision language sql immutable strict
    return length(a) - length(b);
create type textrange as range (subtype = text, collation = "C", multirange_type_name = textranges);
create type intspan as range (subtype = int4, subtype_diff = int4range_subdiff);
create type shell;
create type basetext;
create function basetext_in(cstring) returns basetext language internal immutable strict as 'textin';
create function basetext_out(basetext) returns cstring language internal immutable strict as 'textout';
create type basetext (input = basetext_in, output = basetext_out, like = text, category = 'S', default = 'based');

-- Collations, conversions, access methods, languages, transforms.
create collation icu_german (provider = icu, locale = 'de-u-co-phonebk');
create collation folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
comment on collation folded is 'without case';
create conversion latin for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8;
comment on conversion latin is 'from Latin';
create access method heap_again type table handler heap_tableam_handler;
comment on access method heap_again is 'heap again';
create function plodd_handler() returns language_handler language c as '$libdir/plpgsql', 'plpgsql_call_handler';
create function plodd_inline(internal) returns void language c strict as '$libdir/plpgsql', 'plpgsql_inline_handler';
create function plodd_validator(oid) returns void language c strict as '$libdir/plpgsql', 'plpgsql_validator';
create trusted language plodd handler plodd_handler inline plodd_inline validator plodd_validator;
comment on language plodd is 'plpgsql again';
grant usage on language plodd to everything_reader;
create transform for int language sql (from sql with function prsd_lextype(internal), to sql with function int4recv(internal));
comment on transform for int language sql is 'of no use';

-- Functions.
create function "twice, it's"(n int default 2, out doubled int) language sql immutable parallel safe cost 3
    as $$ select n * 2 $$;
comment on function "twice, it's"(int) is 'n, twice';
revoke execute on function "twice, it's"(int) from public;
grant execute on function "twice, it's"(int) to everything_reader;
create function plus_one(n int) returns int language plodd immutable as $$ begin return n + 1; end $$;
create function looks_like_a_dump() returns text language plpgsql security definer set search_path = plain, pg_temp
    set work_mem = '1MB' as $body$
begin
    -- The next lines look like an entry of a dump.
--
-- Name: mood; Type: TYPE; Schema: plain; Owner: -
--
    return $$;$$;
end $body$;
create function variadic_sum(variadic n int[]) returns bigint language sql stable leakproof
    begin atomic select sum(one) from unnest(n) one; end;
create function series(n int) returns table (a int, b text) language sql rows 7 as $$ select a, a::text from generate_series(1, n) a $$;
create procedure nothing(inout n int) language plpgsql as $$ begin n := n + 1; end $$;
comment on procedure nothing(int) is 'does nothing';
create aggregate concat_all (text) (sfunc = textcat, stype = text, initcond = '', parallel = safe);
comment on aggregate concat_all (text) is 'all in one';
create aggregate my_percentile (float8 order by anyelement)
    (sfunc = ordered_set_transition, stype = internal, finalfunc = percentile_disc_final, finalfunc_extra);
create function note() returns trigger language plpgsql as $$
begin
    insert into plain.audit (who) values (tg_name || ' ' || tg_op);
    if tg_op = 'DELETE' then return old; end if;
    return new;
end $$;
create function watch() returns event_trigger language plpgsql as $$ begin null; end $$;

-- Operators, operator families and classes, casts.
create function pair_lt(pair, pair) returns boolean language sql immutable strict return ($1).a < ($2).a;
create function pair_gt(pair, pair) returns boolean language sql immutable strict return ($1).a > ($2).a;
create function pair_compare(pair, pair) returns int language sql immutable strict return btint4cmp(($1).a, ($2).a);
create operator <<< (leftarg = pair, rightarg = pair, function = pair_lt, commutator = >>>, restrict = scalarltsel, join = scalarltjoinsel);
create operator >>> (leftarg = pair, rightarg = pair, function = pair_gt, commutator = <<<);
create operator !!! (rightarg = int, function = plus_one);
comment on operator <<< (pair, pair) is 'by the first';
create function pair_eq(pair, pair) returns boolean language sql immutable strict return ($1).a = ($2).a;
create function pair_le(pair, pair) returns boolean language sql immutable strict return ($1).a <= ($2).a;
create function pair_ge(pair, pair) returns boolean language sql immutable strict return ($1).a >= ($2).a;
create operator === (leftarg = pair, rightarg = pair, function = pair_eq);
create operator <== (leftarg = pair, rightarg = pair, function = pair_le);
create operator >== (leftarg = pair, rightarg = pair, function = pair_ge);
create operator family pairs using btree;
comment on operator family pairs using btree is 'families';
create operator class pair_ops for type pair using btree family pairs as
    operator 1 <<<, operator 2 <==, operator 3 ===, operator 4 >==, operator 5 >>>, function 1 pair_compare(pair, pair);
comment on operator class pair_ops using btree is 'by the first';
create operator family empty_family using hash;
create function mood_number(mood) returns int language sql immutable strict return case when $1 = 'sad' then 1 else 2 end;
create cast (mood as int) with function mood_number(mood) as assignment;
create cast (basetext as text) without function;
comment on cast (mood as int) is 'a number';

-- Text search.
create text search parser parser (start = prsd_start, gettoken = prsd_nexttoken, end = prsd_end, lextypes = prsd_lextype, headline = prsd_headline);
create text search template template (init = dsimple_init, lexize = dsimple_lexize);
create text search dictionary dictionary (template = template, stopwords = 'english', accept = false);
create text search configuration configuration (parser = parser);
alter text search configuration configuration add mapping for word, asciiword with dictionary, simple;
comment on text search parser parser is 'p';
comment on text search template template is 't';
comment on text search dictionary dictionary is 'd';
comment on text search configuration configuration is 'c';

-- Foreign data.
create foreign data wrapper wrapper options (debug 'true');
create server server type 'some' version '1' foreign data wrapper wrapper options (host 'there''s one', port '1');
create user mapping for everything_owner server server options (user 'me', password 'hush-of-the-mapping');
create user mapping for public server server;
create foreign table foreign_one (id int options (column_name 'ID') not null, v text default 'x', check (id > 0)) server server options (name 'one');
comment on foreign data wrapper wrapper is 'w';
comment on server server is 's';
comment on foreign table foreign_one is 'f';
grant usage on foreign data wrapper wrapper to everything_reader;
grant usage on foreign server server to everything_reader;

-- Sequences of every option.
create sequence lonely as smallint increment by -5 minvalue -100 maxvalue 1000 start 42 cache 3 cycle;
create sequence untouched start 42;
create unlogged sequence unlogged_numbers;
select nextval('lonely'), nextval('lonely'), setval('unlogged_numbers', 77);
comment on sequence lonely is 'it''s lonely';
grant usage on sequence lonely to everything_reader;

-- Tables of each kind.
create table audit (n bigserial primary key, who text);
create table parent
(
    id      int generated always as identity (start 100 increment 3) primary key,
    code    text unique deferrable initially deferred,
    mood    mood not null default 'sad',
    label   short,
    pair    pair,
    during  int4range,
    based   basetext default 'based',
    word    text collate folded,
    span    textrange,
    number  positive,
    doc     jsonb,
    place   point,
    vector  tsvector,
    constraint positive check (id > -1000000) no inherit,
    constraint apart exclude using gist (during with &&) where (id > 0) deferrable initially deferred,
    constraint pairs_differ unique nulls not distinct (mood, number, during) include (label)
) with (fillfactor = 70, autovacuum_enabled = true, toast.autovacuum_enabled = false);
insert into parent (code, mood, pair, during, word, span, number, doc, place, vector)
select 'code ' || n, 'happy', row (n, 'x')::pair, int4range(n * 10, n * 10 + 5), 'Word' || n, textrange('a' || n, 'b'), n,
       jsonb_build_object('n', n), point(n, n), to_tsvector('simple', 'word' || n)
  from generate_series(1, 40) n;
alter table parent add constraint later check (id <> 103) not valid;
alter table parent alter code set storage external, alter doc set storage main, alter word set compression pglz,
    alter code set statistics 500, alter code set (n_distinct = -0.5, n_distinct_inherited = 7);
alter table parent owner to everything_owner;
comment on table parent is 'a table; with ''quotes'' and; semicolons
and a second line';
comment on column parent.id is 'the key';
comment on constraint positive on parent is 'nearly';
comment on constraint parent_pkey on parent is 'first';
comment on constraint apart on parent is 'apart';
grant select, insert on parent to everything_reader with grant option;
grant update (code, mood), references (id) on parent to "Odd ""Role""";
revoke truncate on parent from everything_owner;

create table child
(
    id        bigserial primary key,
    parent_id int references parent on delete cascade on update cascade,
    other_id  int references parent (id) on delete set null deferrable initially deferred,
    again_id  int references parent (id) on delete set default on update restrict deferrable,
    a         int,
    b         int,
    constraint child_to_self foreign key (a) references child (id) on delete set null (a) not valid,
    unique (parent_id, id) deferrable
);
insert into child (parent_id, other_id) select 97 + 3 * n, 220 - 3 * n from generate_series(1, 40) n;
comment on constraint child_to_self on child is 'made later than its comment';
create table orphan (id int primary key, parent_id int);
insert into orphan values (1, 100), (2, 999999);
alter table orphan add constraint orphan_parent foreign key (parent_id) references parent not valid;
create table ring_a (id int primary key, b int);
create table ring_b (id int primary key, a int references ring_a);
alter table ring_a add foreign key (b) references ring_b initially deferred;
insert into ring_b values (1, null);
insert into ring_a values (1, 1);
update ring_b set a = 1;
grant select on ring_a to everything_reader with grant option;
set role everything_reader;
grant select on plain.ring_a to "Odd ""Role""";
reset role;

create table by_default (id int generated by default as identity (minvalue 5 maxvalue 500 cache 2 cycle), v text);
alter table by_default add primary key (id), cluster on by_default_pkey;
insert into by_default (v) select 'v' || n from generate_series(1, 10) n;
create table computed (a int primary key, b int, twice int generated always as (a * 2) stored, note text default E'back\\slash\n"it''s"');
insert into computed (a, b) select n, n from generate_series(1, 10) n;
create unlogged table scratch (id int primary key, n bigint default nextval('unlogged_numbers'));
insert into scratch values (1);
create table "no columns" ();
insert into "no columns" default values;
alter table "no columns" replica identity full;
create table dropped (gone_first int, a int, gone text default 'x', b text not null, primary key (a));
alter table dropped drop gone_first, drop gone;
alter table dropped add added int not null default 7;
insert into dropped values (1, 'one'), (2, 'two');
create table people of person (primary key (id), name with options not null default 'nobody');
insert into people values (1, 'Ada', '1815-12-10');
create table heap_table (id int primary key) using heap_again;
insert into heap_table values (1);
create table "Odd ""Schema"""."Sélect ""from"" %$1 ☃; it's" ("Id #" int primary key, "a.b" text, "q'uote" text, "order" int, "new
line" int);
insert into "Odd ""Schema"""."Sélect ""from"" %$1 ☃; it's" select n, 'x', 'y', n from generate_series(1, 10) n;
create table üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüx (üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüy int primary key, a23456789012345678901234567890123456789012345678901234567890123 text);
create index a23456789012345678901234567890123456789012345678901234567890124 on üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüx (a23456789012345678901234567890123456789012345678901234567890123);
insert into üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüx values (1, 'one'), (2, 'two');
create table by_index (a int, b text not null, c int not null, v text);
create unique index by_index_key on by_index (c, b);
alter table by_index replica identity using index by_index_key;
insert into by_index select n, 'b' || n, n, 'v' from generate_series(1, 20) n;
create table whole_row (a int, b text);
alter table whole_row replica identity full, set (parallel_workers = 2);
insert into whole_row values (1, 'x'), (1, 'x'), (null, null);

-- Names with a line break, which a dump prints as a space.
create schema "two
lines";
create table "two
lines"."a
table" (id int primary key, "a
column" text, up int, constraint "a
key" foreign key (up) references "two
lines"."a
table");
insert into "two
lines"."a
table" values (1, 'x', 1);
create materialized view "two
lines"."a
view" as select * from "two
lines"."a
table";
comment on table "two
lines"."a
table" is 'broken';
create table "x; Type: TABLE; Schema: plain; Owner: -" (id int primary key);

-- Columns: as many as there may be, none that is left, none but a computed one; those that name objects.
do $$ begin
    execute 'create table widest (id int primary key, ' || (select string_agg('c' || n || ' int', ', ') from generate_series(1, 1599) n) || ')';
end $$;
insert into widest (id, c1, c1599) values (1, 2, 3), (2, null, null);
create table "all dropped" (a int, b int);
insert into "all dropped" values (1, 2), (3, 4);
alter table "all dropped" drop a, drop b, replica identity full;
create table only_computed (a int generated always as (7) stored);
insert into only_computed default values;
alter table only_computed replica identity full;
create table named_objects (id int primary key, a regclass, b regprocedure, c regtype, d regrole, e regnamespace, f regconfig, g regcollation, h regoperator, i aclitem[], j oid, k tid);
insert into named_objects values (1, 'parent', 'plus_one(int)', 'mood', 'everything_owner', 'plain', 'simple', '"C"', '<(int,int)', '{everything_owner=r/everything_reader}', 4294967295, '(1,2)');

-- Sequences that have another owner or name than their column gave them.
create sequence owned_by_hand;
create table owners (a int primary key default nextval('owned_by_hand'), b serial, c bigserial, d smallserial,
                     e bigint generated always as identity (sequence name plain.named_by_hand start with 9 increment by -2 minvalue -1000 maxvalue 10));
alter sequence owned_by_hand owned by owners.a;
alter sequence owners_b_seq rename to "renamed seq";
alter sequence owners_c_seq owned by none;
insert into owners default values;

-- Views and functions that need each other.
create view ring_view as select id, v from by_default;
create function ring_function() returns setof ring_view language sql stable as 'select * from plain.ring_view';
create or replace view ring_view as select id, v from by_default where id in (select 5);
create view over_ring as select * from ring_function();

-- Inheritance, with a second parent and a column of its own.
create table ancestor (id int primary key, v text default 'old', constraint below check (id < 1000));
create table ancestor_too (w int not null default 3);
create table heir (extra int, id int not null) inherits (ancestor, ancestor_too);
alter table heir add primary key (id);
alter table heir alter v set default 'new';
insert into ancestor values (1, 'one');
insert into ancestor_too values (1);
insert into heir (id, v, extra) values (100, 'heir', 1);
alter table ancestor_too replica identity full;
create table diamond_left () inherits (ancestor);
create table diamond_right (r int default 5) inherits (ancestor);
create table diamond (primary key (id)) inherits (diamond_left, diamond_right);
alter table diamond alter v set default 'diamond', alter r drop default;
alter table diamond_left replica identity full;
alter table diamond_right replica identity full;
insert into diamond (id) values (200);

-- Partitions: by list, range and hash, two levels, a default, another order of columns, dropped columns.
create table parted (id int, region text, v text default 'root', n int generated always as (id + 1) stored, primary key (id, region)) partition by list (region);
create table parted_a partition of parted for values in ('a') with (fillfactor = 60);
create table parted_b (v text, gone int, region text not null, n int generated always as (id + 1) stored, id int not null);
alter table parted_b drop gone;
alter table parted attach partition parted_b for values in ('b');
create table parted_c partition of parted for values in ('c', null) partition by range (id);
create table parted_c1 partition of parted_c for values from (minvalue) to (50);
create table parted_c2 partition of parted_c (v default 'leaf', check (v <> 'never')) for values from (50) to (maxvalue);
create table parted_rest partition of parted default;
create table "Odd ""Schema"""."Parted_D" partition of parted for values in ('d');
insert into parted (id, region) select n, (array['a', 'b', 'c', 'd', 'e'])[n % 5 + 1] from generate_series(1, 100) n;
create table hashed (id int primary key, v text) partition by hash (id);
create table hashed_0 partition of hashed for values with (modulus 2, remainder 0);
create table hashed_1 partition of hashed for values with (modulus 2, remainder 1);
insert into hashed select n, 'v' from generate_series(1, 20) n;
create table ranged (a int, b date, constraint ranged_pk primary key (a, b)) partition by range (a, b);
create table ranged_1 partition of ranged for values from (1, '2020-01-01') to (5, '2020-01-01');
insert into ranged values (2, '2021-01-01');
create table by_text (k text primary key) partition by hash (k);
create table by_text_0 partition of by_text for values with (modulus 2, remainder 0);
create table by_text_1 partition of by_text for values with (modulus 2, remainder 1);
insert into by_text select 'k' || n from generate_series(1, 20) n;
create table by_expression (id int not null, at date not null) partition by range ((id % 7), (at + 1));
create table by_expression_1 partition of by_expression for values from (0, minvalue) to (3, maxvalue);
create table by_expression_rest partition of by_expression default;
alter table by_expression_1 replica identity full;
alter table by_expression_rest replica identity full;
insert into by_expression select n, '2026-01-01' from generate_series(1, 20) n;
create table part_of_itself (id int primary key, up int references part_of_itself deferrable) partition by range (id);
create table part_of_itself_1 partition of part_of_itself for values from (0) to (10);
create table part_of_itself_2 partition of part_of_itself for values from (10) to (20);
insert into part_of_itself select n, nullif(n - 1, 0) from generate_series(1, 15) n;
create table never_filled (id int) partition by range (id);
create table to_parted (id int primary key, region text, foreign key (id, region) references parted deferrable);
insert into to_parted select id, region from parted where id < 20;
create table parted_child (id int primary key, other int references hashed on delete cascade) partition by range (id);
create table parted_child_1 partition of parted_child for values from (0) to (100);
insert into parted_child select n, n from generate_series(1, 20) n;
comment on table parted is 'a root';
comment on table parted_c1 is 'a leaf';

-- Indexes of each kind.
create index parent_lower on parent (lower(code) text_pattern_ops desc nulls last) where id > 3;
alter index parent_lower alter column 1 set statistics 400;
create index parent_include on parent using btree (mood) include (number) with (fillfactor = 50, deduplicate_items = off);
create unique index parent_nulls on parent (number, code) nulls not distinct;
create index parent_doc on parent using gin (doc jsonb_path_ops) with (fastupdate = off);
create index parent_vector on parent using gin (vector);
create index parent_place on parent using gist (place);
create index parent_place_sp on parent using spgist (place);
create index parent_brin on parent using brin (id) with (pages_per_range = 8);
create index parent_hash on parent using hash (code);
create index parent_pair on parent (pair pair_ops);
create index parent_word on parent (word collate icu_german);
create index parent_expression on parent ((doc ->> 'n'), (id + number));
alter index parent_expression alter column 2 set statistics 33;
alter table parent cluster on parent_include;
create index parent_long on parent (id) where code not in
('a0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000',
 'b0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000',
 'c0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000',
 'd0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000',
 'e0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000',
 'f0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000',
 'g0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000',
 'h0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000',
 'i0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000');
comment on index parent_lower is 'folded';
create index parted_v on parted (v);
create unique index parted_unique on parted (region, id, v);
create index only_on_root on only parted (n);
create index parted_a_n on parted_a (n);
alter index only_on_root attach partition parted_a_n;
create unique index ranged_index on ranged (a, b);
comment on index parted_v is 'of the root';
create index not_valid on by_index (v);
update pg_index set indisvalid = false where indexrelid = 'not_valid'::regclass;

-- Statistics.
create statistics parent_stats (dependencies, ndistinct, mcv) on id, code from parent;
create statistics parent_expressions on (lower(code)), (id % 7) from parent;
alter statistics parent_stats set statistics 50;
comment on statistics parent_stats is 'statistics';

-- Views of each kind.
create view happy with (security_barrier) as select id, code from parent where mood = 'happy' with cascaded check option;
create view invoker with (security_invoker = true, check_option = local) as select id from child where id > 0;
create recursive view counting (n) as values (1) union all select n + 1 from counting where n < 5;
alter view happy alter column code set default 'from the view';
comment on view happy is 'happy ones';
comment on column happy.code is 'their code';
grant select on happy to everything_reader;
-- Known by its key only: pg_dump makes these after the primary key.
create view grouped as select id, code, count(*) as number from parent group by id;
create materialized view grouped_rows as select id, code, count(*) as number from parent group by id;
create unique index grouped_rows_id on grouped_rows (id);
create materialized view of_grouped as select max(number) as number from grouped;
comment on materialized view grouped_rows is 'made late';
create function grouped_code(key int) returns text language sql stable
    begin atomic select code from plain.parent where id = key group by id; end;

-- Materialized views, three deep, through views and functions; their names against the order.
create materialized view z_base as select mood, count(*) as number from parent group by mood;
create unique index z_base_mood on z_base (mood);
create view y_over_base as select sum(number)::bigint as total from z_base;
create materialized view x_middle with (fillfactor = 90) as select total from y_over_base;
create function w_total() returns bigint language sql stable begin atomic select total from plain.x_middle; end;
create materialized view a_top as select w_total() as total, (select count(*) from z_base) as moods;
create index a_top_total on a_top (total);
create materialized view empty_view as select 1 as one with no data;
create materialized view zz_alone as select count(*) as parents from parent;
comment on materialized view a_top is 'the top';
comment on column a_top.total is 'in total';
alter materialized view z_base alter column mood set statistics 77, cluster on z_base_mood;

-- Rules and triggers.
create table fires (id int primary key, v text);
create trigger ordinary after insert or update of v on fires for each row when (new.id > 0) execute function note('an argument', 'it''s');
create trigger always after insert on fires for each row execute function note();
alter table fires enable always trigger always;
create trigger replica after insert on fires for each row execute function note();
alter table fires enable replica trigger replica;
create trigger never before insert on fires for each row execute function note();
alter table fires disable trigger never;
create constraint trigger constraint_trigger after insert on fires deferrable initially deferred for each row execute function note();
create trigger statement after update on fires referencing old table as before new table as after for each statement execute function note();
create trigger truncated after truncate on fires for each statement execute function note();
create trigger on_view instead of insert on invoker for each row execute function note();
create trigger on_root after insert on parted for each row execute function note();
alter table parted_a disable trigger on_root;
alter table parted_b enable replica trigger on_root;
comment on trigger ordinary on fires is 'fires';
create rule also as on insert to fires where new.id > 5 do also (insert into audit (who) values ('rule'); select 1);
create rule always as on update to by_default do also notify by_default;
alter table by_default enable always rule always;
create rule never as on delete to by_default do instead nothing;
alter table by_default disable rule never;
comment on rule also on fires is 'also';
insert into fires values (1, 'one'), (10, 'ten');
create event trigger watching on ddl_command_end when tag in ('CREATE TABLE', 'CREATE VIEW') execute function watch();
create event trigger watching_always on sql_drop execute function watch();
alter event trigger watching_always enable always;
create event trigger watching_never on table_rewrite execute function watch();
alter event trigger watching_never disable;
comment on event trigger watching is 'watches';

-- Row security.
create table secret (id int primary key, owner name default current_user);
alter table secret enable row level security, force row level security;
create policy own on secret for select to everything_reader, "Odd ""Role""" using (owner = current_user);
create policy nobody on secret as restrictive for update using (false) with check (id > 0);
comment on policy own on secret is 'own rows';
insert into secret values (1), (2);
create table only_enabled (id int primary key);
alter table only_enabled enable row level security;
insert into only_enabled values (1);

-- Publications.
create publication everything_all for all tables with (publish = 'insert, update', publish_via_partition_root = true);
create publication everything_some for table parent (id, code) where (id > 7), only ancestor;
create publication everything_schema for tables in schema "Odd ""Schema""";
create publication everything_none;
comment on publication everything_some is 'some';
create subscription "Everything from" connection 'host=127.0.0.1 password=hush-of-the-subscription' publication p, "q;" with (connect = false, slot_name = 'theirs', binary = true);
comment on subscription "Everything from" is 'from elsewhere';
alter publication everything_none owner to everything_owner;

-- Privileges by default, and on large objects and the database.
alter default privileges in schema plain grant select on tables to everything_reader;
alter default privileges for role everything_owner revoke execute on functions from public;
alter default privileges grant usage on types to everything_reader;
alter default privileges for role everything_owner grant usage on schemas to everything_reader;
select lo_from_bytea(4711, decode(repeat('00ff5c27', 50000), 'hex'));
comment on database app is 'it''s the database';
grant create on database app to everything_owner;
revoke temporary on database app from public;
alter database app set work_mem = '7MB';
alter database app set search_path = plain, "Odd ""Schema""", public;
alter role everything_reader in database app set statement_timeout = '77s';
alter role everything_reader set lock_timeout = '7s';
alter role everything_reader with login password 'hush-of-the-role' connection limit 7 valid until '2100-01-01';
grant everything_reader to everything_owner with admin option;
comment on role everything_reader is 'reads';
