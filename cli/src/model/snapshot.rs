//! The tag of a copy: which transactions its rows already hold.

use std::fmt;
use std::str::FromStr;

/// A `pg_snapshot` as `pg_current_snapshot()` prints it, `xmin:xmax:xip,xip` (manual 9.27, "Snapshot
/// Components"). Its numbers are 64 bit: epoch and xid. The snapshot of a new slot may have an xmin
/// beyond its xmax: the last transactions before it were rolled back, or wrote nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotTag {
    xmin: u64,
    xmax: u64,
    /// In progress between xmin and xmax, ascending.
    xip: Vec<u64>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a pg_snapshot")]
pub struct NotASnapshot(String);

impl SnapshotTag {
    /// The snapshot that shows no transaction that matters.
    pub fn of_nothing() -> SnapshotTag {
        SnapshotTag { xmin: 3, xmax: 3, xip: Vec::new() }
    }

    /// Whether rows read under this snapshot already show what the top-level transaction `xid` did.
    /// The stream gives 32 bits of it; the epoch is the one that puts it nearest to xmax.
    pub fn covers(&self, xid: u32) -> bool {
        let xid = self.widen(xid);
        xid < self.xmin || (xid < self.xmax && self.xip.binary_search(&xid).is_err())
    }

    fn widen(&self, xid: u32) -> u64 {
        let distance = xid.wrapping_sub(self.xmax as u32) as i32;
        self.xmax.saturating_add_signed(i64::from(distance))
    }
}

impl FromStr for SnapshotTag {
    type Err = NotASnapshot;

    fn from_str(text: &str) -> Result<SnapshotTag, NotASnapshot> {
        let parse = || -> Option<SnapshotTag> {
            let mut fields = text.split(':');
            let xmin = fields.next()?.parse().ok()?;
            let xmax = fields.next()?.parse().ok()?;
            let list = fields.next()?;
            let mut xip = Vec::new();
            for xid in list.split(',').filter(|xid| !xid.is_empty()) {
                xip.push(xid.parse().ok()?);
            }
            (fields.next().is_none() && xip.is_sorted()).then_some(SnapshotTag { xmin, xmax, xip })
        };
        parse().ok_or_else(|| NotASnapshot(text.to_string()))
    }
}

impl fmt::Display for SnapshotTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (i, xid) in self.xip.iter().enumerate() {
            write!(f, "{}{xid}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_what_was_committed_and_nothing_else() {
        let tag: SnapshotTag = "10:20:10,14,15".parse().unwrap();
        assert!(tag.covers(9));
        assert!(!tag.covers(10));
        assert!(tag.covers(11));
        assert!(!tag.covers(15));
        assert!(tag.covers(19));
        assert!(!tag.covers(20));
        assert!(!tag.covers(1_000_000));
    }

    #[test]
    fn what_lies_below_xmin_is_covered_even_beyond_xmax() {
        let tag: SnapshotTag = "1194:1190:".parse().unwrap();
        assert!(tag.covers(1189) && tag.covers(1193));
        assert!(!tag.covers(1194) && !tag.covers(1195));
    }

    #[test]
    fn an_xid_is_widened_across_the_wraparound() {
        let epoch = 3u64 << 32;
        let tag: SnapshotTag = format!("{}:{}:", epoch + 4, epoch + 5).parse().unwrap();
        assert!(tag.covers(3));
        assert!(!tag.covers(5));
        // Assigned just before the counter wrapped: older than xmin, though larger in 32 bits.
        assert!(tag.covers(u32::MAX - 10));
        let before: SnapshotTag = format!("{0}:{0}:", epoch - 3).parse().unwrap();
        assert!(!before.covers(7));
        assert!(before.covers(u32::MAX - 3));
    }

    #[test]
    fn prints_what_it_read_and_refuses_the_rest() {
        for text in ["10:20:10,14,15", "7:7:", "1194:1193:"] {
            assert_eq!(text.parse::<SnapshotTag>().unwrap().to_string(), text);
        }
        for text in ["", "1", "1:2", "1:9:5,4", "a:b:c", "1:2:3:4"] {
            assert!(text.parse::<SnapshotTag>().is_err(), "{text}");
        }
    }
}
