//! The client against a made-up server: frames cut anywhere, large, wrong or missing. Nothing here
//! needs PostgreSQL.

use super::*;
use crate::error::Exit;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

fn streaming() -> (ReplicationClient, DuplexStream) {
    let (ours, server) = tokio::io::duplex(64 << 10);
    let channel = Channel::new(dial::Wire::over(ours));
    (
        ReplicationClient { channel, side: Side::Source, user: "u".into(), major: 15, backend_pid: 1, streamed: false },
        server,
    )
}
fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}
fn data(start: u64, payload: &[u8]) -> Vec<u8> {
    frame(b'd', &[&[b'w'][..], &start.to_be_bytes(), &start.to_be_bytes(), &[0; 8], payload].concat())
}
/// What comes until the stream ends: the payloads.
async fn payloads(client: &mut ReplicationClient) -> Result<Vec<Vec<u8>>> {
    let mut seen = Vec::new();
    loop {
        match client.poll_message()? {
            Some(Message::XLogData(xlog)) => seen.push(xlog.data.to_vec()),
            Some(Message::Keepalive(_)) => {}
            Some(Message::CopyDone) => return Ok(seen),
            None => client.fill().await?,
        }
    }
}

#[tokio::test]
async fn messages_come_whole_however_the_bytes_are_cut() {
    let bytes = [
        data(1, b"one"),
        frame(b'N', b"SNOTICE\0C00000\0Mhello\0\0"),
        data(2, b""),
        frame(b'd', &[&[b'k'][..], &[0; 17]].concat()),
        data(3, b"three"),
        frame(b'c', b""),
    ]
    .concat();
    for size in [1, 2, 7, 30, bytes.len()] {
        let (mut client, mut server) = streaming();
        let bytes = bytes.clone();
        let sender = tokio::spawn(async move {
            for piece in bytes.chunks(size) {
                server.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            server
        });
        assert_eq!(payloads(&mut client).await.unwrap(), [&b"one"[..], b"", b"three"], "{size}");
        sender.await.unwrap();
    }
}

#[tokio::test]
async fn the_buffer_grows_for_a_large_message_and_shrinks_back() {
    let (mut client, mut server) = streaming();
    let sender = tokio::spawn(async move {
        server.write_all(&data(1, &vec![b'x'; 20 << 20])).await.unwrap();
        server.write_all(&data(2, b"small")).await.unwrap();
        server.write_all(&frame(b'c', b"")).await.unwrap();
        server
    });
    let seen = payloads(&mut client).await.unwrap();
    assert_eq!(seen.iter().map(Vec::len).collect::<Vec<_>>(), [20 << 20, 5]);
    assert!(client.poll_message().unwrap().is_none());
    assert!(client.channel.inbox.capacity() < 1 << 20);
    sender.await.unwrap();
}

#[tokio::test]
async fn an_error_in_the_stream_keeps_its_sqlstate_and_the_servers_hint() {
    let (mut client, mut server) = streaming();
    server.write_all(&frame(b'E', b"SERROR\0C58P02\0Mplugin broke\0Htry again\0\0")).await.unwrap();
    let err = payloads(&mut client).await.unwrap_err();
    assert_eq!(err.chain(), "read the replication stream of the source: plugin broke (58P02)");
    assert_eq!((err.sqlstate(), err.hint_text(), err.exit()), (Some("58P02"), Some("try again"), Exit::Source));
}

#[tokio::test]
async fn garbage_and_a_lost_connection_are_errors() {
    for bytes in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"d\0\0\0\x05w", b"d\0\0\0\x04", b"", b"d\0\0"] {
        let (mut client, mut server) = streaming();
        server.write_all(bytes).await.unwrap();
        drop(server);
        assert!(payloads(&mut client).await.is_err(), "{bytes:?}");
    }
}

#[tokio::test]
async fn a_status_has_the_form_of_the_manual() {
    let (mut client, mut server) = streaming();
    client.send_status(Lsn(3), Lsn(2), Lsn(1), true).await.unwrap();
    let mut sent = [0; 39];
    server.read_exact(&mut sent).await.unwrap();
    assert_eq!(sent[..6], *b"d\0\0\0\x26r");
    assert_eq!((sent[13], sent[21], sent[29], sent[38]), (3, 2, 1, 1));
}

#[test]
fn names_and_values_cannot_leave_their_quotes() {
    assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    assert_eq!(literal("it's \\ here"), "'it''s \\ here'");
}
