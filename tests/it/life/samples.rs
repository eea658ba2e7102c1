//! Databases that others have made, moved while they are followed and compared whole.

use harness::{DATABASE, Outcome, shared_data};

use super::{EXTENSION, Life, PLAIN, Way};

#[tokio::test(flavor = "multi_thread")]
async fn pagila_arrives_whole() -> Outcome {
    arrives(
        EXTENSION,
        "pagila.sql",
        "update film set length = length + 1; delete from payment where payment_id % 7 = 0",
    )
    .await
}
#[tokio::test(flavor = "multi_thread")]
async fn chinook_arrives_whole() -> Outcome {
    arrives(PLAIN, "chinook.sql", r#"update "Track" set "Milliseconds" = "Milliseconds" + 1; delete from "PlaylistTrack" where "TrackId" % 7 = 0"#).await
}

async fn arrives(way: Way, file: &str, change: &str) -> Outcome {
    let Some(file) = shared_data(file) else { return Ok(()) };
    let life = Life::empty(way).await;
    life.pair.source.load_file(DATABASE, &file).await?;
    let run = life.follow().await;
    life.source.batch_execute(change).await?;
    life.end(run).await;
    Ok(())
}
