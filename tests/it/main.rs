//! The integration tests, in one binary so that they link once.

mod harness_itself;
mod life;
