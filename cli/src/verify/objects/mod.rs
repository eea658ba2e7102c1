//! Compares what both servers' catalogs say, object by object and property by property. Properties are read
//! from the catalogs, not from a dump: two versions print one schema in different words. What can only be
//! printed (views, expressions) and differs is read again by the target and printed by it (`reprint`).

mod compare;
mod excused;
mod large_objects;
mod read;
mod reprint;
mod sequences;

pub use compare::compare;
pub use excused::Excused;

use crate::model::ObjectDifference;

/// What a comparison of the catalogs came to.
#[derive(Debug, Default, Clone)]
pub struct ComparedObjects {
    /// Objects of the source that were compared.
    pub objects: usize,
    /// Differences that go when the migration ends: what is made or set only then.
    pub at_the_end: usize,
    pub differences: Vec<ObjectDifference>,
}
