//! All that is said to the source. It never uses `target`.

pub mod catalog;
pub mod checks;
pub mod columns;
pub mod copy_out;
pub mod ddl;
pub mod dump;
pub mod dump_ranges;
pub mod extensions;
pub mod freeze;
pub mod health;
pub mod identity;
pub mod inventory;
pub mod large_objects;
pub mod load;
pub mod partitions;
pub mod replication;
pub mod roles;
pub mod sample;
pub mod script;
pub mod slot;
pub mod snapshot;
pub mod subscriptions;
pub mod table_ddl;
pub mod toc;
pub mod unstreamed;
