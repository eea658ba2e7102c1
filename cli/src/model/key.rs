//! Values of keys whose order is the same on every server: by them a change says in which range of its
//! table its row is.

use std::fmt;

use super::name::{identifier, literal};

/// A value in the order of its type. Values of different types are never compared. Text is in the order of
/// its bytes, as the collation C has it: any other order is a library's, and another one on another machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyValue {
    /// Integers; days of a date and microseconds of a timestamp, as their binary forms count them.
    Integer(i64),
    Uuid(u128),
    Numeric(Numeric),
    /// In UTF-8.
    Text(Vec<u8>),
}

/// Whether its order depends on a collation.
pub fn is_text(type_name: &str) -> bool {
    matches!(unmodified(type_name).as_str(), "text" | "character varying")
}

/// Type, as SQL has it, without its modifier: `timestamp(3) with time zone` is `timestamp with time zone`.
fn unmodified(type_name: &str) -> String {
    match (type_name.find('('), type_name.find(')')) {
        (Some(from), Some(to)) if from < to => format!("{}{}", &type_name[..from], &type_name[to + 1..]),
        _ => type_name.to_string(),
    }
}

impl KeyValue {
    /// Reads what the server prints for a value; None if it is of no type whose order is known here.
    pub fn parse(type_name: &str, text: &[u8]) -> Option<KeyValue> {
        let text = std::str::from_utf8(text).ok()?;
        match unmodified(type_name).as_str() {
            "smallint" | "integer" | "bigint" => text.parse().ok().map(KeyValue::Integer),
            "uuid" if text.len() == 36 => {
                let digits: String = text.chars().filter(|c| *c != '-').collect();
                (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok()).flatten().map(KeyValue::Uuid)
            }
            "date" => moment::days(text).map(KeyValue::Integer),
            "timestamp without time zone" => moment::microseconds(text).map(KeyValue::Integer),
            // As sessions of ours have it, which are in UTC.
            "timestamp with time zone" => {
                let in_utc = match text.strip_suffix(" BC") {
                    Some(before) => before.strip_suffix("+00").map(|moment| format!("{moment} BC")),
                    None if text.ends_with("infinity") => Some(text.to_string()),
                    None => text.strip_suffix("+00").map(str::to_string),
                };
                in_utc.and_then(|text| moment::microseconds(&text)).map(KeyValue::Integer)
            }
            "numeric" => Numeric::parse(text).map(KeyValue::Numeric),
            of if is_text(of) => Some(KeyValue::Text(text.into())),
            _ => None,
        }
    }

    /// The same of a value in binary: numbers are big endian.
    pub fn receive(type_name: &str, bytes: &[u8]) -> Option<KeyValue> {
        match unmodified(type_name).as_str() {
            "smallint" | "integer" | "bigint" | "date" | "timestamp without time zone" | "timestamp with time zone" => {
                let number = match bytes.len() {
                    2 => i16::from_be_bytes(bytes.try_into().ok()?).into(),
                    4 => i32::from_be_bytes(bytes.try_into().ok()?).into(),
                    8 => i64::from_be_bytes(bytes.try_into().ok()?),
                    _ => return None,
                };
                Some(KeyValue::Integer(number))
            }
            "uuid" => bytes.try_into().ok().map(u128::from_be_bytes).map(KeyValue::Uuid),
            "numeric" => Numeric::receive(bytes).map(KeyValue::Numeric),
            of if is_text(of) => Some(KeyValue::Text(bytes.into())),
            _ => None,
        }
    }
}

/// A number of any size, by what decides its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numeric {
    /// -2: -Infinity, -1 to 1: the sign, 2: Infinity, 3: NaN, which is the largest.
    class: i8,
    /// How many digits stand before the point; fewer than none where zeros follow it.
    exponent: i64,
    /// Without zeros at either end.
    digits: Vec<u8>,
}

impl Numeric {
    fn of(negative: bool, mut exponent: i64, digits: &[u8]) -> Numeric {
        let leading = digits.iter().take_while(|digit| **digit == 0).count();
        exponent -= leading as i64;
        let end = digits.iter().rposition(|digit| *digit != 0).map_or(leading, |last| last + 1);
        match &digits[leading..end] {
            [] => Numeric { class: 0, exponent: 0, digits: Vec::new() },
            digits => Numeric { class: if negative { -1 } else { 1 }, exponent, digits: digits.to_vec() },
        }
    }
    fn special(class: i8) -> Numeric {
        Numeric { class, exponent: 0, digits: Vec::new() }
    }
    fn parse(text: &str) -> Option<Numeric> {
        match text {
            "NaN" => return Some(Numeric::special(3)),
            "Infinity" => return Some(Numeric::special(2)),
            "-Infinity" => return Some(Numeric::special(-2)),
            _ => {}
        }
        let (negative, number) = text.strip_prefix('-').map_or((false, text), |number| (true, number));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|byte| byte.wrapping_sub(b'0')).collect();
        let is_number = !whole.is_empty() && digits.iter().all(|digit| *digit < 10);
        is_number.then(|| Numeric::of(negative, whole.len() as i64, &digits))
    }
    /// Numbers of two bytes: how many digits of base 10,000, the weight of the first, sign, scale, the digits.
    fn receive(bytes: &[u8]) -> Option<Numeric> {
        let numbers: Vec<u16> = bytes.chunks_exact(2).map(|two| u16::from_be_bytes([two[0], two[1]])).collect();
        let [count, weight, sign, _scale, digits @ ..] = numbers.as_slice() else { return None };
        match sign {
            0xc000 => return Some(Numeric::special(3)),
            0xd000 => return Some(Numeric::special(2)),
            0xf000 => return Some(Numeric::special(-2)),
            0x0000 | 0x4000 if digits.len() == usize::from(*count) && bytes.len().is_multiple_of(2) => {}
            _ => return None,
        }
        let decimal =
            |digit: &u16| [digit / 1000, digit / 100 % 10, digit / 10 % 10, digit % 10].map(|digit| digit as u8);
        let decimals: Vec<u8> = digits.iter().flat_map(decimal).collect();
        Some(Numeric::of(*sign == 0x4000, (i64::from(*weight as i16) + 1) * 4, &decimals))
    }
}

impl Ord for Numeric {
    fn cmp(&self, other: &Numeric) -> std::cmp::Ordering {
        let size = || self.exponent.cmp(&other.exponent).then_with(|| self.digits.cmp(&other.digits));
        self.class.cmp(&other.class).then_with(|| if self.class < 0 { size().reverse() } else { size() })
    }
}
impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Numeric) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Dates and times as the server prints them with DateStyle ISO.
mod moment {
    const DAY: i64 = 86_400_000_000;

    /// Since 2000-01-01; the infinities are those of the binary form.
    pub fn days(text: &str) -> Option<i64> {
        match text {
            "infinity" => return Some(i32::MAX.into()),
            "-infinity" => return Some(i32::MIN.into()),
            _ => {}
        }
        let (date, before_christ) = text.strip_suffix(" BC").map_or((text, false), |date| (date, true));
        let mut parts = date.split('-').map(|part| part.parse::<i64>().ok());
        let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
        if parts.next().is_some() || year < 1 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let year = if before_christ { 1 - year } else { year };
        // Years that begin in March: the day that not every year has is the last one.
        let year = if month < 3 { year - 1 } else { year };
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 730_425)
    }

    pub fn microseconds(text: &str) -> Option<i64> {
        match text {
            "infinity" => return Some(i64::MAX),
            "-infinity" => return Some(i64::MIN),
            _ => {}
        }
        let (date, time) = text.split_once(' ')?;
        let (time, era) = time.strip_suffix(" BC").map_or((time, ""), |time| (time, " BC"));
        let (whole, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let mut parts = whole.split(':').map(|part| part.parse::<i64>().ok());
        let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
        if parts.next().is_some() || fraction.len() > 6 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let fraction: i64 = format!("{fraction:0<6}").parse().ok()?;
        let of_day = ((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction;
        days(&format!("{date}{era}"))?.checked_mul(DAY)?.checked_add(of_day)
    }
}

/// A range of the values of one column: from `lower` on, up to `upper` without it; None is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    pub column: String,
    /// Its type, as SQL.
    pub type_name: String,
    /// As the server prints them.
    pub lower: Option<String>,
    pub upper: Option<String>,
}

impl KeyRange {
    /// The same as a condition on the server that the bounds are of; None if it leaves out nothing.
    pub fn condition(&self) -> Option<String> {
        let value = |bound: &String| format!("{}::{}", literal(bound), self.type_name);
        self.between(&identifier(&self.column), value)
    }

    /// The same for any server, of a range that changes are held against: text in the order of its bytes,
    /// whatever collation and encoding it has there.
    pub fn condition_anywhere(&self) -> Option<String> {
        if !is_text(&self.type_name) {
            return self.condition();
        }
        let bytes = |text: String| format!("convert_to({text}, 'UTF8')");
        self.between(&bytes(identifier(&self.column)), |bound| bytes(literal(bound)))
    }

    fn between(&self, column: &str, value: impl Fn(&String) -> String) -> Option<String> {
        let lower = self.lower.as_ref().map(|bound| format!("{column} >= {}", value(bound)));
        let upper = self.upper.as_ref().map(|bound| format!("{column} < {}", value(bound)));
        let conditions: Vec<String> = lower.into_iter().chain(upper).collect();
        (!conditions.is_empty()).then(|| conditions.join(" and "))
    }

    pub fn holds(&self, value: &KeyValue) -> bool {
        let bound = |bound: &Option<String>| KeyValue::parse(&self.type_name, bound.as_deref()?.as_bytes());
        bound(&self.lower).is_none_or(|lower| lower <= *value) && bound(&self.upper).is_none_or(|upper| *value < upper)
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.condition().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_in_the_order_of_the_server() {
        let integer = |text: &str| KeyValue::parse("bigint", text.as_bytes()).unwrap();
        assert!(integer("-9223372036854775808") < integer("-2") && integer("-2") < integer("10"));
        assert!(integer("9") < integer("10"));
        let uuid = |text: &str| KeyValue::parse("uuid", text.as_bytes()).unwrap();
        assert!(uuid("0fffffff-ffff-ffff-ffff-ffffffffffff") < uuid("10000000-0000-0000-0000-000000000000"));
        let with_zone = "timestamp(3) with time zone";
        for (of, ascending) in [
            (
                "numeric(20,3)",
                &["-Infinity", "-100.5", "-99.9", "-0.01", "0.000", "0.009", "0.01", "9", "10.1", "NaN"][..],
            ),
            (
                "date",
                &["-infinity", "4713-01-01 BC", "0001-12-31 BC", "0001-01-01", "1999-12-31", "10000-01-01", "infinity"],
            ),
            ("character varying(9)", &["", " ", "A", "Z", "_", "a", "a ", "aa", "\u{e9}", "\u{fffd}", "\u{1f600}"]),
            (
                with_zone,
                &[
                    "-infinity",
                    "0044-03-15 12:00:00+00 BC",
                    "1999-12-31 23:59:59.25+00",
                    "1999-12-31 23:59:59.5+00",
                    "infinity",
                ],
            ),
        ] {
            let values: Vec<_> = ascending.iter().map(|text| KeyValue::parse(of, text.as_bytes())).collect();
            assert!(values.iter().all(Option::is_some) && values.is_sorted_by(|a, b| a < b), "{of}: {values:?}");
        }
        assert_eq!(KeyValue::parse("numeric", b"1.50"), KeyValue::parse("numeric", b"01.5"));
        for (of, text) in [
            ("integer", "1.0"),
            ("integer", ""),
            ("uuid", "10000000"),
            ("name", "a"),
            ("numeric", "1e5"),
            ("numeric", ""),
            ("date", "2026-13-01"),
            (with_zone, "2026-01-01 00:00:00+02"),
        ] {
            assert_eq!(KeyValue::parse(of, text.as_bytes()), None, "{of} {text}");
        }
    }

    #[test]
    fn a_value_in_binary_is_the_same_as_in_text() {
        for (of, text, bytes) in [
            ("smallint", "-2", (-2i16).to_be_bytes().to_vec()),
            ("integer", "-2147483648", i32::MIN.to_be_bytes().to_vec()),
            ("bigint", "9223372036854775807", i64::MAX.to_be_bytes().to_vec()),
            ("uuid", "0fffffff-ffff-ffff-ffff-fffffffffffe", (u128::MAX / 16 - 1).to_be_bytes().to_vec()),
            ("date", "2000-03-01", 60i32.to_be_bytes().to_vec()),
            ("date", "infinity", i32::MAX.to_be_bytes().to_vec()),
            ("timestamp without time zone", "2000-01-02 00:00:00.000001", 86_400_000_001i64.to_be_bytes().to_vec()),
            ("timestamp with time zone", "1999-12-31 23:59:59+00", (-1_000_000i64).to_be_bytes().to_vec()),
            ("numeric", "-12345.06", vec![0, 3, 0, 1, 0x40, 0, 0, 2, 0, 1, 9, 41, 2, 88]),
            ("numeric", "0.00012", vec![0, 2, 0xff, 0xff, 0, 0, 0, 5, 0, 1, 7, 208]),
            ("numeric", "NaN", vec![0, 0, 0, 0, 0xc0, 0, 0, 0]),
            ("text", "\u{e9}", vec![0xc3, 0xa9]),
        ] {
            let value = KeyValue::parse(of, text.as_bytes());
            assert!(value.is_some() && KeyValue::receive(of, &bytes) == value, "{of} {text}");
        }
        assert_eq!(KeyValue::receive("integer", &[0; 3]), None);
        assert_eq!(KeyValue::receive("bytea", b"1"), None);
    }

    #[test]
    fn a_range_holds_its_lower_bound_and_not_its_upper_one() {
        let range = |lower: Option<&str>, upper: Option<&str>| KeyRange {
            column: "Id".into(),
            type_name: "bigint".into(),
            lower: lower.map(str::to_string),
            upper: upper.map(str::to_string),
        };
        let middle = range(Some("-9"), Some("10"));
        assert_eq!(middle.condition().unwrap(), r#""Id" >= '-9'::bigint and "Id" < '10'::bigint"#);
        let held: Vec<i64> = [-10, -9, 9, 10].into_iter().filter(|n| middle.holds(&KeyValue::Integer(*n))).collect();
        assert_eq!(held, [-9, 9]);
        assert!(range(None, None).condition().is_none() && range(None, None).holds(&KeyValue::Integer(i64::MIN)));
        assert_eq!(middle.condition_anywhere(), middle.condition());
        let text = KeyRange { column: "k".into(), type_name: "text".into(), lower: Some("a'".into()), upper: None };
        assert_eq!(text.condition().unwrap(), r#""k" >= 'a'''::text"#);
        assert_eq!(text.condition_anywhere().unwrap(), r#"convert_to("k", 'UTF8') >= convert_to('a''', 'UTF8')"#);
    }
}
