//! Reads a message of wal2json, format-version 2, as wal2json prints it: keys in one order, no spaces.
//! It says None to whatever looks otherwise, and then serde_json has a look; it must never say another
//! thing than serde_json would. Values stay as they stand in the message.

use std::borrow::Cow;

use memchr::memchr2;

use super::wal2json::{Column, Message};

/// None: not in the usual form. The text is valid UTF-8; that it is JSON is not known.
pub fn message<'a>(text: &'a str) -> Option<Message<'a>> {
    let mut scan = Scan { text, at: 0 };
    scan.expect("{\"action\":\"")?;
    let action = scan.text.get(scan.at..scan.at + 1).filter(|action| action.as_bytes()[0].is_ascii_uppercase())?;
    scan.at += 1;
    scan.expect("\"")?;
    let mut message = Message { action, ..Message::default() };
    if scan.found(",\"xid\":") {
        message.xid = Some(scan.number()?);
    }
    if scan.found(",\"timestamp\":") {
        message.timestamp = Some(scan.string()?);
    }
    if scan.found(",\"schema\":") {
        message.schema = Some(scan.string()?);
    }
    if scan.found(",\"table\":") {
        message.table = Some(scan.string()?);
    }
    if scan.found(",\"columns\":") {
        message.columns = scan.columns()?;
    }
    if scan.found(",\"identity\":") {
        message.identity = scan.columns()?;
    }
    scan.expect("}")?;
    (scan.at == text.len()).then_some(message)
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }
    fn found(&mut self, what: &str) -> bool {
        let found = self.rest().starts_with(what.as_bytes());
        self.at += if found { what.len() } else { 0 };
        found
    }
    fn expect(&mut self, what: &str) -> Option<()> {
        self.found(what).then_some(())
    }

    fn number(&mut self) -> Option<u32> {
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = &self.text[self.at..self.at + digits];
        self.at += digits;
        // JSON knows no leading zeros.
        if digits > 1 && number.starts_with('0') { None } else { number.parse().ok() }
    }

    /// A string without escapes: names have them rarely.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        let raw = self.quoted()?;
        let plain = &raw[1..raw.len() - 1];
        (!plain.contains('\\')).then_some(Cow::Borrowed(plain))
    }

    /// A string as it stands there, quotes and all.
    fn quoted(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.expect("\"")?;
        loop {
            let rest = self.rest();
            let stop = memchr2(b'"', b'\\', rest)?;
            // Control characters must be escaped in JSON.
            if rest[..stop].iter().fold(false, |found, &byte| found | (byte < 0x20)) {
                return None;
            }
            self.at += stop + 1;
            if rest[stop] == b'"' {
                return Some(&self.text[start..self.at]);
            }
            match self.rest().first()? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
                // Four digits, and pairs of surrogates: rare, and not for here.
                _ => return None,
            }
        }
    }

    /// Number, true, false or null.
    fn bare(&mut self) -> Option<&'a str> {
        let start = self.at;
        let length = self.rest().iter().position(|byte| matches!(byte, b',' | b'}'))?;
        self.at += length;
        let word = &self.text[start..self.at];
        let is_plain = match word.as_bytes() {
            b"true" | b"false" | b"null" => true,
            bytes => is_number(bytes),
        };
        is_plain.then_some(word)
    }

    fn columns(&mut self) -> Option<Vec<Column<'a>>> {
        self.expect("[")?;
        let mut columns = Vec::with_capacity(16);
        if self.found("]") {
            return Some(columns);
        }
        loop {
            self.expect("{\"name\":")?;
            let name = self.string()?;
            let type_name = if self.found(",\"type\":") { Some(self.string()?) } else { None };
            self.expect(",\"value\":")?;
            let value = if self.rest().first() == Some(&b'"') { self.quoted()? } else { self.bare()? };
            self.expect("}")?;
            columns.push(Column { name, type_name, value });
            if self.found("]") {
                return Some(columns);
            }
            self.expect(",")?;
        }
    }
}

/// Whether JSON takes it for a number: -0.5e+10, and no leading zero.
fn is_number(bytes: &[u8]) -> bool {
    fn digits(bytes: &[u8]) -> (&[u8], &[u8]) {
        bytes.split_at(bytes.iter().take_while(|byte| byte.is_ascii_digit()).count())
    }
    let (whole, mut rest) = digits(bytes.strip_prefix(b"-").unwrap_or(bytes));
    if whole.is_empty() || (whole.len() > 1 && whole[0] == b'0') {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        let (fraction, after) = digits(fraction);
        if fraction.is_empty() {
            return false;
        }
        rest = after;
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let (exponent, after) = digits(exponent);
        return !exponent.is_empty() && after.is_empty();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What serde_json makes of it, if anything.
    fn slowly(text: &str) -> Option<Message<'_>> {
        serde_json::from_str(text).ok()
    }

    /// Messages as wal2json 2.5 to 2.7 prints them.
    const REAL: [&str; 9] = [
        r#"{"action":"B","xid":750,"timestamp":"2026-11-22 11:26:17.02898+00"}"#,
        r#"{"action":"C","xid":750,"timestamp":"2026-11-22 11:26:17.02898+00"}"#,
        r#"{"action":"I","xid":750,"timestamp":"2026-11-22 11:26:17.02898+00","schema":"public","table":"t","columns":[{"name":"id","type":"bigint","value":9007199254740993},{"name":"n","type":"numeric","value":-0.10},{"name":"f","type":"double precision","value":1e-40},{"name":"b","type":"boolean","value":true},{"name":"x","type":"text","value":null},{"name":"e","type":"text","value":""}]}"#,
        r#"{"action":"I","xid":1,"timestamp":"t","schema":"A b","table":"é","columns":[{"name":"ü x","type":"text","value":"a\\\"\n\t {\"k\": [1,2]}"},{"name":"u","type":"text","value":"\u0001"}]}"#,
        r#"{"action":"U","xid":1,"timestamp":"t","schema":"s","table":"t","columns":[{"name":"id","type":"integer","value":1}],"identity":[{"name":"id","type":"integer","value":1}]}"#,
        r#"{"action":"D","xid":1,"timestamp":"t","schema":"s","table":"t","identity":[{"name":"id","type":"bytea","value":"00ff"},{"name":"d","type":"date","value":"infinity"}]}"#,
        r#"{"action":"T","xid":1,"timestamp":"t","schema":"s","table":"t"}"#,
        r#"{"action":"I","schema":"s","table":"none","columns":[]}"#,
        r#"{"action":"M","transactional":false,"prefix":"p","content":"c"}"#,
    ];

    #[test]
    fn what_wal2json_prints_is_read_as_serde_json_reads_it() {
        for text in REAL {
            let fast = message(text);
            let rare = text.contains("\\u") || text.contains("transactional");
            assert_eq!(fast.is_none(), rare, "{text}");
            assert!(fast.is_none() || fast == slowly(text), "{text}");
        }
    }

    #[test]
    fn whatever_is_changed_it_says_nothing_that_serde_json_does_not() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let odd = [
            "\"", "\\", "{", "}", "[", "]", ",", ":", "0", "-", "e", ".", "\u{1}", "é", "null", "\\u00e9", " ", "t",
            "+",
        ];
        let mut agreed = 0;
        for round in 0..20_000 {
            let mut text: Vec<char> = REAL[round % REAL.len()].chars().collect();
            for _ in 0..rng.usize(..3) {
                let at = rng.usize(..text.len());
                match rng.u8(..3) {
                    0 => drop(text.remove(at)),
                    1 => drop(text.splice(at..at, odd[rng.usize(..odd.len())].chars())),
                    _ => drop(text.splice(at..=at, odd[rng.usize(..odd.len())].chars())),
                }
            }
            let text: String = text.into_iter().collect();
            if let Some(fast) = message(&text) {
                assert_eq!(Some(fast), slowly(&text), "{text}");
                agreed += 1;
            }
        }
        assert!(agreed > 2000, "{agreed}");
    }

    #[test]
    fn numbers_are_those_of_json() {
        let yes = ["0", "-0", "10", "0.5", "-1.25e+300", "1E5", "1e-40"];
        let no = ["", "-", "01", "1.", ".5", "1e", "1e+", "+1", "NaN", "0x1", "1 "];
        assert!(yes.iter().all(|text| is_number(text.as_bytes())));
        assert!(no.iter().all(|text| !is_number(text.as_bytes())));
    }
}
