//! Properties of the decoders, on random messages and on damaged ones: what a message says is what comes
//! out, and whatever its bytes, the answer is records or an error, in memory that does not outgrow it.
//! `PGMIG_TEST_SEED` gives a run again, `PGMIG_FUZZ_ROUNDS` makes it longer (`make fuzz`).

use fastrand::Rng;

use super::Decoder;
use super::assemble::Assembler;
use super::pgoutput::PgOutput;
use super::spool::Spool;
use super::wal2json::Wal2Json;
use crate::model::Lsn;
use crate::model::wire::{Item, Reader, Value};

fn setup(rounds: u64) -> (Rng, u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("PGMIG_TEST_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("PGMIG_TEST_SEED={seed}");
    (Rng::with_seed(seed), number("PGMIG_FUZZ_ROUNDS").unwrap_or(rounds))
}

/// A value as it is sent: null, or text without NUL.
type Cell = Option<String>;

fn cell(rng: &mut Rng) -> Cell {
    const PIECES: [&str; 14] =
        ["", "a", "null", "\\", "\"", "\u{1}", "\n", "é", "☃", "𝄞", "{\"x\": [1,2]}", "\\x00ff", "\u{7f}", "1e-40"];
    (rng.u8(..6) > 0).then(|| (0..rng.usize(..5)).map(|_| PIECES[rng.usize(..PIECES.len())]).collect())
}

/// A row of so many cells; the first is never null, being the key.
fn row(rng: &mut Rng, width: usize) -> Vec<Cell> {
    (0..width).map(|at| if at == 0 { Some(rng.u32(..).to_string()) } else { cell(rng) }).collect()
}

fn names(width: usize) -> Vec<String> {
    (0..width).map(|at| format!("Column \"{at}\\ ☃")).collect()
}

/// Insert, update with a new key, delete: as each plugin would send them.
fn pgoutput(old: &[Cell], new: &[Cell]) -> Vec<Vec<u8>> {
    let tuple = |row: &[Cell], keys_only: bool| {
        let mut bytes = (row.len() as u16).to_be_bytes().to_vec();
        for (at, cell) in row.iter().enumerate() {
            match cell.as_ref().filter(|_| !keys_only || at == 0) {
                Some(text) => {
                    bytes.push(b't');
                    bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
                    bytes.extend_from_slice(text.as_bytes());
                }
                None => bytes.push(b'n'),
            }
        }
        bytes
    };
    let mut relation = b"R\0\0\0\x07public\0T \"1\"\0d".to_vec();
    relation.extend_from_slice(&(old.len() as u16).to_be_bytes());
    for (at, name) in names(old.len()).iter().enumerate() {
        relation.push(u8::from(at == 0));
        relation.extend_from_slice(name.as_bytes());
        relation.extend_from_slice(&[0; 9]);
    }
    let id = [0, 0, 0, 7];
    vec![
        [&b"B"[..], &[0; 16], &9u32.to_be_bytes()].concat(),
        relation,
        [b"I", &id[..], b"N", &tuple(old, false)].concat(),
        [b"U", &id[..], b"K", &tuple(old, true), b"N", &tuple(new, false)].concat(),
        [b"D", &id[..], b"K", &tuple(new, true)].concat(),
        [&b"T\0\0\0\x01\0"[..], &id].concat(),
        [&b"C\0"[..], &[0; 8], &99u64.to_be_bytes(), &1u64.to_be_bytes()].concat(),
    ]
}

fn wal2json(old: &[Cell], new: &[Cell]) -> Vec<Vec<u8>> {
    let columns = |row: &[Cell], count: usize| -> Vec<serde_json::Value> {
        let named = names(row.len()).into_iter().zip(row).take(count);
        named.map(|(name, cell)| serde_json::json!({"name": name, "type": "text", "value": cell})).collect()
    };
    let message = |action: &str, new: Option<&[Cell]>, old: Option<&[Cell]>| {
        let mut message = serde_json::json!({"action": action, "schema": "public", "table": "T \"1\""});
        if let Some(new) = new {
            message["columns"] = columns(new, usize::MAX).into();
        }
        if let Some(old) = old {
            message["identity"] = columns(old, 1).into();
        }
        message.to_string().into_bytes()
    };
    let timestamp = "2026-11-22 11:26:17.02898+00";
    let edge =
        |action: &str| serde_json::json!({"action": action, "xid": 9, "timestamp": timestamp}).to_string().into_bytes();
    vec![
        edge("B"),
        message("I", Some(old), None),
        message("U", Some(new), Some(old)),
        message("D", None, Some(new)),
        message("T", None, None),
        edge("C"),
    ]
}

fn decode(decoder: &mut dyn Decoder, messages: &[Vec<u8>]) -> Option<Vec<Item>> {
    let mut into = Assembler::default();
    let mut items = Vec::new();
    for message in messages {
        decoder.decode(Lsn(99), message, &mut into).ok()?;
    }
    while let Some(frame) = into.take(true) {
        let mut reader = Reader::new(frame.body.into());
        while let Some(item) = reader.next().expect("what we encode we can read") {
            items.push(item);
        }
    }
    Some(items)
}

fn cells<'a>(values: impl Iterator<Item = Value<'a>>) -> Vec<Cell> {
    let cell = |value| match value {
        Value::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        Value::Null | Value::Unchanged | Value::Binary(_) => None,
    };
    values.map(cell).collect()
}

#[test]
fn what_is_sent_is_what_is_read_through_both_plugins() {
    let (mut rng, rounds) = setup(500);
    for _ in 0..rounds.min(100_000) {
        let width = rng.usize(1..6);
        let (old, new) = (row(&mut rng, width), row(&mut rng, width));
        let through = [
            decode(&mut PgOutput::default(), &pgoutput(&old, &new)),
            decode(&mut Wal2Json::default(), &wal2json(&old, &new)),
        ];
        for items in through {
            let items = items.expect("a whole transaction is understood");
            let changes: Vec<(Vec<Cell>, Vec<Cell>)> = items
                .iter()
                .filter_map(|item| match item {
                    Item::Change(change) => Some((cells(change.key()), cells(change.row()))),
                    _ => None,
                })
                .collect();
            let key = |row: &[Cell]| row[..1].to_vec();
            let expected = [(vec![], old.clone()), (key(&old), new.clone()), (key(&new), vec![])];
            assert_eq!(changes, expected);
            assert!(
                matches!(&items[..], [Item::Begin { xid: 9 }, .., Item::Truncate(_), Item::Commit(_)]),
                "{items:?}"
            );
        }
    }
}

/// Flips, cuts, repeats and swaps bytes.
fn damage(rng: &mut Rng, messages: &mut [Vec<u8>]) {
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(..messages.len());
        let other = messages[rng.usize(..messages.len())].clone();
        let message = &mut messages[at];
        let place = rng.usize(..=message.len());
        match rng.u8(..6) {
            0 => message.truncate(place),
            1 if place < message.len() => message[place] ^= 1 << rng.u8(..8),
            2 if place < message.len() => {
                message[place] = [0, 0xff, b'"', b'\\', b'n', b'u', 0x80, b'{'][rng.usize(..8)]
            }
            3 => {
                let piece = other[..rng.usize(..=other.len())].to_vec();
                message.splice(place..place, piece);
            }
            4 => {
                message.drain(rng.usize(..=place)..place);
            }
            _ => messages.swap(at, 0),
        }
    }
}

#[test]
fn damaged_messages_are_an_error_or_records_and_never_a_panic() {
    let (mut rng, rounds) = setup(4_000);
    for _ in 0..rounds {
        let width = rng.usize(1..5);
        let (old, new) = (row(&mut rng, width), row(&mut rng, width));
        let (decoder, mut messages): (&mut dyn Decoder, _) = if rng.bool() {
            (&mut PgOutput::default(), pgoutput(&old, &new))
        } else {
            (&mut Wal2Json::default(), wal2json(&old, &new))
        };
        damage(&mut rng, &mut messages);
        let sent: usize = messages.iter().map(Vec::len).sum();
        if let Some(items) = decode(decoder, &messages) {
            let kept: usize =
                items.iter().map(|item| if let Item::Change(change) = item { change.bytes() } else { 0 }).sum();
            assert!(kept <= 100 * sent, "{kept} bytes of {sent}");
        }
    }
}

#[test]
fn damaged_records_are_an_error_or_records_and_never_a_panic() {
    let (mut rng, rounds) = setup(4_000);
    let mut into = Assembler::default();
    let mut decoder = PgOutput::default();
    for message in pgoutput(&row(&mut rng, 4), &row(&mut rng, 4)) {
        decoder.decode(Lsn(1), &message, &mut into).expect("a whole transaction is understood");
    }
    let body = into.take(true).expect("there is a frame").body;
    for _ in 0..rounds {
        let mut bodies = [body.clone()];
        damage(&mut rng, &mut bodies);
        let mut reader = Reader::new(std::mem::take(&mut bodies[0]).into());
        while let Ok(Some(item)) = reader.next() {
            if let Item::Change(change) = item {
                let _ = (change.key().count(), change.row().count());
            }
        }
    }
}

#[test]
fn a_damaged_spool_is_an_error_or_shorter_and_never_a_panic() {
    let (mut rng, rounds) = setup(150);
    for _ in 0..rounds.min(20_000) {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let mut opened = Spool::open(dir.path()).expect("a new spool opens");
        for _ in 0..3 {
            let mut into = Assembler::default();
            let mut decoder = PgOutput::default();
            for message in pgoutput(&row(&mut rng, 3), &row(&mut rng, 3)) {
                decoder.decode(Lsn(1), &message, &mut into).expect("a whole transaction is understood");
            }
            opened.writer.append(&into.take(true).expect("there is a frame")).expect("a frame is written");
        }
        drop(opened);
        let segment =
            std::fs::read_dir(dir.path()).expect("a folder").next().expect("a segment").expect("a name").path();
        let mut bytes = [std::fs::read(&segment).expect("a segment can be read")];
        damage(&mut rng, &mut bytes);
        std::fs::write(&segment, &bytes[0]).expect("a segment can be written");
        if let Ok(opened) = Spool::open(dir.path()) {
            let mut reader = opened.spool.reader();
            let mut items = 0;
            while let Ok(Some(_)) = reader.next() {
                items += 1;
                assert!(items <= 100, "more than was written");
            }
        }
    }
}
