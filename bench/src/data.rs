//! The databases that are moved. The same scale always makes the same rows.

use clap::ValueEnum;

use crate::servers::{Servers, run};
use crate::{Common, Outcome};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dataset {
    /// `pgbench -i -s 100`
    Pgbench,
    /// A wide table of 1 GB with eight indexes, a longer one, foreign keys, 50 small tables
    Wide,
    /// 300 small tables and one of 1 GB
    Mixed,
    /// One table of 1 GB without key or index
    Single,
    /// 20,000 small tables with an index each
    Catalog,
}

const WIDE_ROWS: f64 = 1_500_000.0;

impl Dataset {
    pub fn name(self) -> &'static str {
        match self {
            Dataset::Pgbench => "pgbench",
            Dataset::Wide => "wide",
            Dataset::Mixed => "mixed",
            Dataset::Single => "single",
            Dataset::Catalog => "catalog",
        }
    }

    /// Makes the database on the source, named like the dataset.
    pub async fn load(self, servers: &Servers, common: &Common) -> Outcome<()> {
        let name = self.name();
        servers.drop_database(&servers.source, name).await?;
        servers.source.create_database(name).await?;
        let (rows, customers, products) =
            (common.scaled(WIDE_ROWS), common.scaled(200_000.0).max(10), common.scaled(20_000.0).max(10));
        let wide = |table: &str| {
            include_str!("../sql/wide_table.sql")
                .replace("{table}", table)
                .replace("{rows}", &rows.to_string())
                .replace("{customers}", &customers.to_string())
                .replace("{products}", &products.to_string())
        };
        let around = |text: &str| {
            text.replace("{rows}", &rows.to_string())
                .replace("{customers}", &customers.to_string())
                .replace("{products}", &products.to_string())
        };
        let small = |tables: u64, rows: u64| {
            include_str!("../sql/small_tables.sql")
                .replace("{tables}", &tables.to_string())
                .replace("{rows}", &rows.to_string())
        };
        let scripts = match self {
            Dataset::Pgbench => {
                pgbench_init(servers, name, common.scaled(100.0))?;
                Vec::new()
            }
            Dataset::Wide => vec![
                around(include_str!("../sql/wide_before.sql")),
                wide("orders"),
                around(include_str!("../sql/wide_after.sql")),
                small(50, common.scaled(1_000.0)),
            ],
            Dataset::Mixed => {
                vec![
                    wide("big"),
                    "alter table big add primary key (id)".to_string(),
                    small(common.scaled(300.0).max(30), 300),
                ]
            }
            Dataset::Single => vec![wide("big")],
            Dataset::Catalog => {
                vec![include_str!("../sql/catalog.sql").replace("{tables}", &common.scaled(20_000.0).to_string())]
            }
        };
        for script in scripts {
            servers.source.sql(name, &script).await?;
        }
        servers.source.sql(name, "vacuum (analyze)").await?;
        Ok(())
    }
}

pub fn pgbench_init(servers: &Servers, database: &str, scale: u64) -> Outcome<()> {
    let mut pgbench = servers.source.bin_dir().tool("pgbench");
    pgbench.args(["--initialize", "--quiet", "--scale", &scale.to_string()]).arg(servers.source.uri(database));
    run(&mut pgbench).map(drop)
}
