//! `pgmig report`: the page after a real migration, read by an HTML parser. Its figures are those of SQL, and
//! names that look like HTML are text.

use harness::Outcome;
use scraper::{Html, Selector};

use crate::life::{EXTENSION, Life};

const SHOP: &str = r#"
create table "<script>alert(1)</script>" (id int primary key, "<b>" text);
insert into "<script>alert(1)</script>" select n, 'secret ' || n from generate_series(1, 500) n;
create table orders (id int primary key, what int references "<script>alert(1)</script>");
insert into orders select n, n % 500 + 1 from generate_series(1, 20000) n;
create index on orders (what);
create unlogged table scratch (id int primary key);
create view sums as select what, count(*) from orders group by 1;
select lo_from_bytea(0, 'large');
"#;

struct Page {
    html: Html,
    text: String,
}

impl Page {
    fn read(path: &std::path::Path) -> Page {
        let text = std::fs::read_to_string(path).expect("the page was written");
        Page { html: Html::parse_document(&text), text }
    }
    fn all(&self, selector: &str) -> Vec<String> {
        let selector = Selector::parse(selector).expect("the test's own selector");
        self.html.select(&selector).map(|found| found.text().collect::<String>()).collect()
    }
    /// A figure as machines read it.
    fn figure(&self, id: &str) -> String {
        let selector = Selector::parse(&format!("#figure-{id}")).expect("the test's own selector");
        let found = self.html.select(&selector).next().unwrap_or_else(|| panic!("the page has no figure {id}"));
        found.attr("data-value").expect("a figure has a value").to_string()
    }
    /// Whatever state it is of, a page needs nothing from elsewhere, runs nothing, and has all its parts.
    fn is_well_made(&self) {
        assert_eq!(self.html.errors, Vec::<std::borrow::Cow<'_, str>>::new(), "the page is not valid HTML");
        for foreign in ["script", "link", "img", "iframe", "object", "[onload]", "[onclick]"] {
            assert_eq!(self.all(foreign), Vec::<String>::new(), "the page holds {foreign}");
        }
        for outside in ["http://", "https://", "url(", "@import"] {
            assert!(!self.text.contains(outside), "the page refers to {outside}");
        }
        assert_eq!(self.all("h1").len(), 1);
        let sections = [
            "moved",
            "time",
            "rates",
            "lag",
            "verification",
            "cutover",
            "left-out",
            "trouble-list",
            "settings",
            "events",
        ];
        for section in sections {
            assert_eq!(self.all(&format!("h2#{section}")).len(), 1, "section {section}");
        }
        assert!(!self.text.contains("secret "), "a value of a row is on the page");
    }
}

impl Life {
    async fn report(&self, args: &[&str]) -> Page {
        let file = self.dir.path().join("page.html");
        let (dir, path) = (self.dir.path().display().to_string(), file.display().to_string());
        let args = [&["report", "--dir", &dir, "--output", &path], args].concat();
        let done = self.pgmig(&args).finish(&[]).await.expect_code(0);
        assert!(done.stderr.contains("next: open it in a browser"), "{}", done.stderr);
        assert_eq!(done.stdout, "");
        let page = Page::read(&file);
        page.is_well_made();
        page
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_says_what_sql_says_during_a_migration_after_it_and_after_its_cleanup() -> Outcome {
    let mut life = Life::begin(EXTENSION, SHOP).await;
    life.on_source("select pg_stat_force_next_flush()").await;
    let none = life.pgmig(&["report", "--output", "-"]).finish(&["error: there is no migration"]).await.expect_code(5);
    assert_eq!(none.stdout, "");
    life.allowed = &["public.scratch is unlogged", "1 large objects are copied"];
    let mut run = life.run_from(&life.pair.source_uri().replacen('@', ":hunter2@", 1), &[]);
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    life.on_source("insert into orders select n, 1 from generate_series(30001, 31000) n").await;
    life.on_source("update orders set what = 2 where id <= 100").await;
    life.pgmig(&["verify"]).finish(&[]).await.expect_code(0);

    let page = life.report(&[]).await;
    assert_eq!(page.all("#state"), ["in phase follow"]);
    assert_eq!(page.figure("verified"), "equal");
    assert_eq!(page.all("#gantt-copy").len(), 1, "the copy is drawn");
    assert!(page.all("figure h3").contains(&"Lag in bytes".to_string()), "{:?}", page.all("figure h3"));

    let dir = life.dir.path().display().to_string();
    life.pgmig(&["cutover", "--dir", &dir, "--max-downtime", "60s"]).finish(&["unlogged"]).await.expect_code(0);
    life.finish(run).await;
    let page = life.report(&[]).await;
    assert_eq!(page.all("#state"), ["done"]);
    let figures = [
        ("tables", "tables_done"),
        ("rows", "copied_rows"),
        ("bytes", "bytes_done"),
        ("objects", "steps_done - steps_failed"),
        ("applied", "applied_rows"),
        ("duration", "round(extract(epoch from done_at - started_at), 3)"),
        ("trouble", "steps_failed + conflicts"),
    ];
    for (id, column) in figures {
        assert_eq!(page.figure(id), life.on_target(&format!("select {column} from pgmig.progress")).await, "{id}");
    }
    let downtime: f64 = page.figure("downtime").parse()?;
    let in_sql = "select extract(epoch from max(finished_at) - min(started_at)) from pgmig.cutover where step not in ('check', 'prepare')";
    let in_sql: f64 = life.on_target(in_sql).await.parse()?;
    assert!((downtime - in_sql).abs() < 0.01, "{downtime} {in_sql}");
    let tables = page.all("#moved ~ .wide tbody th");
    assert!(tables.iter().any(|name| name == "public.<script>alert(1)</script>"), "{tables:?}");
    assert!(page.all("#left-out ~ ul li").iter().any(|name| name.contains("public.scratch")), "what was left out");
    assert!(page.all("#gantt-cutover .lane").contains(&"sequences".to_string()));
    let settings = page.all("#settings ~ .wide td").join("\n");
    assert!(settings.contains("127.0.0.1") && !page.text.contains("hunter2"), "{settings}");

    // The same, once the target knows nothing of it any more.
    life.pgmig(&["cleanup", "--dir", &dir]).finish(&[]).await.expect_code(0);
    let later = life.report(&[]).await;
    assert_eq!(later.figure("rows"), page.figure("rows"));
    assert_eq!(later.all("#gantt-copy rect").len(), page.all("#gantt-copy rect").len());
    assert!(later.text.contains("this is what it said at the end"));
    Ok(())
}
