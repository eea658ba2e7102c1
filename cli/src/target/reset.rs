//! Empties the target of what a migration has made, object by object. What is dropped is named by the done
//! steps of its plan and found in the catalog; nothing is dropped with CASCADE, so that what others have
//! built on it stops the drop instead of going with it.

use tokio_postgres::Client;

use crate::error::{Context, Result};

/// An object that the migration has made and that is there.
#[derive(Debug, Clone)]
pub struct Made {
    pub kind: String,
    pub name: String,
    /// Drops it.
    pub statement: String,
}

/// How it went.
#[derive(Debug, Default)]
pub struct Dropped {
    pub count: usize,
    /// What could not be dropped, and why.
    pub left: Vec<(Made, String)>,
}

/// What is to be dropped, what was made last first. Foreign keys between the tables go before the tables.
/// A name that stands for two objects stands for none.
pub async fn made(client: &Client, migration: &str) -> Result<Vec<Made>> {
    let rows = client.query(MADE, &[&migration]).await.on_target(|| "read what the migration has made".into())?;
    Ok(rows.iter().map(|row| Made { kind: row.get(0), name: row.get(1), statement: row.get(2) }).collect())
}

const MADE: &str = "\
with done as (
    select s.step_id, s.kind, s.name
      from pgmig.step s
     where s.migration = $1 and s.state = 'done'
), found as (
    select d.step_id, d.kind, d.name, c.oid as relation,
           format('drop %s if exists %I.%I', lower(d.kind), n.nspname, c.relname) as statement
      from done d
           join pg_catalog.pg_namespace n on starts_with(d.name, n.nspname || '.')
           join pg_catalog.pg_class c on c.relnamespace = n.oid and d.name = n.nspname || '.' || c.relname
     where (d.kind, c.relkind) in (('TABLE', 'r'), ('TABLE', 'p'), ('VIEW', 'v'), ('MATERIALIZED VIEW', 'm'),
                                   ('SEQUENCE', 'S'), ('FOREIGN TABLE', 'f'))
    union all
    select d.step_id, d.kind, d.name, null, format('drop routine if exists %s', p.oid::regprocedure)
      from done d
           join pg_catalog.pg_namespace n on starts_with(d.name, n.nspname || '.')
           join pg_catalog.pg_proc p
             on p.pronamespace = n.oid
            and d.name = n.nspname || '.' || p.proname || '('
                         || case when p.prokind = 'a' and p.pronargs = 0 then '*' else oidvectortypes(p.proargtypes) end || ')'
     where d.kind in ('FUNCTION', 'PROCEDURE', 'AGGREGATE')
    union all
    select d.step_id, d.kind, d.name, null,
           format('drop %s if exists %I.%I', case t.typtype when 'd' then 'domain' else 'type' end, n.nspname, t.typname)
      from done d
           join pg_catalog.pg_namespace n on starts_with(d.name, n.nspname || '.')
           join pg_catalog.pg_type t on t.typnamespace = n.oid and d.name = n.nspname || '.' || t.typname
     where d.kind in ('TYPE', 'SHELL TYPE', 'DOMAIN')
       -- The row type of a table goes with it.
       and not exists (select from pg_catalog.pg_class c where c.oid = t.typrelid and c.relkind <> 'c')
    union all
    select d.step_id, d.kind, d.name, null, format('drop collation if exists %I.%I', n.nspname, c.collname)
      from done d
           join pg_catalog.pg_namespace n on starts_with(d.name, n.nspname || '.')
           join pg_catalog.pg_collation c on c.collnamespace = n.oid and d.name = n.nspname || '.' || c.collname
     where d.kind = 'COLLATION'
    union all
    select d.step_id, d.kind, d.name, null, format('drop %s if exists %I', lower(d.kind), d.name)
      from done d
     where d.kind in ('EVENT TRIGGER', 'PUBLICATION', 'SERVER', 'FOREIGN DATA WRAPPER')
    union all
    -- Not with the slot on its publisher, which may be that of the source's own subscription. An enabled one stays.
    select d.step_id, d.kind, d.name, null,
           format('alter subscription %1$I set (slot_name = none); drop subscription %1$I', u.subname)
      from done d
           join pg_catalog.pg_subscription u on u.subname = d.name
     where d.kind = 'SUBSCRIPTION'
       and u.subdbid = (select oid from pg_catalog.pg_database where datname = current_database())
    union all
    -- With RESTRICT: one that holds anything else stays.
    select -1000000000 + d.step_id, d.kind, d.name, null, format('drop schema if exists %I', d.name)
      from done d
     where d.kind = 'SCHEMA' and d.name <> 'public'
), single as (
    select distinct on (step_id, statement) *
      from (select f.*, count(*) over (partition by step_id, kind) as objects from found f) f
     where objects = 1
)
select 'FOREIGN KEY' as kind, k.conrelid::regclass || ' ' || quote_ident(k.conname) as name,
       format('alter table %s drop constraint if exists %I', k.conrelid::regclass, k.conname) as statement,
       9223372036854775807 as step_id
  from pg_catalog.pg_constraint k
 where k.contype = 'f' and k.conparentid = 0
   and k.conrelid in (select relation from single) and k.confrelid in (select relation from single)
union all
select kind, name, statement, step_id from single
 order by step_id desc, name";

/// Drops them, each by itself; what something else of them still needs is tried again behind it. `each`
/// hears of what is gone.
pub async fn drop(client: &Client, made: Vec<Made>, each: &mut dyn FnMut(&Made)) -> Result<Dropped> {
    let mut dropped = Dropped::default();
    let mut pending = made;
    while !pending.is_empty() {
        let before = pending.len();
        let mut refused = Vec::new();
        for made in pending {
            match client.batch_execute(&made.statement).await {
                Ok(()) => {
                    dropped.count += 1;
                    each(&made);
                }
                Err(err) => match err.as_db_error() {
                    Some(answer) => {
                        let why = format!("{} ({})", answer.message(), answer.code().code());
                        refused.push((made, why));
                    }
                    None => return Err(err).on_target(|| format!("drop {} {}", made.kind.to_lowercase(), made.name)),
                },
            }
        }
        if refused.len() == before {
            dropped.left = refused;
            break;
        }
        pending = refused.into_iter().map(|(made, _)| made).collect();
    }
    Ok(dropped)
}

/// What the migration has made, or may have made, that is never dropped: kind and number.
pub async fn kept(client: &Client, migration: &str) -> Result<Vec<(String, i64)>> {
    let rows = client
        .query(
            "select lower(kind), count(*)
               from pgmig.step
              where migration = $1 and state = 'done'
                and kind in ('EXTENSION', 'ROLE', 'CAST', 'OPERATOR', 'OPERATOR CLASS', 'OPERATOR FAMILY', 'CONVERSION',
                             'TEXT SEARCH CONFIGURATION', 'TEXT SEARCH DICTIONARY', 'TEXT SEARCH PARSER',
                             'TEXT SEARCH TEMPLATE', 'TRANSFORM', 'ACCESS METHOD', 'PROCEDURAL LANGUAGE')
              group by 1
             union all
             select 'large object', sum(copied_rows)::int8
               from pgmig.part
              where migration = $1 and state = 'done' and schema_name = 'pg_catalog' and table_name like 'pg_largeobject%'
             having sum(copied_rows) > 0
              order by 1",
            &[&migration],
        )
        .await
        .on_target(|| "read what else the migration has made".into())?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
