//! All that is said to the target. It never uses `source`.

pub mod checks;
pub mod checks_tried;
pub mod columns;
pub mod copy_in;
pub mod cutover;
pub mod extension_parts;
pub mod forecast;
pub mod history;
pub mod install;
pub mod keys;
pub mod large_objects;
pub mod limits;
pub mod objects;
pub mod progress;
pub mod queue;
pub mod requests;
pub mod reset;
pub mod rounds;
pub mod sentinel;
pub mod status;
pub mod way_back;
