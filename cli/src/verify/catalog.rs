//! Facts of the catalogs that a dump of the schema does not show, or not clearly: positions of
//! sequences, whether constraints are validated, indexes valid, triggers on.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::side::Side;
use super::{Difference, Kind};
use crate::error::{Context, Result};

/// Facts as text by quoted name: equal text, equal fact.
pub type Facts = BTreeMap<String, String>;

/// The facts of one kind that one side holds.
pub async fn facts(side: &Side, client: &Client, kind: Kind) -> Result<Facts> {
    let query = match kind {
        Kind::Sequence => return sequences(side, client).await,
        Kind::Constraint => CONSTRAINTS,
        Kind::Index => INDEXES,
        Kind::Trigger => TRIGGERS,
        Kind::ReplicaIdentity => REPLICA_IDENTITIES,
        Kind::MaterializedView => MATERIALIZED_VIEWS,
        _ => return Ok(Facts::new()),
    };
    // `@ours` stands for the namespaces that are compared.
    let query = query.replace("@ours", OURS);
    let rows = client.query(&query, &[]).await;
    let rows = rows.during(side.exit(), || format!("read each {kind} of the {}", side.name()))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// What differs between the facts of both sides. `one_sided` tells whether to report what exists
/// on one side alone: where schemas are compared, that comparison does it.
pub fn differences(kind: Kind, source: &Facts, target: &Facts, one_sided: bool) -> Vec<Difference> {
    let mut found = Vec::new();
    for (name, here) in source {
        match target.get(name) {
            Some(there) if here == there => {}
            Some(there) => found.push(Difference::new(kind, name, format!("source {here}; target {there}"))),
            None if one_sided => found.push(Difference::one_sided(kind, name, true)),
            None => {}
        }
    }
    if one_sided {
        let extra = target.keys().filter(|name| !source.contains_key(*name));
        found.extend(extra.map(|name| Difference::one_sided(kind, name, false)));
    }
    found
}

async fn sequences(side: &Side, client: &Client) -> Result<Facts> {
    let doing = || format!("read the sequences of the {}", side.name());
    let listed = client.query(&SEQUENCES.replace("@ours", OURS), &[]).await.during(side.exit(), doing)?;
    let mut facts = Facts::new();
    // Many at a time: a database may hold thousands.
    for some in listed.chunks(200) {
        let positions: Vec<String> = some
            .iter()
            .map(|row| {
                format!(
                    "(select format('%s%s', last_value, case when not is_called then ' not called' end) from {})",
                    row.get::<_, &str>(0)
                )
            })
            .collect();
        let query = format!("select array[{}]", positions.join(", "));
        let positions: Vec<String> = client.query_one(&query, &[]).await.during(side.exit(), doing)?.get(0);
        for (row, position) in some.iter().zip(positions) {
            facts.insert(row.get(0), format!("at {position}, {}", row.get::<_, &str>(1)));
        }
    }
    Ok(facts)
}

const OURS: &str =
    "n.nspname <> all ('{pg_catalog,information_schema,pg_toast,pgmig}') and n.nspname not like 'pg\\_temp\\_%'";

const SEQUENCES: &str = "
select format('%I.%I', n.nspname, c.relname),
       format('%s from %s by %s in %s to %s, cache %s%s', s.seqtypid::regtype, s.seqstart, s.seqincrement,
              s.seqmin, s.seqmax, s.seqcache, case when s.seqcycle then ', cycle' end)
  from pg_catalog.pg_sequence s
  join pg_catalog.pg_class c on c.oid = s.seqrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where @ours and c.relpersistence <> 't'
   and not exists (select from pg_catalog.pg_depend d
                    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
                      and d.deptype = 'e')";

// NOT NULL became a constraint in PostgreSQL 18; between versions it is left to the schema.
const CONSTRAINTS: &str = "
select format('%s on %s', quote_ident(o.conname), case o.contypid when 0 then o.conrelid::regclass::text else o.contypid::regtype::text end),
       case when o.convalidated then 'validated' else 'not validated' end
  from pg_catalog.pg_constraint o join pg_catalog.pg_namespace n on n.oid = o.connamespace
 where @ours and o.contype <> 'n'";

const INDEXES: &str = "
select format('%I.%I', n.nspname, c.relname),
       concat_ws(', ', case when i.indisvalid then 'valid' else 'not valid' end,
                 case when not i.indisready then 'not ready' end,
                 case when i.indisclustered then 'clustered' end,
                 case when i.indisreplident then 'replica identity' end)
  from pg_catalog.pg_index i
  join pg_catalog.pg_class c on c.oid = i.indexrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where @ours";

// Triggers of a foreign key have a number for a name: their constraint stands for them.
const TRIGGERS: &str = "
select format('%s on %s', case when t.tgisinternal then format('%I (%s)', o.conname, t.tgfoid::regproc) else quote_ident(t.tgname) end,
              t.tgrelid::regclass),
       string_agg(case t.tgenabled when 'O' then 'on' when 'D' then 'off' when 'R' then 'on for replicas' else 'always on' end, ', ' order by t.tgenabled)
  from pg_catalog.pg_trigger t
  join pg_catalog.pg_class c on c.oid = t.tgrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join pg_catalog.pg_constraint o on o.oid = t.tgconstraint
 where @ours
 group by 1";

const REPLICA_IDENTITIES: &str = "
select format('%I.%I', n.nspname, c.relname),
       case c.relreplident when 'd' then 'default' when 'f' then 'full' when 'n' then 'nothing' else 'an index' end
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where @ours and c.relkind in ('r', 'p')";

const MATERIALIZED_VIEWS: &str = "
select format('%I.%I', n.nspname, c.relname), case when c.relispopulated then 'populated' else 'not populated' end
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where @ours and c.relkind = 'm'";
