//! Values of keys whose order is the same on every server, whatever its collations: by them a change
//! says in which range of its table its row is.

use std::fmt;

use super::name::{identifier, literal};

/// A value in the order of its type. Values of different types are never compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyValue {
    Integer(i64),
    Uuid(u128),
}

impl KeyValue {
    /// Reads what the server prints for a value; None if it is of no type whose order is known here.
    pub fn parse(type_name: &str, text: &[u8]) -> Option<KeyValue> {
        let text = std::str::from_utf8(text).ok()?;
        match type_name {
            "smallint" | "integer" | "bigint" => text.parse().ok().map(KeyValue::Integer),
            "uuid" if text.len() == 36 => {
                let digits: String = text.chars().filter(|c| *c != '-').collect();
                (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok()).flatten().map(KeyValue::Uuid)
            }
            _ => None,
        }
    }

    /// The same of a value in binary: numbers are big endian.
    pub fn receive(type_name: &str, bytes: &[u8]) -> Option<KeyValue> {
        match type_name {
            "smallint" | "integer" | "bigint" => {
                let number = match bytes.len() {
                    2 => i16::from_be_bytes(bytes.try_into().ok()?).into(),
                    4 => i32::from_be_bytes(bytes.try_into().ok()?).into(),
                    8 => i64::from_be_bytes(bytes.try_into().ok()?),
                    _ => return None,
                };
                Some(KeyValue::Integer(number))
            }
            "uuid" => bytes.try_into().ok().map(u128::from_be_bytes).map(KeyValue::Uuid),
            _ => None,
        }
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
    /// The same as a condition; None if it leaves out nothing.
    pub fn condition(&self) -> Option<String> {
        let column = identifier(&self.column);
        let value = |bound: &String| format!("{}::{}", literal(bound), self.type_name);
        let lower = self.lower.as_ref().map(|bound| format!("{column} >= {}", value(bound)));
        let upper = self.upper.as_ref().map(|bound| format!("{column} < {}", value(bound)));
        let conditions: Vec<String> = lower.into_iter().chain(upper).collect();
        (!conditions.is_empty()).then(|| conditions.join(" and "))
    }

    pub fn holds(&self, value: KeyValue) -> bool {
        let bound = |bound: &Option<String>| KeyValue::parse(&self.type_name, bound.as_deref()?.as_bytes());
        bound(&self.lower).is_none_or(|lower| lower <= value) && bound(&self.upper).is_none_or(|upper| value < upper)
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
        for (of, text) in [("integer", "1.0"), ("integer", ""), ("uuid", "10000000"), ("text", "a")] {
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
        ] {
            let value = KeyValue::parse(of, text.as_bytes());
            assert!(value.is_some() && KeyValue::receive(of, &bytes) == value, "{of} {text}");
        }
        assert_eq!(KeyValue::receive("integer", &[0; 3]), None);
        assert_eq!(KeyValue::receive("text", b"1"), None);
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
        let held: Vec<i64> = [-10, -9, 9, 10].into_iter().filter(|n| middle.holds(KeyValue::Integer(*n))).collect();
        assert_eq!(held, [-9, 9]);
        assert!(range(None, None).condition().is_none() && range(None, None).holds(KeyValue::Integer(i64::MIN)));
    }
}
