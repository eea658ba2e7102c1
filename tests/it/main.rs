//! The integration tests, in one binary so that they link once.

mod bench;
mod cutover;
mod filters;
mod harness_itself;
mod input;
mod layers;
mod life;
mod preflight;
mod prompts;
mod ready;
mod report;
mod rights;
mod schema;
mod secrets;
mod sql;
mod stream;
mod told;
mod transcript;
mod verify;
