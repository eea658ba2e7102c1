//! The statements of the workload on sample.sql. Each one is whole in itself and can run at any
//! point of any transaction; whether it finds its rows is left to chance.

use super::workload::Maker;

pub const SIZES: &[(&str, &str)] = &[
    ("customer", "select max(customer_id) from shop.customers"),
    ("product", "select max(product_id)::bigint from shop.products"),
    ("order", "select max(order_id) from shop.orders"),
    ("document", "select max(document_id)::bigint from shop.documents"),
    ("payment", "select max(payment_id) from shop.payments"),
    ("shipment", "select max(shipment_id) from ops.shipments"),
];

const STATES: &[&str] = &["new", "paid", "packed", "shipped", "done", "cancelled"];
const FLOATS: &[&str] = &["'NaN'", "'Infinity'", "'-Infinity'", "null", "0.1", "-0.0", "1e-300", "12345.678"];
const NUMERICS: &[&str] = &["'NaN'", "null", "0.00", "17.50", "1234567.89"];
const TEXTS: &[&str] =
    &["null", "''", "'plain'", "'it''s'", r"E'tab\tnewline\nbackslash\\'", r"'\N'", "'ü☃😀'", "'{\"a\":null}'"];

pub fn statement(m: &mut Maker) -> String {
    match m.rng.u8(..100) {
        0..14 => orders(m),
        14..30 => customers(m),
        30..42 => products(m),
        42..56 => stock(m),
        56..66 => money(m),
        66..74 => documents(m),
        74..84 => keyless(m),
        84..90 => sessions(m),
        90..96 => odd_ones(m),
        _ => rare(m),
    }
}

fn customers(m: &mut Maker) -> String {
    let id = m.key("customer");
    match m.rng.u8(..11) {
        0..3 => {
            let rows: Vec<String> = (0..m.rng.u8(1..6))
                .map(|_| {
                    let (tag, born) = (m.fresh(), m.pick(&["null", "'1990-02-28'", "'0044-03-15 BC'", "'infinity'"]));
                    let (credit, rating) = (m.pick(NUMERICS), m.pick(FLOATS));
                    format!("('{tag}@example.org', 'New {tag}', {born}, array['a', null, '\"'], '{{\"n\": [1, null]}}', {credit}, {rating})")
                })
                .collect();
            format!(
                "insert into shop.customers (email, name, born, tags, preferences, credit, rating) values {}",
                rows.join(", ")
            )
        }
        3 => format!(
            "update shop.customers set rating = {}, credit = {} where customer_id = {id}",
            m.pick(FLOATS),
            m.pick(NUMERICS)
        ),
        4 => format!(
            "update shop.customers set preferences = preferences || '{{\"seen\": {id}}}', tags = tags || 'again'::text where customer_id between {id} and {id} + 20 and cardinality(tags) < 12"
        ),
        5 => format!("update shop.customers set name = name || '.' where customer_id = {id} and length(name) < 100"),
        6 => format!("delete from shop.customers where email like '{}-%' and customer_id % 3 = 0", m.tag),
        7 => format!("delete from shop.reviews where customer_id = {id}"),
        8 => format!("delete from shop.addresses where customer_id = {id} and line_number > 2"),
        // Already there: a unique violation by design.
        9 if m.rng.u8(..6) == 0 => {
            format!("insert into shop.customers (email, name) values ('customer{id}@example.com', 'Twin')")
        }
        9 => format!(
            "insert into shop.addresses values ({id}, {}, 'Lane', 'Town', null, null) on conflict (customer_id, line_number) do update set street = excluded.street || ' bis'",
            m.rng.u8(1..6)
        ),
        _ => format!(
            "insert into shop.reviews values ({}, {id}, {}, {}, 0, now()) on conflict (product_id, customer_id) do update set helpful = reviews.helpful + 1, body = excluded.body",
            m.key("product"),
            m.rng.u8(1..6),
            m.pick(TEXTS)
        ),
    }
}

fn orders(m: &mut Maker) -> String {
    let (id, customer, product) = (m.key("order"), m.key("customer"), m.key("product"));
    let channel = m.pick(&["web", "app", "desk", "phone"]);
    match m.rng.u8(..8) {
        0..3 => {
            let lines = m.rng.u8(1..8);
            let day = m.rng.u16(..200);
            format!(
                "with o as (insert into shop.orders (placed_at, channel, customer_id, total, note) \
                 values (timestamptz '2026-01-01Z' + {day} * interval '1 day', '{channel}', {customer}, {}, {}) returning *) \
                 insert into shop.order_lines (order_id, line_number, placed_at, channel, product_id, quantity, unit_price) \
                 select order_id, n, placed_at, channel, 1 + ({product} * n) % {product}, n, n / 4.0 from o, generate_series(1, {lines}) n",
                m.pick(&["'NaN'", "0", "99.95"]),
                m.pick(TEXTS)
            )
        }
        3 => format!(
            "update shop.orders set state = '{}', note = {} where order_id = {id}",
            m.pick(STATES),
            m.pick(TEXTS)
        ),
        4 => format!("update shop.orders set state = '{}' where order_id between {id} and {id} + 30", m.pick(STATES)),
        // Only an order without lines may change its key; it moves to another partition.
        5 => format!(
            "update shop.orders o set placed_at = placed_at + interval '31 days', channel = '{channel}' where order_id between {id} and {id} + 200 \
             and not exists (select from shop.order_lines l where l.order_id = o.order_id) and not exists (select from shop.invoices i where i.order_id = o.order_id)"
        ),
        6 => format!("delete from shop.order_lines where order_id = {id}"),
        _ if m.rng.bool() => format!("delete from shop.orders where order_id = {id}"),
        _ => format!("update shop.order_lines set quantity = quantity % 9 + 1 where order_id = {id}"),
    }
}

fn products(m: &mut Maker) -> String {
    let id = m.key("product");
    match m.rng.u8(..11) {
        0 => format!(
            "insert into shop.products (sku, name, category_id, size, weight, photo) values (upper('{}'), 'New', 1, '(1,,3)', {}, '\\x00ff')",
            m.fresh(),
            m.pick(&["'NaN'", "null", "1.5"])
        ),
        1 => format!(
            "update shop.products set attributes = jsonb_set(attributes, '{{n}}', '{id}'), ages = '{{[1,3),[7,9)}}' where product_id = {id}"
        ),
        2 => format!(
            "update shop.products set description = null, sold_between = 'empty' where product_id between {id} and {id} + 3"
        ),
        // Its key cascades to product_tags; other tables refuse it.
        3 => format!(
            "update shop.products set product_id = product_id + 1000000 where sku like upper('{}-%') and product_id < 1000000",
            m.tag
        ),
        4 => format!("delete from shop.products where sku like upper('{}-%') and product_id % 2 = 0", m.tag),
        // The trigger writes to the audit log.
        5 => format!("update shop.prices set price = {} where product_id = {id}", m.pick(&["'NaN'", "0", "12.34"])),
        6 => format!(
            "insert into shop.prices (product_id, price, valid) values ({id}, 5, tstzrange('2030-01-01Z'::timestamptz + {} * interval '1 day', null))",
            m.rng.u16(..900)
        ),
        7 => format!("delete from shop.prices where product_id = {id} and valid && tstzrange('2028-01-01Z', null)"),
        8 => format!("delete from shop.product_tags where product_id = {id} and tag_id % 3 = 0"),
        9 => format!(
            "update shop.tags set name = name || '''' where tag_id = {} and length(name) < 40",
            m.rng.u8(1..101)
        ),
        _ => format!("insert into shop.product_tags values ({id}, {}) on conflict do nothing", m.rng.u8(1..101)),
    }
}

fn stock(m: &mut Maker) -> String {
    let id = m.key("product");
    match m.rng.u8(..7) {
        0..2 => format!(
            "update ops.stock set quantity = quantity + {} where warehouse_id = 1 and product_id = {}",
            m.rng.i8(-3..5),
            m.rng.u8(1..4)
        ),
        2 => format!(
            "update ops.stock set quantity = quantity - 1, counted_at = now() where product_id between {id} and {id} + 10 and quantity > 0"
        ),
        3..5 => {
            let rows: Vec<String> = (0..m.rng.u16(1..120))
                .map(|n| format!("({}, {}, {})", m.key("product"), i32::from(n) - 50, m.pick(TEXTS)))
                .collect();
            format!("insert into ops.stock_moves (product_id, quantity, reason) values {}", rows.join(", "))
        }
        5 => format!("delete from ops.stock_moves where product_id = {id} and quantity % 5 = 0"),
        // From one hash partition to another, most often.
        _ => format!(
            "update ops.stock_moves set product_id = {} where product_id = {id} and quantity < 0",
            m.key("product")
        ),
    }
}

fn money(m: &mut Maker) -> String {
    let id = m.key("payment");
    match m.rng.u8(..10) {
        0..3 => format!(
            "insert into shop.payments (invoice, kind, amount, rate, paid_at, info) select invoice, 'card', {}, {}, now(), '{{ \"x\" :1}}' from shop.payments where payment_id = {id}",
            m.pick(&["'NaN'", "1e30", "-0.000", "12.3456789012345678901234567890"]),
            m.pick(&["'NaN'", "'-Infinity'", "null", "0.1", "2.5e-9"])
        ),
        3 => format!(
            "update shop.payments set rate = {}, kind = 'cash on delivery' where payment_id = {id}",
            m.pick(&["'NaN'", "null", "1"])
        ),
        4 => format!("delete from shop.payments where payment_id = {id}"),
        5 => format!(
            "update ops.shipments set events = events || '{{\"at\": {id}}}'::jsonb, carrier = 'C{}' where shipment_id between 5000 + {id} and 5006 + {id} and cardinality(events) < 20",
            m.rng.u8(1..10)
        ),
        6 => format!("update shop.coupons set uses = uses + 1 where code = 'CODE{}'", m.rng.u16(1..301)),
        // A key that is freed and taken again.
        7 => {
            let code = format!("CODE{}", m.rng.u16(1..301));
            format!(
                "delete from shop.coupons where code = '{code}'; insert into shop.coupons values ('{code}', 5, 'empty') on conflict do nothing"
            )
        }
        8 => format!(
            "update shop.invoices set document = {}, issued = issued + 1 where invoice between 100000 + 3 * {id} and 100010 + 3 * {id}",
            m.pick(&["null", "'\\x'", "'\\x00ff5c27'"])
        ),
        _ => {
            let order = m.key("order");
            format!(
                "insert into shop.invoices (order_id, placed_at, channel, issued) select order_id, placed_at, channel, placed_at::date from shop.orders o \
                 where order_id between {order} and {order} + 5 and not exists (select from shop.invoices i where i.order_id = o.order_id)"
            )
        }
    }
}

fn documents(m: &mut Maker) -> String {
    let id = m.key("document");
    let salt = m.rng.u32(..);
    let long =
        format!("(select string_agg(md5('{salt}.' || n), '') from generate_series(1, {}) n)", m.rng.u16(50..900));
    match m.rng.u8(..7) {
        // The long columns stay as they are, and are not in the stream.
        0..4 => {
            format!("update shop.documents set revision = revision + 1 where document_id between {id} and {id} + 2")
        }
        4 => format!("update shop.documents set body = {long}, revision = revision + 1 where document_id = {id}"),
        5 => format!(
            "update shop.documents set facts = facts || jsonb_build_object('k{}', {long}) where document_id = {id}",
            m.rng.u8(..3)
        ),
        // The key changes and the long columns do not.
        _ => format!(
            "update shop.documents set document_id = document_id + 1000000 where document_id = {id} and document_id % 7 = 0"
        ),
    }
}

fn keyless(m: &mut Maker) -> String {
    let sensor = m.rng.u8(..10);
    match m.rng.u8(..6) {
        0..3 => format!(
            "insert into ops.audit_log select '2026-05-01', 'writer', 'same', null from generate_series(1, {})",
            m.rng.u8(1..12)
        ),
        3 => format!(
            "insert into ops.readings select {sensor}, {}, '2026-05-01' from generate_series(1, {})",
            m.pick(&["'NaN'", "null", "20.5"]),
            m.rng.u8(1..5)
        ),
        // One of several equal rows.
        4 => format!(
            "delete from ops.readings where ctid = (select ctid from ops.readings where sensor = {sensor} limit 1)"
        ),
        _ => format!(
            "update ops.readings set degrees = {} where ctid = (select ctid from ops.readings where sensor = {sensor} limit 1)",
            m.pick(&["'NaN'", "null", "21"])
        ),
    }
}

fn sessions(m: &mut Maker) -> String {
    let customer = m.key("customer");
    match m.rng.u8(..4) {
        0..2 => {
            let uuid = format!("{:032x}", m.rng.u128(..));
            format!(
                "insert into shop.sessions values ('{uuid}', {customer}, '{{\"cart\": []}}', '::1', now() + interval '1 day', '-1 mons +3 days 04:05:06.789')"
            )
        }
        2 => format!(
            "update shop.sessions set data = data || '{{\"step\": null}}', idle = null where customer_id = {customer}"
        ),
        _ => format!("delete from shop.sessions where customer_id = {customer}"),
    }
}

fn odd_ones(m: &mut Maker) -> String {
    let table = r#""Back Office"."Weird ""Table"", T#1""#;
    let id = m.rng.u16(1..700);
    match m.rng.u8(..9) {
        0 => format!(
            r#"insert into {table} ("Id #", "select", "a.b") values ({id}, {}, {}) on conflict ("Id #") do nothing"#,
            m.pick(TEXTS),
            m.pick(NUMERICS)
        ),
        1 => format!(
            r#"update {table} set "select" = {}, "Ünï ☃" = null, "q""uote'd" = '{{"a b",NULL,"\\"}}' where "Id #" = {id}"#,
            m.pick(TEXTS)
        ),
        2 => format!(r#"delete from {table} where "Id #" = {id}"#),
        3 => format!(
            "update ops.settings set name = name || '_', value = {} where name = 'setting.{}'",
            m.pick(&["null", "'null'", "'[1, 2.50]'"]),
            m.rng.u8(1..81)
        ),
        // The replica identity is an index here.
        4 => format!("update ops.employees set badge = badge + 10000, pay = null where badge = {}", m.rng.u8(100..201)),
        5 => format!("update \"Back Office\".\"Salaries\" set amount = amount + 1 where badge = {}", m.rng.u8(1..201)),
        6 => "select nextval('ops.ticket')".to_string(),
        // Two rows swap their keys.
        7 => {
            let badge = m.rng.u8(100..200);
            format!(
                "update ops.employees set badge = -1 where badge = {badge}; update ops.employees set badge = {badge} where badge = {badge} + 1; \
                 update ops.employees set badge = {badge} + 1 where badge = -1"
            )
        }
        // A child before its parent: the foreign key waits for the commit.
        _ => {
            let (child, name) = (m.rng.i32(1_000_000..2_000_000_000), m.fresh());
            format!(
                "insert into shop.categories values ({child}, {0}, '{name}', '{{}}'), ({0}, null, '{name}', '{{}}') on conflict do nothing",
                child + 1
            )
        }
    }
}

fn rare(m: &mut Maker) -> String {
    match m.rng.u8(..12) {
        0 => "truncate ops.import_batches, ops.import_rows".to_string(),
        1 => "insert into ops.stock_moves (product_id, quantity) select 1 + n % 50, n from generate_series(1, 3000) n"
            .to_string(),
        2 => "delete from ops.stock_moves where quantity > 20".to_string(),
        _ => {
            let batch = m.rng.i32(1..i32::MAX);
            format!(
                "with b as (insert into ops.import_batches values ({batch}, 'writer', now()) on conflict do nothing returning batch_id) \
                 insert into ops.import_rows select batch_id, n, 'line' from b, generate_series(1, {}) n",
                m.rng.u8(1..60)
            )
        }
    }
}
