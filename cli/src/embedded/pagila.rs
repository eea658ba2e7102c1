//! The statements of the workload on Pagila, a public sample database of a film rental shop.
//! Each one is whole in itself; whether it finds its rows is left to chance.

use super::workload::Maker;

pub const SIZES: &[(&str, &str)] = &[
    ("customer", "select max(customer_id)::bigint from public.customer"),
    ("film", "select max(film_id)::bigint from public.film"),
    ("inventory", "select max(inventory_id)::bigint from public.inventory"),
    ("rental", "select max(rental_id)::bigint from public.rental"),
    ("actor", "select max(actor_id)::bigint from public.actor"),
    ("address", "select max(address_id)::bigint from public.address"),
];

pub fn statement(m: &mut Maker) -> String {
    let (customer, film, rental) = (m.key("customer"), m.key("film"), m.key("rental"));
    match m.rng.u8(..20) {
        0..4 => format!(
            "insert into rental (rental_date, inventory_id, customer_id, staff_id) values \
             (timestamptz '2026-01-01Z' + {} * interval '1 ms', {}, {customer}, {})",
            m.rng.u32(..),
            m.key("inventory"),
            m.rng.u8(1..3)
        ),
        4..8 => format!(
            "insert into payment (customer_id, staff_id, rental_id, amount, payment_date) select customer_id, staff_id, rental_id, {}, \
             timestamptz '2022-01-01Z' + {} * interval '1 hour' from rental where rental_id between {rental} and {rental} + {}",
            m.pick(&["0.00", "4.99", "'NaN'"]),
            m.rng.u16(..24 * 200),
            m.rng.u8(..10)
        ),
        // To another month: from one partition to the next.
        8 => format!(
            "update payment set payment_date = payment_date - interval '31 days' where rental_id = {rental} and payment_date > '2022-03-01Z'"
        ),
        9 => format!(
            "update payment set amount = {} where customer_id = {customer}",
            m.pick(&["'NaN'", "1.25", "999.99"])
        ),
        10 => format!("delete from payment where rental_id = {rental}"),
        11..13 => format!(
            "update rental set return_date = {} where rental_id between {rental} and {rental} + 5",
            m.pick(&["now()", "null", "'infinity'"])
        ),
        13 => format!("delete from rental where rental_id = {rental}"),
        14 => {
            let name = m.fresh();
            format!(
                "insert into customer (store_id, first_name, last_name, email, address_id, active) values \
                 (1, 'NEW', '{name}', null, {0}, 1), (2, 'O''NEW', E'\\\\{name}\\t', '{name}@example.org', {0}, null)",
                m.key("address")
            )
        }
        15 => format!(
            "update customer set email = {}, active = 1 - active where customer_id = {customer}",
            m.pick(&["null", "''", "'x@example.org'"])
        ),
        16 => format!(
            "update film set rental_rate = rental_rate % 9 + 0.5, special_features = {} where film_id = {film}",
            m.pick(&["null", "'{}'", "'{\"Deleted Scenes\",Trailers}'"])
        ),
        17 => format!(
            "update film set description = description || ' again' where film_id = {film} and length(description) < 5000"
        ),
        // A key change and its collisions.
        18 => format!(
            "update film_actor set actor_id = {} where film_id = {film} and actor_id = {}",
            m.key("actor"),
            m.key("actor")
        ),
        _ => format!(
            "insert into inventory (film_id, store_id) select {film}, 1 + n % 2 from generate_series(1, {}) n",
            m.rng.u8(1..20)
        ),
    }
}
