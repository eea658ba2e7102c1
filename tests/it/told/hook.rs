//! A webhook on the loopback interface that keeps what it is told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

pub struct Hook {
    port: u16,
    /// How many requests are still answered with an error.
    refused: Arc<AtomicU32>,
    bodies: Arc<Mutex<VecDeque<String>>>,
    taken: mpsc::UnboundedReceiver<String>,
}

impl Hook {
    pub async fn listen() -> std::io::Result<Hook> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (refused, bodies) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(VecDeque::new())));
        let (taker, taken) = mpsc::unbounded_channel();
        let (still, kept) = (refused.clone(), bodies.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(take(stream, still.clone(), kept.clone(), taker.clone()));
            }
        });
        Ok(Hook { port, refused, bodies, taken })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }
    pub fn refuse(&self, requests: u32) {
        self.refused.store(requests, Ordering::Relaxed);
    }
    /// All bodies, refused ones too.
    pub fn heard(&self) -> Vec<String> {
        self.bodies.lock().expect("nobody panics with it").iter().cloned().collect()
    }
    /// The next one that was taken.
    pub async fn next(&mut self) -> Value {
        let body = tokio::time::timeout(Duration::from_secs(30), self.taken.recv()).await;
        let body = body.unwrap_or_else(|_| panic!("nothing came; so far: {:?}", self.heard()));
        serde_json::from_str(&body.unwrap_or_default()).expect("the body is JSON")
    }
    /// The next one of this event; others are passed over.
    pub async fn heard_of(&mut self, event: &str) -> Value {
        loop {
            let body = self.next().await;
            if body["event"] == event {
                return body;
            }
        }
    }
}

async fn take(
    stream: TcpStream,
    refused: Arc<AtomicU32>,
    bodies: Arc<Mutex<VecDeque<String>>>,
    taker: mpsc::UnboundedSender<String>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        while stream.read_line(&mut line).await.ok()? > 2 {
            let (name, value) = line.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok()?;
            }
            line.clear();
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        if body.is_empty() {
            return None;
        }
        let body = String::from_utf8(body).ok()?;
        bodies.lock().ok()?.push_back(body.clone());
        let refuses = refused.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        let answer = if refuses { "500 Internal Server Error" } else { "200 OK" };
        stream.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.ok()?;
        if !refuses {
            let _ = taker.send(body);
        }
    }
}
