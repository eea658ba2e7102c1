//! Values whose text depends on settings, or on the version of the server, are equal where they are the same;
//! and a limit on the rate is kept.

use std::time::Instant;

use harness::{Outcome, tell, versions};
use pgmig::embedded::{BinDir, Cluster};

use crate::life::{Life, PLAIN};

const TABLES: &str = "
create table every (id int primary key, a float4, b float8, c numeric, d money, e timestamptz, f interval, g bytea, h xml,
                    i time with time zone, j date, k point, l float8[], m tstzrange, n regclass, o jsonb, p timestamp);
insert into every
select n, random() * n, random() / n, n / 7.0, n * 1234.56, now() + n * interval '1.000001 s', make_interval(months => n, secs => n / 7.0),
       decode(md5(n::text), 'hex'), xmlparse(content '<a>' || n || '</a>'), '12:00:00+02', date '0044-03-15' + n, point(random(), -random()),
       array[random(), 'NaN', '-Infinity', 1e-300], tstzrange(now(), null), 'every', jsonb_build_object('a', 1.10 * n), now()
  from generate_series(1, 2000) n;
insert into every (id, a, b, c, e, j) values (0, 'NaN', '-0', 'NaN', 'infinity', '-infinity'), (-1, 1e-45, 5e-324, '-0.000', '4713-01-01 BC', '5874897-12-31');
create table padded (id int primary key, v text);
insert into padded select n, repeat(md5(n::text), 30) from generate_series(1, 4000) n;
alter database app set timezone = 'Asia/Kolkata';
alter database app set datestyle = 'SQL, DMY';
alter database app set intervalstyle = 'sql_standard';
alter database app set extra_float_digits = -5;
alter database app set bytea_output = 'escape';
alter database app set lc_monetary = 'C';
alter database app set xmlbinary = 'hex';
alter database app set xmloption = 'document';
alter database app set quote_all_identifiers = on;";

#[tokio::test(flavor = "multi_thread")]
async fn values_are_compared_whatever_the_settings_and_versions() -> Outcome {
    let found = versions();
    for target in &found {
        let server = |bin: &BinDir| Cluster::builder().bin_dir(bin.path());
        let life = Life::between(PLAIN, server(&found[0]), server(target)).await;
        for statement in TABLES.split(";\n") {
            life.on_source(statement).await;
        }
        let run = life.follow_with(&["--skip-db-properties"]).await;
        for setting in [
            "timezone = 'America/Lima'",
            "datestyle = 'German'",
            "intervalstyle = 'iso_8601'",
            "extra_float_digits = 0",
        ] {
            life.on_target(&format!("alter database app set {setting}")).await;
        }
        life.on_source("update every set b = b * 3, e = e + interval '1 h', f = -f where id % 3 = 0").await;
        let began = Instant::now();
        let equal = life.pgmig(&["verify", "--table-jobs", "1", "--max-rate", "4MB"]).finish(&[]).await;
        assert_eq!((equal.code(), equal.stdout.as_str()), (0, ""), "{}", equal.stderr);
        assert!(began.elapsed().as_secs_f64() > 1.0, "some 5 MB at 4 MB a second, in {:?}", began.elapsed());
        life.pgmig(&["verify", "--quick"]).finish(&[]).await.expect_code(0);
        // The least that a value can differ by.
        life.on_target("update every set a = a + 1e-45 where id = -1; update every set b = 0 where id = 0").await;
        let found = life.pgmig(&["verify"]).finish(&[]).await.expect_code(1);
        let named = "  id = -1  has other values on the target\n  id = 0  has other values on the target\n";
        assert!(found.stdout.ends_with(named), "{}", found.stdout);
        life.pgmig(&["verify", "--repair", "--yes"]).finish(&[]).await.expect_code(0);
        // The comparison of the test itself does not see through it.
        life.on_source("alter database app reset quote_all_identifiers").await;
        life.end(run).await;
        tell(&format!("values were compared into PostgreSQL {}", target.version()));
    }
    Ok(())
}
