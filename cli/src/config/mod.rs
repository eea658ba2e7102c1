//! What was typed, stored in files or left in the environment becomes ready values here.
//! Nothing below this module reads the process environment.

pub mod conninfo;
mod environment;
pub mod filters;
mod keyword;
mod passfile;
pub mod requirements;
mod resolve;
mod secret;
mod servicefile;
mod syntax;

pub use conninfo::{Conninfo, Endpoint, Host};
pub use environment::Environment;
pub use secret::Secret;
