//! A random schema: tables with columns of random types and odd names, with every kind of key there is,
//! some of them partitioned.

use fastrand::Rng;

/// What an UPDATE or DELETE of a table goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Primary,
    /// A unique index over not-null columns.
    Index,
    Full,
    /// Inserts only.
    None,
}

#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    pub type_name: &'static str,
}

#[derive(Debug, Clone)]
pub struct Table {
    /// Quoted.
    pub name: String,
    pub key: Key,
    /// Beside `k int` and `part int`.
    pub columns: Vec<Column>,
    pub partitioned: bool,
    /// A second unique key, beside the identity.
    pub unique: bool,
    pub generated: bool,
}

#[derive(Debug, Clone)]
pub struct Schema {
    pub tables: Vec<Table>,
}

const TYPES: [&str; 27] = [
    "text",
    "bytea",
    "int8",
    "int2",
    "bool",
    "timestamptz",
    "date",
    "interval",
    "uuid",
    "jsonb",
    "json",
    "text[]",
    "int4[]",
    "bit(5)",
    "inet",
    "int4range",
    "char(4)",
    "mood",
    "pair",
    "point",
    "xml",
    "numeric[]",
    "numrange",
    "timetz",
    "money",
    "tsvector",
    "bpchar(3)[]",
];
/// wal2json 2.5 is not let near these.
const NUMBERS: [&str; 4] = ["float8", "float4", "numeric", "numeric(12,3)"];
const NAMES: [&str; 8] = ["a", "B c", "d\"e", "select", "é", "f.g", "h$1", "%i"];

pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Schema {
    pub fn random(rng: &mut Rng, numbers: bool) -> Schema {
        let count = rng.usize(5..=15);
        let tables = (0..count).map(|number| table(rng, number, numbers)).collect();
        Schema { tables }
    }

    /// What makes it, with a few rows.
    pub fn statements(&self) -> Vec<String> {
        let mut all = vec![
            "create type mood as enum ('sad', 'so so', 'it''s \"happy\", really')".to_string(),
            "create type pair as (a int, b text)".into(),
        ];
        for table in &self.tables {
            all.extend(table.statements());
        }
        all
    }
}

fn table(rng: &mut Rng, number: usize, numbers: bool) -> Table {
    let types: Vec<&'static str> = TYPES.iter().chain(NUMBERS.iter().filter(|_| numbers)).copied().collect();
    let mut columns: Vec<Column> = (0..rng.usize(1..8))
        .map(|at| Column {
            name: quoted(&format!("{}{at}", NAMES[rng.usize(..NAMES.len())])),
            type_name: types[rng.usize(..types.len())],
        })
        .collect();
    // Always one that may be long enough for TOAST.
    columns.push(Column { name: "long".into(), type_name: "text" });
    let key = [Key::Primary, Key::Primary, Key::Primary, Key::Index, Key::Full, Key::Full, Key::None][rng.usize(..7)];
    Table {
        name: quoted(&format!("{} {number}", NAMES[rng.usize(..NAMES.len())])),
        key,
        columns,
        partitioned: key == Key::Primary && rng.u8(..3) == 0,
        unique: key != Key::None && rng.u8(..3) == 0,
        generated: rng.u8(..3) == 0,
    }
}

impl Table {
    fn statements(&self) -> Vec<String> {
        let name = &self.name;
        let mut columns = vec!["k int not null".to_string(), "part int not null".into()];
        columns.extend(self.columns.iter().map(|column| format!("{} {}", column.name, column.type_name)));
        if self.unique {
            columns.push("u int".into());
        }
        if self.generated {
            columns.push("twice int generated always as (part * 2) stored".into());
        }
        if self.key == Key::Primary {
            columns.push("primary key (k, part)".into());
        }
        let by = if self.partitioned { " partition by list (part)" } else { "" };
        let mut all = vec![format!("create table {name} ({}){by}", columns.join(", "))];
        let leaves = if self.partitioned {
            let leaf = |part: i32| quoted(&format!("{} leaf {part}", name.trim_matches('"')));
            all.push(format!("create table {} partition of {name} for values in (0)", leaf(0)));
            // With its columns in another order.
            let mut others: Vec<String> =
                columns.iter().filter(|column| !column.starts_with("primary key")).cloned().collect();
            others.reverse();
            others.insert(1.min(others.len()), "gone int".into());
            all.push(format!("create table {} ({}, primary key (k, part))", leaf(1), others.join(", ")));
            all.push(format!("alter table {} drop gone", leaf(1)));
            all.push(format!("alter table {name} attach partition {} for values in (1)", leaf(1)));
            all.push(format!("create table {} partition of {name} default", leaf(2)));
            (0..3).map(leaf).collect()
        } else {
            vec![name.clone()]
        };
        if self.unique {
            all.extend(leaves.iter().map(|leaf| format!("alter table {leaf} add unique (u)")));
        }
        match self.key {
            Key::Index => {
                all.push(format!("create unique index on {name} (part, k)"));
                all.push(format!(
                    "do $$ begin execute (select format('alter table %s replica identity using index %s', indrelid::regclass, indexrelid::regclass) \
                     from pg_index where indrelid = '{}'::regclass and indkey::text = '2 1'); end $$",
                    name.replace('\'', "''")
                ));
            }
            Key::Full => all.push(format!("alter table {name} replica identity full")),
            Key::Primary | Key::None => {}
        }
        all
    }
}
